"""From audio to notes with a trained model: segment by segment, each with the memory of the one before."""

import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np

from mrmt3 import checkpoints, spectrograms
from mrmt3.config import ModelSpec
from mrmt3.note_sequences import DecodingStats, SegmentDecoder, encoding_spec
from mrmt3.segment_tokens import empty_segment
from mrmt3.vocabularies import EOS_ID, build_codec

SEGMENTS_AT_ONCE = 8  # where segments do not depend on each other


@dataclasses.dataclass(frozen=True)
class Segment:
  """What the model said about one segment.

  Attributes:
    start: first frame's time, s.
    tokens: int32 `[n]` model ids, up to and including EOS.
  """

  start: float
  tokens: np.ndarray


@dataclasses.dataclass(frozen=True)
class Transcription:
  """A transcribed piece.

  Attributes:
    notes: sorted note table.
    stats: events that were invalid or dropped, segments, and segments that had no EOS.
    segments: what the notes were decoded from.
  """

  notes: np.ndarray
  stats: DecodingStats
  segments: list[Segment]


class Transcriber:
  """A model that is ready to transcribe; compiles on first use and then keeps its shapes."""

  def __init__(self, params, spec: ModelSpec, segments_at_once: int = SEGMENTS_AT_ONCE):
    """Takes a parameter tree and what it belongs to; `segments_at_once` counts for models without memory only."""
    import jax

    self.spec = spec
    self.codec = build_codec(spec.vocabulary)
    self._params = jax.device_put(params)
    self._rows = 1 if spec.network.memory_length else segments_at_once
    # The published code counts the start token among the tokens of a segment.
    self._max_length = spec.targets_length - (spec.prior_layout == 'start_token')

  @classmethod
  def load(cls, checkpoint: str | os.PathLike) -> 'Transcriber':
    """Reads a checkpoint_<step> folder, or the newest one in a model_dir. UserError if there is none."""
    params, spec, _ = checkpoints.restore_params(checkpoint)
    return cls(params, spec)

  def transcribe(self, samples: np.ndarray, progress: Callable[[int, int], None] | None = None) -> Transcription:
    """Transcribes a piece.

    Args:
      samples: float32 `[n]`, mono, at the spectrogram's sample rate (16 kHz).
      progress: called with (segments done, all segments) after every step.
    """
    config, frames = self.spec.spectrogram, self.spec.segment_frames
    cut, valid = spectrograms.piece_segments(np.asarray(samples, np.float32), config, frames)
    decoder = SegmentDecoder(self.codec, spec=encoding_spec(self.spec.ties), frames_per_second=config.frame_rate)
    segments = []

    def inputs():
      for first in range(0, len(cut), self._rows):
        rows = slice(first, first + self._rows)
        mel = spectrograms.compute_spectrogram(cut[rows], config)
        yield spectrograms.clear_invalid_frames(mel, valid[rows])

    for tokens in self.decode(inputs()):
      for row in tokens:
        start = len(segments) * frames
        decoder.segment(row, start)
        segments.append(Segment(float(start / config.frame_rate), until_eos(row)))
      if progress:
        progress(len(segments), len(cut))
    notes, stats = decoder.finish()
    return Transcription(notes, stats, segments)

  def decode(self, inputs) -> Iterator[np.ndarray]:
    """Decodes consecutive segments of one piece greedily.

    Args:
      inputs: iterable of log-mel frames `[rows, frames, mel]`: one row each for a model with memory, at most
        `segments_at_once` for others.

    Yields:
      int32 `[rows, length]` model ids for each item: tokens, EOS, padding.
    """
    from mrmt3 import decoding

    empty = pad_tokens(empty_segment(self.codec), self.spec.targets_length)[None]
    prior = np.tile(empty, (1, self.spec.network.memory_segments))
    has_memory = self.spec.network.memory_length > 0
    for mel in inputs:
      rows = len(mel)
      padded = np.pad(mel, ((0, self._rows - rows), (0, 0), (0, 0)))
      tokens = decoding.transcribe_segments(
        self._params,
        padded,
        prior if has_memory else None,
        np.arange(self._rows) < rows,
        config=self.spec.network,
        max_length=self._max_length,
      )
      tokens = np.asarray(tokens)[:rows]
      if has_memory:
        prior = np.concatenate([prior[:, self.spec.targets_length :], self._as_prior(tokens)], axis=1)
      yield tokens

  def _as_prior(self, tokens: np.ndarray) -> np.ndarray:
    """Returns a segment's tokens `[rows, length]` as the next one's prior tokens `[rows, targets_length]`."""
    return np.pad(tokens, ((0, 0), (self.spec.targets_length - tokens.shape[1], 0)))


def pad_tokens(tokens: np.ndarray, length: int) -> np.ndarray:
  """Returns tokens `[n]` followed by padding up to `length`."""
  return np.pad(tokens, (0, length - len(tokens)))


def until_eos(tokens: np.ndarray) -> np.ndarray:
  """Returns the tokens `[n]` up to and including the first EOS; all of them if there is none."""
  ends = np.flatnonzero(tokens == EOS_ID)
  return tokens[: ends[0] + 1] if len(ends) else tokens


def __getattr__(name: str):
  if name == 'write_inferences_to_file':  # MT3's; imports seqio
    from mrmt3.inference_files import write_inferences_to_file

    return write_inferences_to_file
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
