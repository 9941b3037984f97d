"""A score: parts and bars in quarter notes, before any tempo, instrument or sound is chosen."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mrmt3.errors import UserError

SCORE_NOTE_DTYPE = np.dtype(
  [
    ('start', np.float64),  # quarters
    ('length', np.float64),  # quarters
    ('pitch', np.int32),  # MIDI pitch as it sounds
    ('velocity', np.int32),  # 1..127; 0 where the source says nothing
  ]
)
BAR_DTYPE = np.dtype(
  [
    ('start', np.float64),  # quarters
    ('length', np.float64),  # quarters it really lasts: less than the metre says for a pickup
    ('numerator', np.int32),
    ('denominator', np.int32),
  ]
)
_SAME = 1e-6  # quarters: nearer than this is the same moment


@dataclasses.dataclass(frozen=True)
class Score:
  """Music without sound.

  Attributes:
    name: where it comes from, e.g. 'music21/bach/bwv227.1'.
    parts: one `SCORE_NOTE_DTYPE` table a part, sorted by start.
    bars: `BAR_DTYPE` table that covers the score without gaps.
    programs: the MIDI program written for each part; empty where the source names none.
    drums: `SCORE_NOTE_DTYPE` table of the drums that were written, or None.
    tempo: written quarters a minute, or None.
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
    """Notes of all parts."""
    return sum(len(part) for part in self.parts)

  def with_parts(self, indices: Sequence[int]) -> 'Score':
    """Returns the score with only the parts of these indices, in their order."""
    programs = tuple(self.programs[index] for index in indices) if self.programs else ()
    return dataclasses.replace(self, parts=tuple(self.parts[index] for index in indices), programs=programs)

  def transposed(self, semitones: int) -> 'Score':
    """Returns the score in another key; drums stay."""
    parts = tuple(part.copy() for part in self.parts)
    for part in parts:
      part['pitch'] += semitones
    return dataclasses.replace(self, parts=parts)


def bar_phases(bars: np.ndarray) -> np.ndarray:
  """Returns how far into its metre each bar begins, quarters `[bars]`: 0 except for pickups and split bars.

  A short first bar is a pickup, so it is the end of a whole one; a short bar after a short one goes on where that
  ended (bars are split like this at repeat signs).
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
  """Returns bars `first` to `end` - 1 as a score that starts at 0; notes that sound past the end are cut there.

  Notes that began before the first bar are left out.
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
  """Returns the whole score played `times` times in a row."""
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
  """Returns a part sorted by start, with no empty note and no two notes of one pitch at the same time.

  Of notes with the same start and pitch (two voices in unison) the longest stays; a note that runs into the next one
  of its pitch ends there.
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
  """Returns the score without empty parts and parts that play another one's notes.

  A part is left out when at least the share `shared` of its notes (start and pitch) is in a part before it. UserError
  when nothing is left.
  """
  kept, heard = [], []
  for index, part in enumerate(score.parts):
    notes = set(zip(np.round(part['start'], 3).tolist(), part['pitch'].tolist(), strict=True))
    if notes and not any(len(notes & other) >= shared * len(notes) for other in heard):
      kept.append(index)
      heard.append(notes)
  if not kept:
    raise UserError(f'the score {score.name} has no notes; choose another one')
  return score.with_parts(kept)
