"""Bars from beats: the metrical level that the bar network likes best, its metre, and where the bars begin."""

import dataclasses
from collections.abc import Callable

import numpy as np

from mrmt3.score import bar_network
from mrmt3.score.metres import METRES

_MIN_INTERVAL, _MAX_INTERVAL = 0.27, 1.9  # s, of the median beat
_PATH_WEIGHT = 0.3  # of the tracked path's score per second against the log probability that the beats are right
_STRENGTH_WEIGHT = 1.0  # of the logarithm of the mean probability of a beat on the beats
_LEVEL_COST = 0.5  # log probability that another level than the tracked one must gain
_METRE_WEIGHT = 4.0  # of the log probability of the metre against the downbeats' log odds
_JUMP_COST = 9.0  # log odds that a bar of an unusual length must gain
_MIN_BEATS = 4


@dataclasses.dataclass(frozen=True)
class Candidate:
  """Beats that may be right: their times, s, and the score of the path through them per second."""

  beats: np.ndarray
  score: float


@dataclasses.dataclass(frozen=True)
class Bars:
  """Beats in bars.

  Attributes:
    beats: times of the beats, s, `[n]`.
    places: place of each beat in its bar, 0 for a downbeat, int64 `[n]`.
    metre: time signature.
    probability: that these are the beats.
  """

  beats: np.ndarray
  places: np.ndarray
  metre: tuple[int, int]
  probability: float


def levels(beats: np.ndarray) -> list[np.ndarray]:
  """Return the beats themselves and others at simple ratios to them, s: the first is what was given."""
  index = np.arange(len(beats))

  def at(start, step):
    return np.interp(np.arange(start, len(beats) - 1 + 1e-9, step), index, beats)

  found = [beats, at(0, 0.5), at(0, 2), at(1, 2), at(0.5, 1), at(0, 1 / 3)]
  found += [at(1 / 3, 1), at(2 / 3, 1)]
  found += [at(start, 3) for start in range(3)]
  found += [at(start, 1.5) for start in (0, 0.5, 1)]
  found += [at(start, 2 / 3) for start in (0, 1 / 3)]
  return [
    one
    for number, one in enumerate(found)
    if number == 0 or (len(one) >= _MIN_BEATS and _MIN_INTERVAL <= np.median(np.diff(one)) <= _MAX_INTERVAL)
  ]


def find_bars(
  notes: np.ndarray,
  candidates: list[Candidate],
  *,
  change_level: bool = True,
  strength: Callable[[np.ndarray], float] = lambda beats: 1.0,
) -> Bars:
  """Find the bars of a piece.

  Args:
    notes: note table, s.
    candidates: tracked beats, at least two each.
    change_level: whether beats at simple ratios to the tracked ones are tried as well.
    strength: returns the mean probability of a beat at given times.
  """
  best = None
  for candidate in candidates:
    for number, beats in enumerate(levels(candidate.beats) if change_level else [candidate.beats]):
      odds, metres = bar_network.analyze_beats(notes, beats)
      right = float(np.log1p(-min(float(np.exp(metres[bar_network.WRONG])), 1 - 1e-9)))
      score = right + _PATH_WEIGHT * candidate.score - _LEVEL_COST * (number > 0)
      score += _STRENGTH_WEIGHT * float(np.log(strength(beats) + 0.01))
      if best is None or score > best[0]:
        best = score, beats, odds, metres, right
  _, beats, odds, metres, right = best
  metres = metres[: bar_network.WRONG] - right
  places, metre = _place(odds, metres)
  return Bars(beats, places, metre, float(np.exp(right)))


def _place(odds, metres):
  """Return (place of each beat, time signature): the best path through bars of one length, with jumps at a cost."""
  best = None
  for (numerator, denominator), log_probability in zip(METRES, metres, strict=True):
    count = numerator if denominator == 4 else numerator // 3
    score = np.where(np.arange(count) == 0, odds[0], 0.0)
    came = np.zeros((len(odds), count), int)
    for step in range(1, len(odds)):
      regular = np.roll(score, 1)
      jumped = score.max() - _JUMP_COST
      came[step] = np.where(jumped > regular, int(np.argmax(score)), (np.arange(count) - 1) % count)
      score = np.maximum(regular, jumped)
      score[0] += odds[step]
    total = score.max() + _METRE_WEIGHT * log_probability
    if best is None or total > best[0]:
      places = [int(np.argmax(score))]
      for step in range(len(odds) - 1, 0, -1):
        places.append(came[step][places[-1]])
      best = total, np.array(places[::-1]), (numerator, denominator)
  return best[1], best[2]
