"""Performances of scores with a drifting tempo and rubato, whose beats and downbeats are known."""

import dataclasses

import numpy as np
from pieces import Piece

from mrmt3.dataset_builder import arrange
from mrmt3.dataset_builder.score import bar_phases, excerpt
from mrmt3.notes.note_array import empty_notes, sort_notes

STEPS = 24  # of the tempo curve, per quarter
SIMPLE, COMPOUND = 96.0, 66.0  # median beats per minute
SPREAD = 0.2  # standard deviation of the logarithm of the tempo
LIMITS = {False: (50.0, 160.0), True: (42.0, 120.0)}
MELODY_PROGRAMS = (0, 24, 40, 56, 65, 68, 71, 73)
CHORD = 0.04  # s; notes within it sound together
DENSITY = (1.0, 7.0)  # limits of the mean number of distinct onsets per second


@dataclasses.dataclass(frozen=True)
class Timing:
  """How a performance departs from the score.

  Attributes:
    drift: relative change of the tempo from beginning to end.
    rubato: relative amplitude of the tempo's waves, one to a phrase.
    jitter: standard deviation of the onsets, s.
    wander: standard deviation of the tempo from beat to beat, relative.
  """

  drift: float = 0.08
  rubato: float = 0.08
  jitter: float = 0.01
  wander: float = 0.01


@dataclasses.dataclass(frozen=True)
class Performance:
  """Notes with times, and what was played.

  Attributes:
    name: of the piece.
    notes: note table, s.
    beats: times of the beats, s.
    downbeats: times of the downbeats, s.
    numerator: of the metre.
    denominator: of the metre.
    key: (pitch class of the tonic, whether minor), or None.
    pickup: quarters before the first downbeat.
    tempo: mean beats per minute.
    positions: onset of each note in quarters from the first downbeat.
  """

  name: str
  notes: np.ndarray
  beats: np.ndarray
  downbeats: np.ndarray
  numerator: int
  denominator: int
  key: tuple[int, bool] | None
  pickup: float
  tempo: float
  positions: np.ndarray


def draw_timing(rng: np.random.Generator, low: float = 0.05, high: float = 0.10) -> Timing:
  """Draw drift and rubato with amplitudes in a range, and either sign of the drift."""
  return Timing(rng.uniform(low, high) * rng.choice([-1, 1]), rng.uniform(low, high))


def perform(
  piece: Piece, rng: np.random.Generator, timing: Timing, *, seconds: float = 36.0, from_start: bool = True
) -> Performance:
  """Perform whole bars of a piece that last about `seconds`.

  Parts get instruments at random: `dataset_builder.arrange`, or one of `MELODY_PROGRAMS` for a single melody.
  """
  tempo = _draw_tempo(piece, rng)
  bars = piece.score.bars
  whole = 4.0 * piece.numerator / piece.denominator
  count = max(4, round(seconds * tempo / 60.0 * piece.beat / whole))
  first = 0 if from_start else int(rng.integers(max(1, len(bars) - count)))
  score = excerpt(piece.score, first, first + count)
  if not sum(map(len, score.parts)):
    score = excerpt(piece.score, 0, count)
  phases = bar_phases(score.bars)
  end = score.length
  clock = _Clock(end, piece.beat, whole, tempo, timing, rng)

  tables, starts = [], []
  parts = tuple(part for part in score.parts if len(part))
  if piece.is_monophonic:  # `arrange` would give the only part to a bass
    arranged = [arrange.ArrangedPart(int(rng.choice(MELODY_PROGRAMS)), parts[0])]
  else:
    arranged = arrange.arrange(dataclasses.replace(score, parts=parts), rng)
  for part in arranged:
    tables.append(_play(part.notes, clock, rng, timing, part.program, False))
    starts.append(part.notes['start'])
  if score.drums is not None and len(score.drums):
    tables.append(_play(score.drums, clock, rng, timing, 0, True))
    starts.append(score.drums['start'])
  notes, starts = np.concatenate(tables), np.concatenate(starts)
  beats, downbeats = [], []
  for bar, phase in zip(score.bars, phases, strict=True):
    at = np.arange(np.ceil(phase / piece.beat - 1e-6), np.ceil((phase + bar['length']) / piece.beat - 1e-6))
    places = bar['start'] + at * piece.beat - phase
    beats += places.tolist()
    downbeats += places[at == 0].tolist()
  pickup = (whole - phases[0]) % whole
  order = np.argsort(notes['onset'], kind='stable')
  return Performance(
    name=piece.name,
    notes=notes[order],
    beats=clock.seconds(np.array(beats)),
    downbeats=clock.seconds(np.array(downbeats)),
    numerator=piece.numerator,
    denominator=piece.denominator,
    key=piece.key if first == 0 else None,
    pickup=float(pickup),
    tempo=tempo,
    positions=(starts - pickup)[order],
  )


