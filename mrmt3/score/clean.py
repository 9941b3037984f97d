"""Cleaning of transcribed notes: stuttered repeats, implausibly short notes, and notes cut at segment borders."""

import numpy as np

from mrmt3.notes.note_array import sort_notes

STUTTER = 0.06  # s; a note that begins this soon after the last one of its pitch began, or has ended, repeats it
STUTTER_LENGTH = 0.12  # s; notes at least this long are no stutter
SHORTEST = 0.035  # s; shorter pitched notes are dropped
BORDER_GAP = 0.05  # s; a note that ends at a border and begins again within this time was cut there
BORDER_REACH = 0.02  # s around a border


def clean(notes: np.ndarray, borders: np.ndarray | None = None) -> np.ndarray:
  """Return notes without the mistakes that transcriptions typically have; drums lose stuttered strokes only.

  - A held note that was cut at a border between segments is mended, if its second half begins there.
  - Of notes of one pitch and instrument in quick succession, the short ones are merged into the note before.
  - Pitched notes shorter than `SHORTEST` are dropped.

  Args:
    notes: note table.
    borders: times of the borders between segments, s; None if unknown.
  """
  rows = notes[np.lexsort((notes['onset'], notes['pitch'], notes['program'], notes['is_drum']))].copy()
  borders = np.sort(np.asarray([] if borders is None else borders, np.float64))
  kept = np.ones(len(rows), bool)
  last = None
  for index, row in enumerate(rows):
    before = rows[last] if last is not None else None
    same = before is not None and all(before[name] == row[name] for name in ('pitch', 'program', 'is_drum'))
    if same and _continues(before, row, borders):
      rows['offset'][last] = max(rows['offset'][last], row['offset'])
      rows['velocity'][last] = max(rows['velocity'][last], row['velocity'])
      kept[index] = False
    else:
      last = index
  rows = rows[kept]
  rows = rows[rows['is_drum'] | (rows['offset'] - rows['onset'] >= SHORTEST)]
  return sort_notes(rows)


def _continues(before, row, borders):
  """Return whether a note is the rest of the one before it."""
  if row['is_drum']:
    return row['onset'] - before['onset'] < STUTTER / 2
  gap = row['onset'] - before['offset']
  if gap <= BORDER_GAP and len(borders):
    nearest = borders[np.argmin(np.abs(borders - row['onset']))]
    if abs(nearest - row['onset']) <= BORDER_REACH and abs(nearest - before['offset']) <= BORDER_GAP:
      return True
  if row['onset'] - before['onset'] < STUTTER:
    return True
  is_short = min(row['offset'] - row['onset'], before['offset'] - before['onset']) < STUTTER_LENGTH
  return is_short and gap < STUTTER / 2 and row['onset'] - before['onset'] < STUTTER_LENGTH
