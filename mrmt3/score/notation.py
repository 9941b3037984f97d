"""A sheet: parts, staves and voices with written note values, before they are written to a file."""

import dataclasses

import numpy as np

from mrmt3.notes import instruments
from mrmt3.score.analysis import Analysis
from mrmt3.score.key import Key
from mrmt3.score.quantize import UNITS, Grid, quantize
from mrmt3.score.tempo_map import Bar, TempoMap
from mrmt3.score.voices import Chord, split_staves, split_voices

# Programs in the order of a score, family by family; drums come last.
SCORE_ORDER = (
  *(range(72, 80), range(64, 72), range(56, 64), (47,), range(8, 16), (46,), range(24, 32), range(0, 8)),
  *(range(16, 24), (52, 53, 54, 55), range(40, 46), range(48, 52), range(80, 128), range(32, 40)),
)
KEYBOARDS = frozenset([*range(0, 9), *range(16, 21), 46, 88, 89, 90])  # two staves; a harp as well
_ONE_STAFF = 24  # semitones
_PICKUP_STEP = 0.5  # quarters; a pick-up is a number of eighths


@dataclasses.dataclass(frozen=True)
class Part:
  """An instrument's music.

  Attributes:
    name: of the instrument.
    program: MIDI program.
    is_drum: whether it is a drum kit.
    table: its quantised notes, with the ends that are written.
    staves: for each staff, the upper first, its voices; chords refer to rows of `table`.
  """

  name: str
  program: int
  is_drum: bool
  table: np.ndarray
  staves: list[list[list[Chord]]]


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A piece as it is written.

  Attributes:
    parts: in the order of a score.
    bars: from the one in which the first note begins to the last; positions in quarters from the first downbeat.
    has_pickup: whether the first bar is a pick-up.
    key: of the signature; None for none.
    tempo: the tempo map.
    title: of the piece.
  """

  parts: list[Part]
  bars: list[Bar]
  has_pickup: bool
  key: Key | None
  tempo: TempoMap
  title: str = ''

  def notes(self) -> np.ndarray:
    """Return all notes as they are written, a `QUANTIZED_DTYPE` table."""
    return np.concatenate([part.table for part in self.parts])


def make_sheet(notes: np.ndarray, analysis: Analysis, grid: Grid, title: str = '') -> Sheet:
  """Lay out a note table (s) as a sheet; ValueError without a tempo map or notes."""
  if analysis.tempo is None or not len(notes):
    raise ValueError('a sheet needs notes and a tempo map')
  table = quantize(notes, analysis.tempo, grid)
  parts = [_part(own, program, is_drum, grid) for own, program, is_drum in _by_instrument(table)]
  begin = min(int(part.table['start'].min()) for part in parts) / UNITS
  end = max(int(part.table['end'].max()) for part in parts) / UNITS
  bars, has_pickup = _bars(analysis.tempo, begin, end)
  return Sheet(parts, bars, has_pickup, analysis.key, analysis.tempo, title)


def _by_instrument(table):
  places = {program: place for place, family in enumerate(SCORE_ORDER) for program in family}
  found = []
  for program, is_drum in instruments.instruments_of(table):
    found.append((instruments.notes_of(table, program, is_drum), program, is_drum))
  return sorted(found, key=lambda one: (one[2], places.get(one[1], len(places)), one[1]))


def _bars(tempo, begin, end):
  """Return (bars from the one of the first note on, whether the first one is a pick-up)."""
  first = float(np.floor(begin / _PICKUP_STEP + 1e-6) * _PICKUP_STEP)
  whole = tempo.bar_quarters
  covering = tempo.bars(float(tempo.downbeats[0] - whole * np.ceil((tempo.downbeats[0] - first) / whole)), end)
  while len(covering) > 1 and covering[0].start + covering[0].length <= first + 1e-6:
    covering.pop(0)
  bar = covering[0]
  missing = first - bar.start
  # An upbeat of up to half a bar is a pick-up; more is a whole bar that begins with rests.
  if len(covering) > 1 and missing >= bar.length / 2 - 1e-6:
    covering[0] = dataclasses.replace(bar, start=first, length=bar.length - missing)
    return covering, True
  return covering, False


def _part(table, program, is_drum, grid):
  table = table.copy()
  if is_drum:
    voices = [_drum_voice(table, grid)]
    staves = [voices]
  elif program in KEYBOARDS and _needs_two_staves(table):
    staff = split_staves(table)
    staves = []
    for number in range(2):
      rows = np.flatnonzero(staff == number)
      voices = split_voices(table[rows])
      for chord in (chord for voice in voices for chord in voice):
        chord.rows = rows[chord.rows].tolist()
      staves.append(voices)
  else:
    staves = [split_voices(table)]
  for chord in (chord for voices in staves for voice in voices for chord in voice):
    table['end'][chord.rows] = chord.end
  return Part(instruments.instrument_name(program, is_drum), program, is_drum, table, staves)


def _needs_two_staves(table):
  """Return whether a keyboard part has chords or a range that one staff does not hold."""
  low, high = np.percentile(table['pitch'], (5, 95))
  return high - low > _ONE_STAFF or (len(np.unique(table['start'])) < 0.8 * len(table) and low < 57 < 62 < high)


def _drum_voice(table, grid):
  """Return one voice of strokes that last until the next one, or the end of the beat."""
  starts = np.unique(table['start'])
  voice = []
  for start, following in zip(starts.tolist(), [*starts[1:].tolist(), np.iinfo(np.int64).max], strict=True):
    rows = np.flatnonzero(table['start'] == start).tolist()
    end = min(following, (start // UNITS + 1) * UNITS)
    voice.append(Chord(start, max(end, start + 1), rows, table['pitch'][rows].tolist()))
  return voice
