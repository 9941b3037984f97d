"""Scores: parts and bars in quarter notes, before tempo, instruments and sound are chosen."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mrmt3.errors import UserError

SCORE_NOTE_DTYPE = np.dtype(
  [
    ('start', np.float64),  # quarters
    ('length', np.float64),  # quarters
    ('pitch', np.int32),  # MIDI pitch as it sounds
    ('velocity', np.int32),  # 1..127; 0 if the source has none
  ]
)
BAR_DTYPE = np.dtype(
  [
    ('start', np.float64),  # quarters
    ('length', np.float64),  # quarters; shorter than the metre for a pickup
    ('numerator', np.int32),
    ('denominator', np.int32),
  ]
)
_SAME = 1e-6  # quarters; closer positions count as equal


@dataclasses.dataclass(frozen=True)
class Score:
  """Symbolic music.

  Attributes:
    name: its origin, e.g. 'music21/bach/bwv227.1'.
    parts: one `SCORE_NOTE_DTYPE` table per part, sorted by start.
    bars: `BAR_DTYPE` table that covers the score without gaps.
    programs: the MIDI program written for each part; empty if the source names none.
    drums: `SCORE_NOTE_DTYPE` table of the written drum part, or None.
    tempo: written quarters per minute, or None.
  """

  name: str
  parts: tuple[np.ndarray, ...]
  bars: np.ndarray
  programs: tuple[int, ...] = ()
  drums: np.ndarray | None = None
  tempo: float | None = None

  @property
  def length(self) -> float:
    """Quarters from the first bar's start to the last one's end."""
    return float(self.bars['start'][-1] + self.bars['length'][-1] - self.bars['start'][0])

  @property
  def num_notes(self) -> int:
    """Number of notes in all parts."""
    return sum(len(part) for part in self.parts)

  def with_parts(self, indices: Sequence[int]) -> 'Score':
    """Return the score with the parts of these indices, in this order."""
    programs = tuple(self.programs[index] for index in indices) if self.programs else ()
    return dataclasses.replace(self, parts=tuple(self.parts[index] for index in indices), programs=programs)

  def transposed(self, semitones: int) -> 'Score':
    """Return the score in another key; drums are unchanged."""
    parts = tuple(part.copy() for part in self.parts)
    for part in parts:
      part['pitch'] += semitones
    return dataclasses.replace(self, parts=parts)


def bar_phases(bars: np.ndarray) -> np.ndarray:
  """Return the position in its metre at which each bar begins, quarters `[bars]`: 0 except for pickups and split bars.

  A short first bar is a pickup, the end of a whole bar. A short bar after a short one continues it (bars are split at
  repeat signs).
  """
  whole = 4.0 * bars['numerator'] / bars['denominator']
  missing = whole - bars['length']
  phases = np.zeros(len(bars))
  reached = whole[0] if len(bars) and missing[0] <= _SAME else 0.0
  for index in range(len(bars)):
    if missing[index] > _SAME:
      if index == 0:
        phases[index] = missing[index]
      elif reached > _SAME and reached + bars['length'][index] <= whole[index] + _SAME:
        phases[index] = reached
    reached = phases[index] + bars['length'][index]
    if reached >= whole[index] - _SAME:
      reached = 0.0
  return phases


def excerpt(score: Score, first: int, end: int) -> Score:
  """Return bars `first` to `end` - 1 as a score that starts at 0.

  Notes that began before the first bar are dropped; notes that last beyond the end are cut.
  """
  bars = score.bars[first:end].copy()
  if not len(bars):
    raise ValueError(f'an excerpt needs at least one bar, got bars {first} to {end} of {len(score.bars)}')
  begin, stop = bars['start'][0], bars['start'][-1] + bars['length'][-1]
  bars['start'] -= begin

  def cut(part):
    part = part[(part['start'] >= begin - _SAME) & (part['start'] < stop - _SAME)].copy()
    part['length'] = np.minimum(part['length'], stop - part['start'])
    part['start'] -= begin
    return part

  drums = None if score.drums is None else cut(score.drums)
  return dataclasses.replace(score, parts=tuple(cut(part) for part in score.parts), bars=bars, drums=drums)


def repeat(score: Score, times: int) -> Score:
  """Return the whole score repeated `times` times."""
  return dataclasses.replace(
    score,
    parts=tuple(_shifted_copies(part, score.length, times) for part in score.parts),
    bars=_shifted_copies(score.bars, score.length, times),
    drums=None if score.drums is None else _shifted_copies(score.drums, score.length, times),
  )


def _shifted_copies(table, length, times):
  copies = np.tile(table, times)
  copies['start'] += np.repeat(np.arange(times) * length, len(table))
  return copies


def tidy_part(part: np.ndarray) -> np.ndarray:
  """Return a part sorted by start, without empty notes and overlapping notes of one pitch.

  Of notes with the same start and pitch (two voices in unison) the longest stays. A note that overlaps the next one of
  its pitch is cut there.
  """
  part = part[part['length'] > _SAME]
  part = part[np.lexsort((-part['length'], np.round(part['start'] / _SAME), part['pitch']))].copy()
  if not len(part):
    return part
  same_pitch = part['pitch'][1:] == part['pitch'][:-1]
  part = part[np.r_[True, ~(same_pitch & (np.diff(part['start']) < _SAME))]]
  same_pitch = part['pitch'][1:] == part['pitch'][:-1]
  room = np.where(same_pitch, np.diff(part['start']), np.inf)
  part['length'][:-1] = np.minimum(part['length'][:-1], room)
  return part[np.lexsort((part['pitch'], part['start']))]


def drop_doubles(score: Score, shared: float = 0.9) -> Score:
  """Drop empty parts and parts that double another one.

  A part is a double if at least the fraction `shared` of its notes (start and pitch) occurs in an earlier part.
  Raises UserError if no part is left.
  """
  kept, seen = [], []
  for index, part in enumerate(score.parts):
    notes = set(zip(np.round(part['start'], 3).tolist(), part['pitch'].tolist(), strict=True))
    if notes and not any(len(notes & other) >= shared * len(notes) for other in seen):
      kept.append(index)
      seen.append(notes)
  if not kept:
    raise UserError(f'the score {score.name} has no notes; choose another one')
  return score.with_parts(kept)
