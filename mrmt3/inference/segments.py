"""The segments of a piece as a model takes them: cut with context, at the level of its training data, as log-mels."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from mrmt3 import spectrograms
from mrmt3.audio.level import LevelMeter
from mrmt3.config import ModelSpec


class Segment(NamedTuple):
  """A segment's audio.

  Attributes:
    samples: float32 `[segment_frames * hop]`, with its context.
    count: number of samples before padding, those of the context before it among them.
    is_last: whether it is the piece's last one.
  """

  samples: np.ndarray
  count: int
  is_last: bool


def cut(blocks: Iterable[np.ndarray], spec: ModelSpec, meter: LevelMeter | None = None) -> Iterator[Segment]:
  """Yield the segments of a piece, with the gain that the model's decoding options ask for.

  Args:
    blocks: the piece's samples at the model's sample rate, in blocks of any length, float32 `[n]`.
    spec: of the model.
    meter: measures the level; None: a new one.
  """
  config, context = spec.spectrogram, spec.decoding.context_frames
  meter = LevelMeter(config.sample_rate) if meter is None else meter
  known = context * config.hop_width  # samples that are silence, or that the segment before had as well
  for samples, count, is_last in spectrograms.cut_segments(blocks, config, spec.segment_frames, context):
    meter.add(samples[known:count])
    known = 2 * context * config.hop_width
    if spec.decoding.normalize_level:
      samples = samples * np.float32(meter.gain)
    yield Segment(samples, count, is_last)


def log_mels(segments: Iterable[Segment], spec: ModelSpec) -> np.ndarray:
  """Return the log-mels of segments, float32 `[segments, segment_frames, mel]`; frames after the audio are 0."""
  segments, config = list(segments), spec.spectrogram
  samples = np.stack([segment.samples for segment in segments])
  frames = [spectrograms.num_frames(segment.count, config) for segment in segments]
  valid = np.minimum(np.array(frames, np.int32), spec.segment_frames)
  return spectrograms.clear_invalid_frames(spectrograms.compute_spectrogram(samples, config), valid)
