"""mrmt3.utils.splitmix64: the published sequence, and TensorFlow's variant equal to numpy's."""

import numpy as np
import pytest

from mrmt3.utils import splitmix64

# The first outputs for the seed 1234567, as listed for other implementations.
PUBLISHED = [
  6457827717110365317,
  3203168211198807973,
  9817491932198370423,
  4593380528125082431,
  16408922859458223821,
]


def test_outputs_are_the_published_ones():
  states = np.array([(1234567 + splitmix64.increment(n)) % 2**64 for n in range(1, 6)], np.uint64)
  assert splitmix64.mix(states).tolist() == PUBLISHED
  assert int(splitmix64.first_output(np.uint64(1234567))) == PUBLISHED[0]


@pytest.mark.filterwarnings('error')
def test_scalars_wrap_around_without_a_warning():
  assert splitmix64.first_output(np.uint64(2**64 - 1)).dtype == np.uint64


def test_tensorflow_gives_the_same():
  tf = pytest.importorskip('tensorflow')
  states = np.random.default_rng(0).integers(0, 2**64, (3, 50), np.uint64)
  np.testing.assert_array_equal(splitmix64.mix_tensor(tf.constant(states)).numpy(), splitmix64.mix(states))
