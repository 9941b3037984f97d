"""SplitMix64 (Steele, Lea and Flood, 2014): well-mixed 64-bit integers from a counter, in numpy and in TensorFlow.

Output n (from 1) of the generator with seed s is `mix(s + increment(n))`, all modulo 2**64.
"""

import numpy as np

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, odd
_SHIFTS_AND_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


def increment(outputs: int) -> int:
  """Return by how much the state grows over that many outputs, 0..2**64 - 1."""
  return outputs * _GOLDEN_GAMMA % 2**64


def mix(x: np.ndarray) -> np.ndarray:
  """Return the output of each state, uint64 of the shape of `x` (uint64)."""
  with np.errstate(over='ignore'):  # numpy warns where scalars wrap around
    for shift, factor in _SHIFTS_AND_FACTORS:
      x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(_LAST_SHIFT))


def first_output(seed: np.ndarray) -> np.ndarray:
  """Return the first output of the generator of each seed, uint64 of the shape of `seed` (uint64)."""
  with np.errstate(over='ignore'):
    return mix(seed + np.uint64(increment(1)))


def mix_tensor(x):
  """Return what `mix` does, for a uint64 tensor. Imports TensorFlow."""
  import tensorflow as tf

  for shift, factor in _SHIFTS_AND_FACTORS:
    x = (x ^ tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64))) * tf.constant(factor, tf.uint64)
  return x ^ tf.bitwise.right_shift(x, tf.constant(_LAST_SHIFT, tf.uint64))
