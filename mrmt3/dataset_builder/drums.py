"""Drum parts for a score: patterns in its metre, with fills at the ends of phrases."""

import dataclasses

import numpy as np

from mrmt3.dataset_builder.score import Score, bar_phases
from mrmt3.notes.note_array import empty_notes

KICK, SIDE_STICK, SNARE, CLOSED_HAT, OPEN_HAT, CRASH, RIDE = 36, 37, 38, 42, 46, 49, 51
TOMS = (50, 47, 45, 41)  # high to low
PHRASE_BARS = 8
STROKE_SECONDS = 0.1  # drum labels have no meaningful offset
_MAX_TIME_STROKES = 3.0  # hi-hat or ride strokes per second


@dataclasses.dataclass(frozen=True)
class Groove:
  """A drum pattern: the timekeeping sound, the backbeat sound, and the positions of kicks and backbeats.

  Positions are in beats from the bar line, for bars with an even and an odd number of beats. Positions beyond the end
  of a bar are not played.
  """

  time: int
  backbeat: int
  even_kicks: tuple[float, ...]
  odd_kicks: tuple[float, ...]
  even_backbeats: tuple[float, ...]
  odd_backbeats: tuple[float, ...]


GROOVES = (
  Groove(CLOSED_HAT, SNARE, (0, 2), (0,), (1, 3), (1, 2)),
  Groove(CLOSED_HAT, SNARE, (0, 2, 2.5), (0, 1.5), (1, 3), (2,)),
  Groove(RIDE, SIDE_STICK, (0, 2), (0,), (1, 3), (2,)),
  Groove(CLOSED_HAT, SIDE_STICK, (0, 1.5, 2), (0, 2.5), (1, 3), (1,)),
)


def beat_length(numerator: int, denominator: int) -> float:
  """Return the length of a beat in quarters; compound metres (6/8, 9/8, 12/8) have dotted beats."""
  if numerator % 3 == 0 and numerator > 3:
    return 12.0 / denominator
  return 4.0 / denominator


def play_drums(score: Score, quarters_per_minute: float, rng: np.random.Generator) -> np.ndarray:
  """Generate a drum accompaniment for all bars of a score: note table with times in s.

  One groove is drawn for the whole score. Every `PHRASE_BARS` bars, a tom fill ends the phrase and a crash opens the
  next. Pickups and split bars get the part of the pattern that they cover.
  """
  groove = GROOVES[rng.integers(len(GROOVES))]
  seconds = 60.0 / quarters_per_minute
  strokes = []  # (quarter, pitch, velocity)
  for index, (bar, phase) in enumerate(zip(score.bars, bar_phases(score.bars), strict=True)):
    beat = beat_length(bar['numerator'], bar['denominator'])
    whole = 4.0 * bar['numerator'] / bar['denominator']
    fill = index % PHRASE_BARS == PHRASE_BARS - 1 and index + 1 < len(score.bars)
    times, pitches, velocities = _bar_strokes(groove, whole, beat, beat * seconds, fill, index % PHRASE_BARS == 0)
    # Strokes are those of a whole bar: a pickup has its end, a shortened bar its beginning.
    covered = (times > phase - 1e-6) & (times < phase + bar['length'] - 1e-6)
    strokes.append(np.stack([times - phase + bar['start'], pitches, velocities])[:, covered])
  quarters, pitches, velocities = np.concatenate(strokes, axis=1)
  notes = empty_notes(len(quarters))
  notes['onset'] = quarters * seconds
  notes['offset'] = notes['onset'] + STROKE_SECONDS
  notes['pitch'] = pitches
  notes['velocity'] = np.clip(np.rint(velocities + rng.normal(0, 4, len(quarters))), 1, 127)
  notes['is_drum'] = True
  return notes[np.lexsort((notes['pitch'], notes['onset']))]


def play_written_drums(score: Score, quarters_per_minute: float, rng: np.random.Generator) -> np.ndarray:
  """Convert the drum part of a score (which must have one) to a note table with times in s."""
  written = score.drums
  notes = empty_notes(len(written))
  notes['onset'] = written['start'] * 60.0 / quarters_per_minute
  notes['offset'] = notes['onset'] + STROKE_SECONDS
  notes['pitch'] = written['pitch']
  notes['velocity'] = np.clip(np.rint(np.maximum(written['velocity'], 40) + rng.normal(0, 4, len(written))), 1, 127)
  notes['is_drum'] = True
  return notes


def _bar_strokes(groove, whole, beat, beat_seconds, fill, opens):
  """Return (quarters from the bar line, pitches, velocities) of a whole bar, float64 `[n]` each."""
  beats = round(whole / beat)
  even = beats % 2 == 0
  kicks = [at for at in (groove.even_kicks if even else groove.odd_kicks) if at < beats]
  backs = [at for at in (groove.even_backbeats if even else groove.odd_backbeats) if at < beats]
  steps = 2 if 2 / beat_seconds <= _MAX_TIME_STROKES else 1
  ticks = np.arange(beats * steps) / steps
  strokes = [(at, KICK, 100) for at in kicks] + [(at, groove.backbeat, 92) for at in backs]
  strokes += [(at, groove.time, 84 if at == int(at) else 68) for at in ticks]
  if fill:
    begin = beats - 1 if beats < 4 else beats - 2
    strokes = [stroke for stroke in strokes if stroke[0] < begin]
    at = np.arange(begin, beats, 0.5)
    strokes += [(moment, TOMS[index * len(TOMS) // len(at)], 96) for index, moment in enumerate(at)]
  if opens:
    strokes = [stroke for stroke in strokes if stroke[:2] != (0, groove.time)] + [(0, CRASH, 100)]
  times, pitches, velocities = np.array(strokes, np.float64).T
  return times * beat, pitches, velocities
