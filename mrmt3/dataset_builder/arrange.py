"""Gives each part of a score an instrument of another Slakh class that can play it, and turns quarters into seconds."""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from mrmt3.dataset_builder.score import Score, bar_phases
from mrmt3.instruments import slakh_class_program
from mrmt3.notes import empty_notes

MAX_PITCHED_STEMS = 8


@dataclasses.dataclass(frozen=True)
class Instrument:
  """A General MIDI program with what it can play: pitches `low` to `high`, and chords or one note at a time."""

  program: int
  low: int
  high: int
  chords: bool = False


INSTRUMENTS = (
    Instrument(0, 28, 96, True),  # piano
    Instrument(4, 36, 88, True),  # electric piano
    Instrument(6, 36, 84, True),  # harpsichord
    Instrument(11, 53, 89, True),  # vibraphone
    Instrument(12, 45, 84, True),  # marimba
    Instrument(16, 36, 84, True),  # drawbar organ
    Instrument(19, 36, 84, True),  # church organ
    Instrument(24, 40, 79, True),  # nylon guitar
    Instrument(25, 40, 79, True),  # steel guitar
    Instrument(27, 40, 81, True),  # clean guitar
    Instrument(29, 40, 76),  # overdriven guitar
    Instrument(32, 28, 60),  # acoustic bass
    Instrument(33, 28, 60),  # electric bass
    Instrument(40, 55, 93),  # violin
    Instrument(41, 48, 84),  # viola
    Instrument(42, 36, 72),  # cello
    Instrument(43, 28, 55),  # contrabass
    Instrument(46, 28, 91, True),  # harp
    Instrument(48, 36, 88, True),  # string ensemble
    Instrument(50, 36, 88, True),  # synth strings
    Instrument(52, 43, 79, True),  # choir
    Instrument(56, 54, 82),  # trumpet
    Instrument(57, 40, 70),  # trombone
    Instrument(58, 28, 58),  # tuba
    Instrument(60, 41, 74),  # French horn
    Instrument(61, 40, 79, True),  # brass section
    Instrument(65, 49, 80),  # alto sax
    Instrument(66, 44, 75),  # tenor sax
    Instrument(67, 36, 68),  # baritone sax
    Instrument(68, 58, 88),  # oboe
    Instrument(69, 52, 79),  # English horn
    Instrument(70, 34, 70),  # bassoon
    Instrument(71, 50, 89),  # clarinet
    Instrument(73, 60, 96),  # flute
    Instrument(80, 48, 84),  # square lead
    Instrument(88, 36, 84, True),  # pad
)
BASSES = (32, 33, 43, 58)  # programs for the lowest part
_SHIFTS = (0, -12, 12, -24, 24)  # whole octaves a part may move, best first


@dataclasses.dataclass(frozen=True)
class ArrangedPart:
  """A part (`SCORE_NOTE_DTYPE` table, already in its instrument's range) and the program that plays it."""

  program: int
  notes: np.ndarray


def arrange(
    score: Score,
    rng: np.random.Generator,
    *,
    palette: Collection[int] | None = None,
    exclude: Collection[int] = (),
) -> list[ArrangedPart]:
  """Returns the parts of a score, highest first, with instruments of distinct Slakh classes.

  The lowest part goes to one of `BASSES` if any is there to play it. A part may move by whole octaves to fit an
  instrument, but only where none plays it as written. Parts that no instrument left over can play are left out, as are
  all but the `MAX_PITCHED_STEMS` with most notes.

  Args:
    score: what to play.
    rng: chooses among the instruments that fit.
    palette: programs to choose from; None for all of `INSTRUMENTS`.
    exclude: programs not to use.
  """
  busiest = sorted(range(len(score.parts)), key=lambda index: -len(score.parts[index]))[:MAX_PITCHED_STEMS]
  parts = [score.parts[index] for index in sorted(busiest, key=lambda index: -score.parts[index]['pitch'].mean())]
  instruments = [
      instrument
      for instrument in INSTRUMENTS
      if instrument.program not in exclude and (palette is None or instrument.program in palette)
  ]
  choices = [_fitting(part, instruments) for part in parts]
  choices[-1] = [choice for choice in choices[-1] if choice[0] in BASSES] or choices[-1]
  taken, chosen = set(), {}
  # Parts with least choice first, or the flute part would take the only bass.
  for index in sorted(range(len(parts)), key=lambda index: len(choices[index])):
    free = [(program, shift) for program, shift in choices[index] if slakh_class_program(program) not in taken]
    if not free:
      continue
    least = min(_SHIFTS.index(shift) for _, shift in free)
    free = [choice for choice in free if _SHIFTS.index(choice[1]) == least]
    program, shift = free[rng.integers(len(free))]
    taken.add(slakh_class_program(program))
    notes = parts[index].copy()
    notes['pitch'] += shift
    chosen[index] = ArrangedPart(program, notes)
  return [chosen[index] for index in sorted(chosen)]


def _fitting(part: np.ndarray, instruments: Sequence[Instrument]) -> list[tuple[int, int]]:
  """Returns (program, shift) of each instrument that can play a part, with the best shift in semitones."""
  low, high = part['pitch'].min(), part['pitch'].max()
  needs_chords = _has_chords(part)
  fitting = []
  for instrument in instruments:
    if needs_chords and not instrument.chords:
      continue
    shifts = [shift for shift in _SHIFTS if instrument.low <= low + shift and high + shift <= instrument.high]
    if shifts:
      fitting.append((instrument.program, shifts[0]))
  return fitting


def _has_chords(part):
  end = part['start'] + part['length']
  return bool(np.any(part['start'][1:] < np.maximum.accumulate(end)[:-1] - 0.01))


def accents(score: Score, starts: np.ndarray) -> np.ndarray:
  """Returns how strongly the metre stresses moments `[n]` of a score: 1 on bar lines, 0.4 on beats, else 0."""
  bars = score.bars
  index = np.clip(np.searchsorted(bars['start'], starts + 1e-6, side='right') - 1, 0, len(bars) - 1)
  position = starts - bars['start'][index] + bar_phases(bars)[index]
  beat = 4.0 / bars['denominator'][index]
  on_beat = np.abs(position / beat - np.round(position / beat)) < 1e-3
  return np.where(np.abs(position) < 1e-3, 1.0, np.where(on_beat, 0.4, 0.0))


def perform(part: ArrangedPart, score: Score, quarters_per_minute: float, rng: np.random.Generator) -> np.ndarray:
  """Returns a note table (s) of a part played at a tempo: detached a little, stressed as the metre says.

  Each note ends up to 50 ms before its written end, so that repeated notes are heard as two.
  """
  seconds = 60.0 / quarters_per_minute
  written = part.notes
  notes = empty_notes(len(written))
  notes['onset'] = written['start'] * seconds
  length = written['length'] * seconds
  notes['offset'] = notes['onset'] + np.maximum(length - 0.05, 0.8 * length)
  notes['pitch'] = written['pitch']
  stress = 12 * accents(score, written['start'])
  notes['velocity'] = np.clip(np.rint(78 + stress + rng.normal(0, 4, len(written))), 1, 127)
  notes['program'] = part.program
  return notes
