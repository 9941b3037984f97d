"""Statistics of means over pieces: bootstrap intervals, and a paired test of two systems; resampling by scipy.stats.

The sample is the pieces, as in the published tables; the notes of one piece are not independent.

==================  ====================================================================  =========================
function            method                                                                resamples
==================  ====================================================================  =========================
bootstrap_interval  percentile bootstrap of the mean (`scipy.stats.bootstrap`)             2,000
paired_test         sign-flip permutation test of the mean difference, two-sided: exact    2**n for n pieces that
                    for up to 14 pieces that differ (`scipy.stats.permutation_test`),      differ, else 10,000
                    else random signs (`scipy.stats.monte_carlo_test`)
==================  ====================================================================  =========================

The same seed gives the same numbers on every run. A p-value is never 0, since the observed signs are counted too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES, TEST_RESAMPLES = 2000, 10000
_EXACT_PIECES = 14  # up to this many pieces that differ, all 2**n sign choices are counted
_AT_ONCE = 1 << 22  # numbers drawn at once, which bounds the memory


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
  """Compute the percentile bootstrap interval (Efron 1979) of the mean over pieces.

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
  from scipy import stats

  found = stats.bootstrap(
    (values,),
    np.mean,
    n_resamples=resamples,
    batch=_batch(values),
    confidence_level=confidence,
    method='percentile',
    rng=np.random.default_rng(seed),
  )
  return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high))


def paired_test(
  first: Sequence[float],
  second: Sequence[float],
  *,
  confidence: float = 0.95,
  resamples: int = TEST_RESAMPLES,
  seed: int = 0,
) -> Comparison:
  """Compare two systems by a score of each piece, in the same order (sign-flip permutation test, two-sided).

  If both were the same, each piece's difference could as well have the other sign. The p-value is the share of sign
  choices whose mean is at least as far from 0: of all choices up to 14 pieces that differ, else of `resamples` choices,
  the observed one and random ones. The interval is the difference's bootstrap interval.

  Raises:
    ValueError: lists of different lengths, no values, values that are not finite, or fewer than 2 resamples.
  """
  first, second = _checked(first, 'first'), _checked(second, 'second')
  if resamples < 2:
    raise ValueError(f'resamples is {resamples}; it must be at least 2')
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
  if len(moved) < 2:
    return 1.0  # either sign of one difference is as far from 0; scipy takes two values or more
  from scipy import stats

  def distance(values, axis=-1):
    return np.abs(np.mean(values, axis=axis))

  if len(moved) <= _EXACT_PIECES:
    # Of a single sample, 'samples' flips signs.
    options = {'permutation_type': 'samples', 'n_resamples': np.inf, 'alternative': 'greater'}
    return float(stats.permutation_test((moved,), distance, **options).pvalue)
  rng = np.random.default_rng(seed)

  # permutation_test draws random signs by shuffling index pairs, which takes 10 times as long.
  def flipped(size):
    return moved * (1.0 - 2.0 * rng.integers(0, 2, size=size))

  options = {'n_resamples': resamples - 1, 'batch': _batch(moved), 'alternative': 'greater'}
  return float(stats.monte_carlo_test(moved, flipped, distance, **options).pvalue)


def _batch(values: np.ndarray) -> int:
  """Return how many resamples are drawn at once."""
  return max(1, _AT_ONCE // len(values))


def _checked(values: Sequence[float], name: str) -> np.ndarray:
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
    raise ValueError(f'{name} must be a list of finite numbers, one for each piece')
  return values
