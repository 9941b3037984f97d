"""The tempo map: times to quarters and back, bars, pick-ups."""

import numpy as np
import pytest

from mrmt3.score.beats import Beats
from mrmt3.score.tempo_map import TempoMap, time_signature


def tempo_of(times, places, numerator=4, denominator=4):
  return TempoMap.from_beats(Beats(np.array(times), np.array(places), numerator, denominator, 1.0))


def test_positions_count_from_the_first_downbeat():
  tempo = tempo_of([1.0, 1.5, 2.0, 3.0], [2, 0, 1, 2], 3)
  np.testing.assert_allclose(tempo.to_quarters([1.0, 1.5, 1.75, 2.5, 3.0]), [-1, 0, 0.5, 1.5, 2])
  # Beyond the ends the tempo of the first and last beat goes on.
  np.testing.assert_allclose(tempo.to_quarters([0.5, 5.0]), [-2, 4])
  np.testing.assert_allclose(tempo.to_seconds(tempo.to_quarters([0.2, 1.3, 2.7, 9.0])), [0.2, 1.3, 2.7, 9.0])


def test_compound_beats_are_dotted():
  tempo = tempo_of([0.0, 0.9, 1.8, 2.7], [0, 1, 0, 1], 6, 8)
  np.testing.assert_allclose(tempo.to_quarters([0.9, 1.2]), [1.5, 2.0])
  assert tempo.beats_per_minute == pytest.approx(60 / 0.9)
  assert tempo.bar_quarters == 3.0


def test_bars_have_a_pickup_and_unusual_lengths():
  tempo = tempo_of(np.arange(9) * 0.5, [2, 0, 1, 2, 0, 1, 0, 1, 2], 3)
  bars = tempo.bars(-1.0, 9.5)
  assert [(bar.start, bar.length, bar.numerator, bar.denominator) for bar in bars] == [
    (-1, 1, 1, 4),
    (0, 3, 3, 4),
    (3, 2, 2, 4),
    (5, 3, 3, 4),
    (8, 3, 3, 4),
  ]


def test_time_signatures_of_odd_lengths():
  assert time_signature(4.0, 4, 4) == (4, 4)
  assert time_signature(1.25, 4, 4) == (5, 16)
  assert time_signature(0.5, 6, 8) == (1, 8)


def test_too_few_beats():
  with pytest.raises(ValueError, match='two beats'):
    tempo_of([1.0], [0])
  with pytest.raises(ValueError, match='downbeat'):
    tempo_of([1.0, 2.0], [1, 2])