def without_pulse(rng: np.random.Generator, performance: Performance) -> Performance:
  """Return the notes of a performance at times that have no pulse: each sound begins at random."""
  starts, group = np.unique(np.round(performance.notes['onset'] / CHORD), return_inverse=True)
  seconds = float(performance.notes['onset'].max())
  times = np.sort(rng.uniform(0.3, seconds, len(starts)))[group]
  notes = performance.notes.copy()
  notes['offset'] += times - notes['onset']
  notes['onset'] = times
  nothing = np.zeros(0)
  return dataclasses.replace(performance, notes=sort_notes(notes), beats=nothing, downbeats=nothing, key=None)


def _draw_tempo(piece, rng):
  """Draw beats per minute that suit the density of a piece."""
  compound = piece.denominator == 8
  tempo = (COMPOUND if compound else SIMPLE) * np.exp(rng.normal(0, SPREAD))
  starts = np.unique(np.round(np.concatenate([part['start'] for part in piece.score.parts]), 3))
  per_beat = len(starts) / max(piece.score.length, 1.0) * piece.beat
  low, high = (60.0 * density / per_beat for density in DENSITY)
  return float(np.clip(np.clip(tempo, low, high), *LIMITS[compound]))


class _Clock:
  """The time of each position in quarters."""

  def __init__(self, end, beat, whole, tempo, timing, rng):
    grid = np.arange(0, end + whole, 1 / STEPS)
    phrase = whole * rng.choice([2, 3, 4, 4, 8])
    wander = np.repeat(rng.normal(0, timing.wander, len(grid) // int(STEPS * beat) + 1), int(STEPS * beat))[: len(grid)]
    log_tempo = (
      timing.drift * (grid / max(end, 1.0) - 0.5)
      + timing.rubato * np.sin(2 * np.pi * (grid / phrase + rng.uniform()))
      + wander
    )
    step = 60.0 / tempo / beat / STEPS * np.exp(-log_tempo)
    self._grid, self._times = grid, rng.uniform(0.3, 1.5) + np.r_[0, np.cumsum(step)[:-1]]

  def seconds(self, positions):
    return np.interp(positions, self._grid, self._times)


def _play(part, clock, rng, timing, program, is_drum):
  notes = empty_notes(len(part))
  shift = rng.normal(0, timing.jitter, len(part))
  notes['onset'] = np.maximum(clock.seconds(part['start']) + shift, 0.0)
  keep = rng.uniform(0.7, 1.0)
  length = clock.seconds(part['start'] + part['length']) - clock.seconds(part['start'])
  notes['offset'] = notes['onset'] + np.maximum(length * keep - 0.02, 0.05)
  notes['pitch'], notes['program'], notes['is_drum'] = part['pitch'], program, is_drum
  velocity = part['velocity'] if part['velocity'].any() else 80
  notes['velocity'] = np.clip(velocity + rng.normal(0, 5, len(part)), 1, 127)
  return notes
