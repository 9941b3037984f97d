"""Arrangement: assigns instruments of distinct Slakh classes to a score's parts, and performs them in seconds."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mrmt3.dataset_builder.score import Score, bar_phases
from mrmt3.notes.instruments import slakh_class_program
from mrmt3.notes.note_array import empty_notes

MAX_PITCHED_STEMS = 8


@dataclasses.dataclass(frozen=True)
class Instrument:
  """A General MIDI program with its range (pitches `low` to `high`), and whether it can play chords."""

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
# More programs, and classes that only large data sets have. A separate tuple, because adding them to INSTRUMENTS would
# change the random choices of recipes that use it.
MORE_INSTRUMENTS = (
  Instrument(1, 28, 96, True),  # bright piano
  Instrument(5, 36, 88, True),  # FM electric piano
  Instrument(9, 67, 96),  # glockenspiel
  Instrument(13, 65, 96),  # xylophone
  Instrument(17, 36, 84, True),  # percussive organ
  Instrument(18, 36, 84, True),  # rock organ
  Instrument(20, 36, 84, True),  # reed organ
  Instrument(26, 40, 79, True),  # jazz guitar
  Instrument(30, 40, 76),  # distortion guitar
  Instrument(34, 28, 60),  # picked bass
  Instrument(35, 28, 60),  # fretless bass
  Instrument(38, 28, 60),  # synth bass
  Instrument(47, 36, 57),  # timpani
  Instrument(49, 36, 88, True),  # slow strings
  Instrument(51, 36, 88, True),  # synth strings 2
  Instrument(54, 43, 79, True),  # synth voice
  Instrument(55, 48, 72),  # orchestral hit
  Instrument(62, 40, 79, True),  # synth brass
  Instrument(64, 54, 86),  # soprano sax
  Instrument(74, 62, 91),  # recorder
  Instrument(75, 60, 91),  # pan flute
  Instrument(79, 60, 89),  # ocarina
  Instrument(81, 48, 84),  # saw lead
  Instrument(89, 36, 84, True),  # warm pad
  Instrument(90, 36, 84, True),  # polysynth
)
ALL_INSTRUMENTS = INSTRUMENTS + MORE_INSTRUMENTS
BASSES = (32, 33, 43, 58)  # programs for the lowest part
_SHIFTS = (0, -12, 12, -24, 24)  # octave transpositions of a part, best first
_STEERED_SHIFTS = 3  # with class weights, the first 3 shifts are equally good
_BASS_SHARE = 0.6  # with class weights, the probability that the lowest part gets a bass


@dataclasses.dataclass(frozen=True)
class ArrangedPart:
  """A part (`SCORE_NOTE_DTYPE` table in its instrument's range), the program that plays it, and its index."""

  program: int
  notes: np.ndarray
  index: int = 0


@dataclasses.dataclass(frozen=True)
class Style:
  """How a part is played.

  Attributes:
    level: velocity off the beat.
    spread: standard deviation of the velocity.
    accent: velocity added on bar lines.
    dynamics: weight 0..1 of the velocities written in the score.
    gap: s by which a note ends before its written end, so that repeated notes are separated.
    keep: minimum fraction of its length that a note keeps.
    jitter: standard deviation of the onsets, s.
    gain_db: level relative to other stems, dB.
  """

  level: float = 78.0
  spread: float = 4.0
  accent: float = 12.0
  dynamics: float = 0.0
  gap: float = 0.05
  keep: float = 0.8
  jitter: float = 0.0
  gain_db: float = 0.0


PLAIN = Style()
_MIN_DURATION = 0.03  # s


def draw_style(rng: np.random.Generator) -> Style:
  """Draw a random style: loudness, accents, articulation, timing and gain."""
  gap, keep = ((0.01, 0.95), (0.05, 0.8), (60.0, rng.uniform(0.45, 0.75)))[rng.choice(3, p=(0.35, 0.4, 0.25))]
  return Style(
    level=rng.uniform(60, 98),
    spread=rng.uniform(2, 8),
    accent=rng.uniform(4, 16),
    dynamics=rng.uniform(0.4, 1.0),
    gap=gap,
    keep=keep,
    jitter=rng.uniform(0.0, 0.01),
    gain_db=rng.uniform(-9, 3),
  )


def arrange(
  score: Score,
  rng: np.random.Generator,
  *,
  palette: Collection[int] | None = None,
  exclude: Collection[int] = (),
  instruments: Sequence[Instrument] = INSTRUMENTS,
  weights: Mapping[int, float] | None = None,
  keep_written: bool = False,
) -> list[ArrangedPart]:
  """Assign instruments of distinct Slakh classes to the parts of a score.

  The lowest part gets one of `BASSES` if one fits. A part is transposed by octaves only if no instrument plays it as
  written. Parts without a fitting instrument are dropped, as are all but the `MAX_PITCHED_STEMS` with the most notes.

  Args:
    score: the music.
    rng: chooses among the instruments that fit.
    palette: programs to choose from; None for all of `instruments`.
    exclude: programs not to use.
    instruments: available instruments.
    weights: weight of each Slakh class (by program) in the random choice. With weights, transposing by an octave is no
      disadvantage, and only some of the lowest parts get a bass. None: equal weights.
    keep_written: prefer the class that the score names for a part, if it fits and is free.

  Returns:
    the arranged parts, highest first.
  """
  busiest = sorted(range(len(score.parts)), key=lambda index: -len(score.parts[index]))[:MAX_PITCHED_STEMS]
  order = sorted(busiest, key=lambda index: -score.parts[index]['pitch'].mean())
  parts = [score.parts[index] for index in order]
  written = [score.programs[index] if keep_written and score.programs else None for index in order]
  instruments = [
    instrument
    for instrument in instruments
    if instrument.program not in exclude and (palette is None or instrument.program in palette)
  ]
  choices = [_fitting(part, instruments) for part in parts]
  if weights is None or rng.random() < _BASS_SHARE:
    choices[-1] = [choice for choice in choices[-1] if choice[0] in BASSES] or choices[-1]
  taken, chosen = set(), {}
  # Assign parts with the fewest choices first, or a flute part could take the only bass.
  for index in sorted(range(len(parts)), key=lambda index: len(choices[index])):
    free = [(program, shift) for program, shift in choices[index] if slakh_class_program(program) not in taken]
    if not free:
      continue
    program, shift = _choose(free, written[index], weights, rng)
    taken.add(slakh_class_program(program))
    chosen[index] = _transposed(parts[index], program, shift, order[index])
  return [chosen[index] for index in sorted(chosen)]


def arrange_as_planned(score: Score, programs: Sequence[int]) -> list[ArrangedPart]:
  """Arrange a score's parts with the programs of an earlier arrangement: one per part, -1 to drop the part.

  Raises ValueError if an instrument cannot play its part.
  """
  by_program = {instrument.program: instrument for instrument in ALL_INSTRUMENTS}
  arranged = []
  for index, (part, program) in enumerate(zip(score.parts, programs, strict=True)):
    if program < 0:
      continue
    fitting = _fitting(part, [by_program[program]] if program in by_program else [])
    if not fitting:
      raise ValueError(f'program {program} cannot play part {index} of {score.name}; plan the data set again')
    arranged.append(_transposed(part, *fitting[0], index))
  return sorted(arranged, key=lambda part: -part.notes['pitch'].mean())


def _choose(free, written, weights, rng):
  if written is not None:
    same = [choice for choice in free if slakh_class_program(choice[0]) == slakh_class_program(written)]
    free = [choice for choice in same if choice[0] == written] or same or free
  best = _STEERED_SHIFTS - 1 if weights is not None else 0
  limit = max(best, min(_SHIFTS.index(shift) for _, shift in free))
  free = [choice for choice in free if _SHIFTS.index(choice[1]) <= limit]
  if weights is None:
    return free[rng.integers(len(free))]
  classes = [slakh_class_program(program) for program, _ in free]
  probabilities = np.array([weights.get(one, 0.0) / classes.count(one) for one in classes]) + 1e-12
  return free[rng.choice(len(free), p=probabilities / probabilities.sum())]


def _transposed(part, program, shift, index):
  notes = part.copy()
  notes['pitch'] += shift
  return ArrangedPart(program, notes, index)


def _fitting(part: np.ndarray, instruments: Sequence[Instrument]) -> list[tuple[int, int]]:
  """Return (program, shift) of each instrument that can play a part; shift is the best one, in semitones."""
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
  """Return the metrical accent of positions `[n]` in a score: 1 on bar lines, 0.4 on beats, else 0."""
  bars = score.bars
  index = np.clip(np.searchsorted(bars['start'], starts + 1e-6, side='right') - 1, 0, len(bars) - 1)
  position = starts - bars['start'][index] + bar_phases(bars)[index]
  beat = 4.0 / bars['denominator'][index]
  on_beat = np.abs(position / beat - np.round(position / beat)) < 1e-3
  return np.where(np.abs(position) < 1e-3, 1.0, np.where(on_beat, 0.4, 0.0))


def perform(
  part: ArrangedPart, score: Score, quarters_per_minute: float, rng: np.random.Generator, style: Style = PLAIN
) -> np.ndarray:
  """Perform a part at a tempo and in a style, with metrical accents: note table with times in s."""
  seconds = 60.0 / quarters_per_minute
  written = part.notes
  notes = empty_notes(len(written))
  notes['onset'] = written['start'] * seconds
  length = written['length'] * seconds
  notes['offset'] = notes['onset'] + np.maximum(length - style.gap, style.keep * length)
  notes['pitch'] = written['pitch']
  stress = style.accent * accents(score, written['start'])
  velocity = style.level + stress + rng.normal(0, style.spread, len(written))
  if style.dynamics and written['velocity'].any():
    velocity += style.dynamics * (written['velocity'] - written['velocity'].mean())
  notes['velocity'] = np.clip(np.rint(velocity), 1, 127)
  notes['program'] = part.program
  if style.jitter:
    shift = np.maximum(rng.normal(0, style.jitter, len(written)), -notes['onset'])
    notes['onset'] += shift
    notes['offset'] = np.maximum(notes['offset'] + shift, notes['onset'] + _MIN_DURATION)
  return notes
