"""The note table: a numpy record per note, shared by tokens, metrics, MIDI files and plots."""

from typing import NamedTuple

import numpy as np

NOTE_DTYPE = np.dtype(
  [
    ('onset', np.float64),  # s
    ('offset', np.float64),  # s
    ('pitch', np.int32),  # MIDI pitch; for drums, General MIDI's drum pitch
    ('velocity', np.int32),  # 1..127
    ('program', np.int32),  # MIDI program 0..127; 0 for drums
    ('is_drum', np.bool_),
  ]
)


class Note(NamedTuple):
  """One row of a note table; times in s."""

  onset: float
  offset: float
  pitch: int
  velocity: int
  program: int
  is_drum: bool


def empty_notes(size: int = 0) -> np.ndarray:
  """Return a zeroed table of `size` notes."""
  return np.zeros(size, NOTE_DTYPE)


def as_notes(rows) -> np.ndarray:
  """Convert rows `[n, 6]` of (onset s, offset s, pitch, velocity, program, is_drum) to a note table."""
  if isinstance(rows, np.ndarray) and rows.dtype == NOTE_DTYPE:
    return rows
  rows = np.asarray(rows, np.float64).reshape(-1, len(NOTE_DTYPE.names))
  notes = empty_notes(len(rows))
  for column, name in enumerate(NOTE_DTYPE.names):
    notes[name] = rows[:, column]
  return notes


def as_rows(notes: np.ndarray) -> np.ndarray:
  """Convert a note table to float64 rows `[n, 6]`; the inverse of `as_notes`."""
  return np.stack([notes[name].astype(np.float64) for name in NOTE_DTYPE.names], axis=-1)


def sort_order(notes: np.ndarray) -> np.ndarray:
  """Return the indices that sort notes as `sort_notes` does, int64 `[n]`."""
  return np.lexsort((notes['offset'], notes['pitch'], notes['program'], notes['is_drum'], notes['onset']))


def sort_notes(notes: np.ndarray) -> np.ndarray:
  """Sort notes by onset, then drums last, program, pitch and offset."""
  return notes[sort_order(notes)]


def trim_overlapping_notes(notes: np.ndarray) -> np.ndarray:
  """Return the notes, each cut at the next onset of its pitch, program and is_drum, in the order given.

  Notes left with no length are dropped; of several with the same onset the last one stays (as in MT3).
  """
  offset, kept = trimmed_offsets(notes)
  trimmed = notes.copy()
  trimmed['offset'] = offset
  return trimmed[kept]


def trimmed_offsets(notes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return where `trim_overlapping_notes` ends each note `[n]` (s), and whether it keeps a length, bool `[n]`."""
  order = np.lexsort((notes['onset'], notes['pitch'], notes['program'], notes['is_drum']))
  ordered = notes[order]
  same = np.ones(max(len(notes) - 1, 0), bool)
  for field in ('pitch', 'program', 'is_drum'):
    same &= ordered[field][1:] == ordered[field][:-1]
  offset = ordered['offset'].copy()
  offset[:-1] = np.where(same, np.minimum(offset[:-1], ordered['onset'][1:]), offset[:-1])
  trimmed = np.empty_like(offset)
  trimmed[order] = offset
  return trimmed, trimmed > notes['onset']
