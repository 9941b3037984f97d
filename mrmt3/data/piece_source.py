"""Pieces of music with their notes, wherever they come from: what every data source gives and the piece store keeps.

A source lists the pieces of a split and reads one at a time. Sources are small frozen dataclasses (they travel to worker
processes by pickle) and import TensorFlow only where their files need it.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np


@dataclasses.dataclass(frozen=True)
class PieceContent:
  """A piece, read.

  Attributes:
    samples: float32 `[n]`, mono, at the rate that was asked for; full scale is -1..1.
    notes: note array, as the source has it (neither trimmed nor checked).
    stems: float32 `[stems, n]`, whose sum is `samples`, where the source has them and was asked for them.
    note_stem: int32 `[notes]`, the stem each note is played by; None without stems.
    lost_notes: notes of the source's MIDI that are not in `notes`: never released, or with no length.
    unlabelled_stems: names of the stems that are heard in `samples` and have no notes in the source.
  """

  samples: np.ndarray
  notes: np.ndarray
  stems: np.ndarray | None = None
  note_stem: np.ndarray | None = None
  lost_notes: int = 0
  unlabelled_stems: tuple[str, ...] = ()


@runtime_checkable
class PieceSource(Protocol):
  """Where pieces come from."""

  def splits(self) -> tuple[str, ...]:
    """Returns the names of the splits that are there, e.g. ('train', 'validation', 'test')."""

  def list_pieces(self, split: str) -> list[str]:
    """Returns the names of the pieces of a split, in a fixed order, each once; UserError if there are none."""

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Reads one piece; UserError, in one line that names the file, for one that cannot be used."""

  # Sources whose notes are files of their own have `read_notes(split, name)` as well, which returns read_piece's notes without reading
  # audio; those of Slakh tracks `read_published_notes(split, name)`, see `slakh.read_published_notes`.

  def fingerprint(self, split: str) -> str:
    """Returns a text that changes when the pieces of a split change (names, sizes, times), without reading them."""
