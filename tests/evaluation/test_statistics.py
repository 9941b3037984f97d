"""Bootstrap intervals and paired tests: theory, exact small cases, and errors for invalid input."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.evaluation import statistics


def test_interval_of_a_normal_sample_is_that_of_theory():
  values = np.random.default_rng(1).normal(0.5, 0.1, 400)
  low, high = statistics.bootstrap_interval(values)
  half = 1.96 * values.std(ddof=1) / 20
  assert low == pytest.approx(values.mean() - half, abs=0.0015) and high == pytest.approx(
    values.mean() + half, abs=0.0015
  )
  assert statistics.bootstrap_interval(values) == (low, high) != statistics.bootstrap_interval(values, seed=1)
  narrow = statistics.bootstrap_interval(values, confidence=0.5)
  assert low < narrow.low < narrow.high < high


def test_intervals_of_few_and_of_wrong_values():
  assert statistics.bootstrap_interval([0.3, 0.3, 0.3]) == (0.3, 0.3)
  assert np.isnan(statistics.bootstrap_interval([0.3])).all()
  for values in ([], [0.1, float('nan')], [[0.1], [0.2]]):
    with pytest.raises(ValueError, match='values must be a list of finite numbers'):
      statistics.bootstrap_interval(values)
  with pytest.raises(ValueError, match='confidence is 1'):
    statistics.bootstrap_interval([1, 2], confidence=1)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=6))
def test_paired_test_is_exact_for_few_pieces(differences):
  second = np.array(differences, float)
  observed = abs(second.sum())
  choices = [abs(np.dot(signs, second)) >= observed - 1e-9 for signs in itertools.product((-1, 1), repeat=len(second))]
  result = statistics.paired_test(np.zeros(len(second)), second)
  assert result.p_value == pytest.approx(np.mean(choices))
  assert (result.better, result.worse) == ((second > 0).sum(), (second < 0).sum())


def test_paired_test_of_many_pieces():
  rng = np.random.default_rng(0)
  first = rng.uniform(0.3, 0.8, 150)
  same = statistics.paired_test(first, first + rng.normal(0, 0.02, 150))
  better = statistics.paired_test(first, first + rng.normal(0.01, 0.02, 150))
  assert same.p_value > 0.05 and same.low < 0 < same.high
  assert better.p_value < 0.001 and 0 < better.low < better.difference < better.high
  assert statistics.paired_test(first, first).p_value == 1
  # Chance is calibrated: without a difference, p is uniform.
  p = [statistics.paired_test(np.zeros(20), rng.normal(size=20), resamples=500).p_value for _ in range(120)]
  assert 0.4 < np.mean(p) < 0.6 and np.mean(np.array(p) < 0.1) < 0.2
  with pytest.raises(ValueError, match='first has 2 pieces, second 3'):
    statistics.paired_test([1, 2], [1, 2, 3])
  with pytest.raises(ValueError, match='resamples is 1'):
    statistics.paired_test([1, 2], [1, 2], resamples=1)


def test_p_is_never_0():
  apart = np.zeros(200), np.linspace(0.5, 1, 200)
  assert (
    statistics.paired_test(*apart).p_value == 1 / 10000
    and statistics.paired_test(*apart, resamples=50).p_value == 1 / 50
  )
  assert (
    statistics.paired_test(np.zeros(14), np.ones(14)).p_value == 2 / 2**14
  )  # all signs as they are, and all the other way
  assert statistics.paired_test([0.1, 0.2], [0.1, 0.5]).p_value == 1  # one piece differs


def test_resampling_depends_on_the_seed_alone(monkeypatch):
  first, second = np.random.default_rng(2).uniform(size=(2, 40))
  intervals = [statistics.bootstrap_interval(first) for _ in range(2)]
  tests = [statistics.paired_test(first, second) for _ in range(2)]
  monkeypatch.setattr(statistics, '_AT_ONCE', 4000)  # 100 resamples at once
  intervals.append(statistics.bootstrap_interval(first))
  tests.append(statistics.paired_test(first, second))
  assert len(set(intervals)) == len(set(tests)) == 1
  assert statistics.paired_test(first, second, seed=1).p_value != tests[0].p_value
  # For a sum of 40 values the normal approximation is close.
  differences = second - first
  z = abs(differences.sum()) / np.sqrt((differences**2).sum())
  assert tests[0].p_value == pytest.approx(math.erfc(z / np.sqrt(2)), abs=0.02)
