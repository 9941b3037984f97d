"""The interface of data sources: pieces of music with their notes, which `piece_cache` stores.

A source lists the pieces of a split and reads one at a time. Sources are small frozen dataclasses, because worker
processes receive them by pickle. They import TensorFlow only if their files need it.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np


@dataclasses.dataclass(frozen=True)
class PieceContent:
  """The audio and notes of a piece.

  Attributes:
    samples: float32 `[n]`, mono, at the requested rate; full scale is -1..1.
    notes: note array of the source, neither trimmed nor validated.
    stems: float32 `[stems, n]`, whose sum is `samples`; None if they were not requested or the source has none.
    note_stem: int32 `[notes]`, the stem of each note; None without stems.
    lost_notes: number of notes in the source's MIDI that are not in `notes`: without note-off or without length.
    unlabelled_stems: names of stems that are audible in `samples` and have no notes in the source.
  """

  samples: np.ndarray
  notes: np.ndarray
  stems: np.ndarray | None = None
  note_stem: np.ndarray | None = None
  lost_notes: int = 0
  unlabelled_stems: tuple[str, ...] = ()


@runtime_checkable
class PieceSource(Protocol):
  """A data source: a set of pieces in splits."""

  def splits(self) -> tuple[str, ...]:
    """Return the names of the existing splits, e.g. ('train', 'validation', 'test')."""

  def list_pieces(self, split: str) -> list[str]:
    """Return the unique names of a split's pieces, in a fixed order; UserError if there are none."""

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Read one piece; if it is unusable, a UserError of one line names the file."""

  # Sources with notes in separate files also have `read_notes(split, name)`, which returns read_piece's notes without
  # reading audio. Sources of Slakh tracks have `read_published_notes(split, name)`, see
  # `slakh_layout.read_published_notes`.

  def fingerprint(self, split: str) -> str:
    """Return a text that changes when the pieces of a split change (names, sizes, times), without reading them."""
