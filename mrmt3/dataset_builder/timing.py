"""Selection of the bars of a score that a track uses, and of its tempo."""

import math

import numpy as np

from mrmt3.dataset_builder.score import Score, excerpt, repeat

MIN_TEMPO, MAX_TEMPO = 50.0, 150.0  # quarters per minute
TAIL_SECONDS = 1.5  # after the last bar, for releases and reverberation


def fit(
  score: Score, seconds: float, notes_per_second: float, *, fill: bool, rng: np.random.Generator
) -> tuple[Score, float]:
  """Select whole bars of a score, and the tempo at which they last `seconds` minus `TAIL_SECONDS`.

  Args:
    score: the piece.
    seconds: duration of the audio; more than `TAIL_SECONDS`.
    notes_per_second: target mean density of all parts together, within the limits of `MIN_TEMPO` and `MAX_TEMPO`.
    fill: start at the first bar and repeat a short piece, so that the duration is exact. Otherwise the excerpt starts
      at a random bar, and a short piece stays short.
    rng: chooses where an excerpt starts.

  Returns:
    The bars, starting at 0, and quarters per minute.
  """
  music_seconds = seconds - TAIL_SECONDS
  shortest, longest = music_seconds * MIN_TEMPO / 60.0, music_seconds * MAX_TEMPO / 60.0  # quarters
  if fill:
    score = repeat(score, math.ceil(longest / score.length))
  else:
    tempo = float(np.clip(60.0 * notes_per_second * score.length / score.num_notes, MIN_TEMPO, MAX_TEMPO))
    target_length = music_seconds * tempo / 60.0
    if score.length <= target_length:
      return excerpt(score, 0, len(score.bars)), tempo

  bars = score.bars
  first = 0
  if not fill:  # any bar with enough bars after it
    first = int(rng.integers(max(1, np.searchsorted(bars['start'], bars['start'][0] + score.length - target_length))))
  ends = bars['start'][first:] + bars['length'][first:]
  starts = np.sort(np.concatenate([part['start'] for part in score.parts]))
  played = np.searchsorted(starts, ends - 1e-6) - np.searchsorted(starts, bars['start'][first] - 1e-6)
  lengths = ends - bars['start'][first]
  cost = np.abs(played / music_seconds - notes_per_second)
  # Tempos out of range come last, the nearest of them first.
  cost += 1e6 * (np.maximum(shortest - lengths, 0) + np.maximum(lengths - longest, 0))
  count = int(np.argmin(cost)) + 1
  return excerpt(score, first, first + count), 60.0 * float(lengths[count - 1]) / music_seconds


def fit_tempo(score: Score, seconds: float, quarters_per_minute: float, rng: np.random.Generator) -> Score:
  """Select whole bars, from a random one, that last at most `seconds` minus `TAIL_SECONDS` at a given tempo.

  A short piece is returned whole; at least one bar is returned.
  """
  bars = score.bars
  target_length = (seconds - TAIL_SECONDS) * quarters_per_minute / 60.0
  if score.length <= target_length:
    return score
  ends = bars['start'] + bars['length']
  first = int(rng.integers(max(1, np.searchsorted(bars['start'], ends[-1] - target_length, side='right'))))
  end = int(np.searchsorted(ends, bars['start'][first] + target_length + 1e-6, side='right'))
  return excerpt(score, first, max(end, first + 1))
