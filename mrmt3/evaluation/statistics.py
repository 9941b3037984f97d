"""Statistics of means over pieces: bootstrap intervals, and a paired test of two systems.

The sample is the pieces, as in the published tables; the notes of one piece are not independent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
_EXACT_PIECES = 14  # up to so many differences all signs are tried
_AT_ONCE = 1 << 22  # numbers drawn at once


class Interval(NamedTuple):
  """Ends of an interval, in the unit of the values."""

  low: float
  high: float


class Comparison(NamedTuple):
  """Two systems on the same pieces.

  Attributes:
    difference: mean of the second minus mean of the first.
    low: lower end of the difference's interval.
    high: its upper end.
    p_value: how likely chance alone makes a difference as large, 0..1.
    better: pieces on which the second has the larger value.
    worse: pieces on which it has the smaller one.
  """

  difference: float
  low: float
  high: float
  p_value: float
  better: int
  worse: int


def bootstrap_interval(
  values: Sequence[float], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
  """Returns the interval of the mean over pieces (percentile bootstrap, Efron 1979).

  For a single piece both ends are NaN.

  Args:
    values: a score of each piece, finite.
    confidence: share of resampled means inside, between 0 and 1.
    resamples: how often as many pieces are drawn with replacement.
    seed: same seed, same interval.

  Raises:
    ValueError: no values, values that are not finite, or numbers out of range.
  """
  values = _checked(values, 'values')
  if not 0 < confidence < 1 or resamples < 1:
    raise ValueError(f'confidence is {confidence} and resamples {resamples}; expected a share and a number from 1')
  if len(values) == 1:
    return Interval(float('nan'), float('nan'))
  rng = np.random.default_rng(seed)
  step = max(1, _AT_ONCE // len(values))
  sizes = [min(step, resamples - done) for done in range(0, resamples, step)]
  means = np.concatenate([values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes])
  low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
  return Interval(float(low), float(high))


def paired_test(
  first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95, resamples: int = 10000, seed: int = 0
) -> Comparison:
  """Compares two systems by a score of each piece, in the same order (sign-flip permutation test, two-sided).

  If both were the same, each piece's difference could as well have the other sign. The p-value is the share of sign
  choices whose mean is at least as far from 0: of all choices up to 14 pieces that differ, else of `resamples` random
  ones, the true one included, so that it is never 0. The interval is the difference's bootstrap interval.

  Raises:
    ValueError: lists of different lengths, no values, or values that are not finite.
  """
  first, second = _checked(first, 'first'), _checked(second, 'second')
  if len(first) != len(second):
    raise ValueError(f'first has {len(first)} pieces, second {len(second)}; they must be the same pieces')
  differences = second - first
  moved = differences[differences != 0]
  low, high = bootstrap_interval(differences, confidence=confidence, seed=seed)
  p_value = _sign_flip_p(moved, resamples, seed)
  return Comparison(
    float(differences.mean()), low, high, p_value, int((differences > 0).sum()), int((differences < 0).sum())
  )


def _sign_flip_p(moved: np.ndarray, resamples: int, seed: int) -> float:
  if not len(moved):
    return 1.0
  observed = abs(moved.sum()) * (1 - 1e-12)  # equal sums may differ by rounding
  if len(moved) <= _EXACT_PIECES:
    choices = np.arange(1 << len(moved))[:, None] >> np.arange(len(moved)) & 1
    return float(np.mean(np.abs((1.0 - 2.0 * choices) @ moved) >= observed))
  rng = np.random.default_rng(seed)
  step, as_far = max(1, _AT_ONCE // len(moved)), 1
  for done in range(0, resamples - 1, step):
    signs = rng.integers(0, 2, size=(min(step, resamples - 1 - done), len(moved))) * 2.0 - 1.0
    as_far += int(np.count_nonzero(np.abs(signs @ moved) >= observed))
  return as_far / resamples


def _checked(values: Sequence[float], name: str) -> np.ndarray:
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
    raise ValueError(f'{name} must be a list of finite numbers, one for each piece')
  return values
