"""Pieces for probes: all segments of each piece and their true tokens."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mrmt3 import spectrograms
from mrmt3.config import ModelSpec
from mrmt3.data.piece_targets import piece_targets
from mrmt3.evaluation import references as evaluation_references
from mrmt3.inference import segments
from mrmt3.tokens.shuffling import Shuffle


class ProbePiece(NamedTuple):
  """A piece: its name, notes, log-mel `[segments, frames, mel]`, number of frames, and targets `[segments, length]`."""

  name: str
  notes: np.ndarray
  mel: np.ndarray
  frames: int
  targets: np.ndarray

  def shuffled(self, spec: ModelSpec, shuffle: Shuffle, rng: np.random.Generator) -> np.ndarray:
    """Return the targets with the events of each time step permuted, int32 `[segments, length]`."""
    return piece_targets(self.notes, spec, self.frames, len(self.mel), shuffle, rng)


def load(references: Mapping[str, evaluation_references.Reference], spec: ModelSpec) -> list[ProbePiece]:
  """Read all pieces into memory; UserError if one cannot be read."""
  pieces = []
  for name, reference in references.items():
    samples, notes = np.asarray(reference.audio(spec.spectrogram.sample_rate), np.float32), reference.read()
    mel = segments.log_mels(segments.cut([samples], spec), spec)
    frames = spectrograms.num_frames(len(samples), spec.spectrogram)
    pieces.append(ProbePiece(name, notes, mel, frames, piece_targets(notes, spec, frames, len(mel))))
  return pieces
