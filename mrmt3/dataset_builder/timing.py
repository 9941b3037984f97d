"""Chooses which bars of a score are played, and how fast."""

import math

import numpy as np

from mrmt3.dataset_builder.score import Score, excerpt, repeat

SLOWEST, FASTEST = 50.0, 150.0  # quarters a minute
TAIL_SECONDS = 1.5  # after the last bar, for the sound to die away


def fit(
  score: Score, seconds: float, notes_per_second: float, *, fill: bool, rng: np.random.Generator
) -> tuple[Score, float]:
  """Returns whole bars of a score, and the tempo at which they last `seconds` less `TAIL_SECONDS`.

  Args:
    score: the piece.
    seconds: length of the audio that is wanted; more than `TAIL_SECONDS`.
    notes_per_second: of all parts together on average, kept as far as the tempo stays within `SLOWEST` to `FASTEST`.
    fill: begin at the beginning and repeat a piece that is too short, so that the length is exact. Otherwise an
      excerpt begins at a random bar, and a short piece stays short.
    rng: chooses where an excerpt begins.

  Returns:
    The bars, starting at 0, and quarters per minute.
  """
  music_seconds = seconds - TAIL_SECONDS
  shortest, longest = music_seconds * SLOWEST / 60.0, music_seconds * FASTEST / 60.0  # quarters
  if fill:
    score = repeat(score, math.ceil(longest / score.length))
  else:
    tempo = float(np.clip(60.0 * notes_per_second * score.length / score.num_notes, SLOWEST, FASTEST))
    wanted = music_seconds * tempo / 60.0
    if score.length <= wanted:
      return excerpt(score, 0, len(score.bars)), tempo

  bars = score.bars
  first = 0
  if not fill:  # anywhere with enough bars after it
    first = int(rng.integers(max(1, np.searchsorted(bars['start'], bars['start'][0] + score.length - wanted))))
  ends = bars['start'][first:] + bars['length'][first:]
  starts = np.sort(np.concatenate([part['start'] for part in score.parts]))
  played = np.searchsorted(starts, ends - 1e-6) - np.searchsorted(starts, bars['start'][first] - 1e-6)
  lengths = ends - bars['start'][first]
  cost = np.abs(played / music_seconds - notes_per_second)
  # Tempos out of range come last, the nearest first.
  cost += 1e6 * (np.maximum(shortest - lengths, 0) + np.maximum(lengths - longest, 0))
  count = int(np.argmin(cost)) + 1
  return excerpt(score, first, first + count), 60.0 * float(lengths[count - 1]) / music_seconds


def fit_tempo(score: Score, seconds: float, quarters_per_minute: float, rng: np.random.Generator) -> Score:
  """Returns whole bars of a score that last at most `seconds` less `TAIL_SECONDS` at a tempo, begun at a random bar.

  A short piece stays whole; there is always at least one bar.
  """
  bars = score.bars
  wanted = (seconds - TAIL_SECONDS) * quarters_per_minute / 60.0
  if score.length <= wanted:
    return score
  ends = bars['start'] + bars['length']
  first = int(rng.integers(max(1, np.searchsorted(bars['start'], ends[-1] - wanted, side='right'))))
  end = int(np.searchsorted(ends, bars['start'][first] + wanted + 1e-6, side='right'))
  return excerpt(score, first, max(end, first + 1))
