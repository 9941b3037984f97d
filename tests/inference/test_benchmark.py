"""Times of the parts as shares of the whole."""

import math

import pytest

from mrmt3.inference.benchmark import Timing


@pytest.mark.parametrize(
  ('total', 'log_mel', 'encoder', 'decoder', 'shares'),
  [
    (4.0, 1.0, 1.0, 1.0, [0.25, 0.25, 0.25, 0.25]),
    (2.0, 1.0, 3.0, 0.0, [0.25, 0.75, 0.0, 0.0]),  # the parts alone take longer than the whole
  ],
)
def test_shares_sum_to_one(total, log_mel, encoder, decoder, shares):
  timing = Timing(10.0, total, log_mel, encoder, decoder, 100)
  assert list(timing.shares().values()) == shares
  assert math.isclose(sum(timing.shares().values()), 1)


def test_token_rate():
  assert Timing(10.0, 4.0, 1.0, 1.0, 2.0, 100).tokens_per_second == 50
  assert Timing(10.0, 4.0, 1.0, 3.0, 0.0, 100).tokens_per_second is None
  assert Timing(10.0, 4.0, 1.0, 1.0, 2.0, 0).tokens_per_second is None
