"""Quantised notes: onsets and offsets on a grid of note values, with triplets beat by beat where they fit better."""

import dataclasses
import re

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.note_array import NOTE_DTYPE, empty_notes, sort_notes
from mrmt3.score.tempo_map import TempoMap

UNITS = 48  # per quarter; holds 64ths and triplets of 16ths
QUANTIZED_DTYPE = np.dtype(
  [
    ('start', np.int64),  # units from the first downbeat
    ('end', np.int64),  # units, after the start
    ('pitch', np.int32),
    ('velocity', np.int32),
    ('program', np.int32),
    ('is_drum', np.bool_),
  ]
)
NOTE_VALUES = (4, 8, 16, 32)  # denominators that a grid may have
_TRIPLET_COST = 0.25  # of a squared step, that triplets must gain per onset
_SIXTHS = 32  # grids at least this fine have triplets of 16ths too


@dataclasses.dataclass(frozen=True)
class Grid:
  """A grid: its note value as a denominator (16 for 16ths), and whether beats may be divided by three."""

  value: int = 16
  triplets: bool = True

  @classmethod
  def parse(cls, text: str) -> 'Grid':
    """Read '1/16' or '1/16,triplets'; UserError if it is neither."""
    found = re.fullmatch(r'1/(\d+)(,\s*triplets)?', text.strip())
    if not found or int(found[1]) not in NOTE_VALUES:
      raise UserError(f'--quantize {text}: not a grid; give 1/4, 1/8, 1/16 or 1/32, with ,triplets if there are any')
    return cls(int(found[1]), bool(found[2]))

  @property
  def step(self) -> int:
    """Units between its lines."""
    return 4 * UNITS // self.value

  @property
  def triplet_step(self) -> int:
    """Units between its lines in a beat with triplets."""
    return UNITS // 6 if self.value >= _SIXTHS else UNITS // 3


def quantize(notes: np.ndarray, tempo: TempoMap, grid: Grid) -> np.ndarray:
  """Quantise a note table: `QUANTIZED_DTYPE` table, sorted by start.

  All instruments share the grid of a beat. A note is at least one step long; notes of one instrument and pitch that
  would overlap are cut at the next onset, and of several with the same start the longest stays.
  """
  onset, offset = tempo.to_quarters(notes['onset']) * UNITS, tempo.to_quarters(notes['offset']) * UNITS
  thirds = _triplet_beats(onset, grid) if grid.triplets and tempo.beat_quarters == 1.0 else frozenset()
  start = _on_grid(onset, grid, thirds)
  end = _on_grid(offset, grid, thirds)
  shortest = np.where(_is_in(start, thirds), grid.triplet_step, grid.step)
  table = np.zeros(len(notes), QUANTIZED_DTYPE)
  table['start'], table['end'] = start, np.maximum(end, start + shortest)
  for name in ('pitch', 'velocity', 'program', 'is_drum'):
    table[name] = notes[name]
  table['program'][table['is_drum']] = 0
  return without_overlaps(table)


def without_overlaps(table: np.ndarray) -> np.ndarray:
  """Return quantised notes sorted by start, in which no note overlaps another of its instrument and pitch."""
  order = np.lexsort((-table['end'], table['start'], table['pitch'], table['program'], table['is_drum']))
  table = table[order]
  is_first = ~(_continues(table) & (np.diff(table['start'], prepend=-1) == 0))
  table = table[is_first]
  cut = np.flatnonzero(_continues(table))
  table['end'][cut - 1] = np.minimum(table['end'][cut - 1], table['start'][cut])
  return table[np.lexsort((table['pitch'], table['program'], table['is_drum'], table['start']))]


def _continues(table):
  """Return whether each row has the instrument and pitch of the row before, bool `[n]`."""
  same = np.zeros(len(table), bool)
  if len(table):
    same[1:] = np.logical_and.reduce([table[name][1:] == table[name][:-1] for name in ('pitch', 'program', 'is_drum')])
  return same


def as_played(table: np.ndarray, tempo: TempoMap) -> np.ndarray:
  """Return quantised notes as a note table with times in s, by the tempo map."""
  notes = empty_notes(len(table))
  notes['onset'] = np.maximum(tempo.to_seconds(table['start'] / UNITS), 0.0)
  notes['offset'] = np.maximum(tempo.to_seconds(table['end'] / UNITS), notes['onset'] + 1e-3)
  for name in ('pitch', 'velocity', 'program', 'is_drum'):
    notes[name] = table[name]
  return sort_notes(notes.astype(NOTE_DTYPE))


def _triplet_beats(onset, grid):
  """Return the beats (in quarters from the first downbeat) whose onsets lie closer to triplets."""
  binary = _round_to(onset, grid.step)
  ternary = _round_to(onset, grid.triplet_step)
  gain = ((onset - binary) / grid.step) ** 2 - ((onset - ternary) / grid.step) ** 2
  beat = np.floor((np.minimum(binary, ternary) + 1) / UNITS).astype(int)
  off_beat = (ternary % UNITS != 0) | (binary % UNITS != 0)
  found = set()
  for number in np.unique(beat):
    own = (beat == number) & off_beat
    used = np.unique(ternary[own] % UNITS)
    if own.any() and (gain[own] - _TRIPLET_COST * 0.1).sum() > 0 and len(used[used > 0]):
      found.add(int(number))
  return frozenset(found)


def _round_to(values, step):
  return np.rint(values / step).astype(np.int64) * step


def _is_in(units, beats):
  return np.isin(units // UNITS, list(beats)) if beats else np.zeros(len(units), bool)


def _on_grid(units, grid, thirds):
  binary = _round_to(units, grid.step)
  if not thirds:
    return binary
  ternary = _round_to(units, grid.triplet_step)
  inside = np.isin(np.floor(units / UNITS).astype(int), list(thirds))
  return np.where(inside, ternary, binary)
