"""Per-note expression: vibrato, scoops and bends that a part carries beside its notes.

A performance is a `PERFORMANCE_DTYPE` table with one row for each note of a note table. Zeros mean a steady pitch. The
sustain pedal is not part of it: it already lengthened the notes.
"""

import numpy as np

PERFORMANCE_DTYPE = np.dtype(
  [
    ('vibrato_rate', np.float32),  # Hz
    ('vibrato_depth', np.float32),  # semitones from the mean to the peak
    ('vibrato_delay', np.float32),  # s from the onset until the vibrato begins to grow
    ('scoop', np.float32),  # semitones: the offset at the onset, which glides to the note's pitch
    ('scoop_time', np.float32),  # s, duration of that glide
    ('bend', np.float32),  # semitones: the offset reached at the note's end
  ]
)
_VIBRATO_GROWTH = 0.2  # s from the first to the full vibrato
_BEND_START = 0.5  # fraction of the note after which the bend begins


def plain_performance(count: int) -> np.ndarray:
  """Return the `PERFORMANCE_DTYPE` table of `count` notes without expression."""
  return np.zeros(count, PERFORMANCE_DTYPE)


def has_expression(row: np.void) -> bool:
  """Whether a row of a performance changes the pitch of its note."""
  vibrato = row['vibrato_depth'] != 0 and row['vibrato_rate'] > 0
  scoop = row['scoop'] != 0 and row['scoop_time'] > 0
  return bool(vibrato or scoop or row['bend'] != 0)


def pitch_offsets(row: np.void, times: np.ndarray, seconds: float) -> np.ndarray:
  """Return the deviation from the note's pitch in semitones, float64 `[n]`.

  Args:
    row: one row of a performance.
    times: s from the onset `[n]`; after the end of the note, bend and vibrato go on as they were.
    seconds: duration of the note.
  """
  offsets = np.zeros(len(times))
  if row['vibrato_depth'] != 0 and row['vibrato_rate'] > 0:
    since = times - row['vibrato_delay']
    growth = np.clip(since / _VIBRATO_GROWTH, 0, 1)
    offsets += row['vibrato_depth'] * growth * np.sin(2 * np.pi * row['vibrato_rate'] * np.maximum(since, 0))
  if row['scoop'] != 0 and row['scoop_time'] > 0:
    offsets += row['scoop'] * 0.5 * (1 + np.cos(np.pi * np.clip(times / row['scoop_time'], 0, 1)))
  if row['bend'] != 0:
    begin = _BEND_START * seconds
    offsets += row['bend'] * 0.5 * (1 - np.cos(np.pi * np.clip((times - begin) / max(seconds - begin, 1e-3), 0, 1)))
  return offsets
