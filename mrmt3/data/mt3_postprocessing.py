"""Postprocessing of MT3's tasks: from predicted ids of an example to the arguments of MT3's metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrmt3.event_codec import Codec
from mrmt3.note_sequences import START_TIMES
from mrmt3.special_tokens import DECODED_EOS_ID

_SLACK = 0.02  # steps; tolerance for rounding, since input_times are float32


def trim_eos(tokens: Sequence[int]) -> np.ndarray:
  """Return the regular ids, int32 `[n]`, before the first end of sequence (`DECODED_EOS_ID`)."""
  tokens = np.array(tokens, np.int32)
  ends = np.flatnonzero(tokens == DECODED_EOS_ID)
  return tokens[: ends[0]] if len(ends) else tokens


def segment_start_time(first_frame_time: float, codec: Codec, start_times: str = 'steps') -> float:
  """Return the time in s of the last token step that is not after a segment's first frame.

  'float' rounds as in MT3. About a tenth of the segments then start a step early, and events on the boundary are
  lost. ValueError if `start_times` is unknown.
  """
  if start_times not in START_TIMES:
    raise ValueError(f'start_times is {start_times!r}; it must be one of {START_TIMES}')
  if start_times == 'float':
    return float(first_frame_time - first_frame_time % (1 / codec.steps_per_second))
  return float(np.floor(float(first_frame_time) * codec.steps_per_second + _SLACK) / codec.steps_per_second)


def parse_reference(sequence: bytes):
  """Parse a serialized NoteSequence; return None if it is empty. Imports note_seq."""
  from note_seq.protobuf import music_pb2

  return music_pb2.NoteSequence.FromString(sequence) if sequence else None


def postprocess(
  tokens: Sequence[int], example: Mapping[str, Any], is_target: bool, codec: Codec, start_times: str = 'steps'
) -> dict[str, Any]:
  """Return a target or prediction of a segment, as `metrics.transcription_metrics` takes it.

  Args:
    tokens: regular ids, int `[n]`.
    example: unique_id `[1]`, sequence `[frames]`, input_times `[frames]` (s) and raw_inputs (samples `[n]`).
    is_target: whether the tokens are targets.
    codec: the codec of the tokens.
    start_times: see `segment_start_time`.
  """
  unique_id, tokens = example['unique_id'][0], trim_eos(tokens)
  if is_target:
    return {'unique_id': unique_id, 'ref_ns': parse_reference(example['sequence'][0]), 'ref_tokens': tokens}
  start_time = segment_start_time(example['input_times'][0], codec, start_times)
  return {'unique_id': unique_id, 'raw_inputs': example['raw_inputs'], 'est_tokens': tokens, 'start_time': start_time}
