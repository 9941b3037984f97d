"""The note table: a numpy record per note, shared by tokens, metrics, MIDI files and plots."""

from collections.abc import Sequence
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
    ('confidence', np.float32),  # probability that the note is right, 0..1; 0 if it is not known
  ]
)
LABEL_DTYPE = np.dtype(NOTE_DTYPE.descr[:6])  # what labels have


class Note(NamedTuple):
  """One row of a note table; times in s."""

  onset: float
  offset: float
  pitch: int
  velocity: int
  program: int
  is_drum: bool
  confidence: float = 0.0


def empty_notes(size: int = 0) -> np.ndarray:
  """Return a zeroed table of `size` notes."""
  return np.zeros(size, NOTE_DTYPE)


def as_notes(rows) -> np.ndarray:
  """Convert rows `[n, 6]` of (onset s, offset s, pitch, velocity, program, is_drum) to a note table.

  A seventh column is the confidence. A table of labels (`LABEL_DTYPE`) is converted as well.
  """
  if isinstance(rows, np.ndarray) and rows.dtype.names:
    return rows if rows.dtype == NOTE_DTYPE else _from_fields(rows)
  rows = np.asarray(rows, np.float64)
  rows = rows.reshape(-1, len(LABEL_DTYPE.names) if rows.ndim < 2 else rows.shape[-1])
  if rows.shape[1] not in (len(LABEL_DTYPE.names), len(NOTE_DTYPE.names)):
    raise ValueError(f'rows of notes have 6 or 7 columns, not {rows.shape[1]}')
  notes = empty_notes(len(rows))
  for column, name in zip(range(rows.shape[1]), NOTE_DTYPE.names, strict=False):
    notes[name] = rows[:, column]
  return notes


def from_tuples(rows: Sequence[tuple]) -> np.ndarray:
  """Convert tuples (onset s, offset s, pitch, velocity, program, is_drum) to a note table, times without rounding."""
  return _from_fields(np.array(rows, LABEL_DTYPE))


def labels_of(notes: np.ndarray) -> np.ndarray:
  """Return a note table without confidences, `LABEL_DTYPE`."""
  labels = np.zeros(len(notes), LABEL_DTYPE)
  for name in LABEL_DTYPE.names:
    labels[name] = notes[name]
  return labels


def _from_fields(labels):
  notes = empty_notes(len(labels))
  for name in labels.dtype.names:
    notes[name] = labels[name]
  return notes


def as_rows(notes: np.ndarray) -> np.ndarray:
  """Convert a note table to float64 rows `[n, 6]`, without confidences; `as_notes` converts them back."""
  return np.stack([notes[name].astype(np.float64) for name in LABEL_DTYPE.names], axis=-1)


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
