"""Target tokens of all segments of a piece, from its notes: the prior tokens of a ground-truth memory."""

import numpy as np

from mrmt3 import vocabularies
from mrmt3.config import ModelSpec
from mrmt3.notes.instruments import map_to_slakh_classes
from mrmt3.notes.note_array import trim_overlapping_notes
from mrmt3.tokens import segment_targets
from mrmt3.tokens.shuffling import Shuffle


def piece_targets(
  notes: np.ndarray,
  spec: ModelSpec,
  frames: int,
  segments: int,
  shuffle: Shuffle | None = None,
  rng: np.random.Generator | None = None,
) -> np.ndarray:
  """Return the targets of consecutive segments, int32 model ids `[segments, targets_length]`, padded with 0.

  Args:
    notes: note array of the piece. Programs are mapped to Slakh classes and overlapping notes trimmed, as in training.
    spec: the model's spec.
    frames: length of the piece in frames.
    segments: number of segments, from the start of the piece.
    shuffle: how to permute events of one time step; None keeps their order.
    rng: random generator for `shuffle`.

  Tokens beyond targets_length are cut.
  """
  codec = vocabularies.build_codec(spec.vocabulary)
  events = segment_targets.encode_piece(trim_overlapping_notes(map_to_slakh_classes(notes)), codec)
  rows = np.zeros((segments, spec.targets_length), np.int32)
  for segment, row in enumerate(rows):
    tokens = segment_targets.segment_targets(
      events,
      segment * spec.step_frames,
      spec.step_frames,
      piece_frames=frames,
      codec=codec,
      frames_per_second=spec.spectrogram.frame_rate,
      ties=spec.ties,
      shuffle=shuffle,
      rng=rng,
    )[: spec.targets_length]
    row[: len(tokens)] = tokens
  return rows
