"""Random numbers that follow from the `seed` of a record alone, the same on every host and after a restart."""

import enum

import tensorflow as tf

from mrmt3.utils import splitmix64


class Stream(enum.IntEnum):
  """Independent random streams of a record, by what they decide. The numbers determine what is drawn."""

  WINDOW = 0
  HOP = 1
  MEMORY_DROPOUT = 2
  MIX = 3


def chance(record, stream: Stream):
  """Return float64 from 0 to 1 (exclusive), drawn from the record's seed; one number per record of a block.

  Args:
    record: with seed, int64 `[2]` or `[n, 2]`.
    stream: what the number is for.
  """
  # TensorFlow's own stateless draws take one seed per call.
  seed = tf.bitcast(record['seed'], tf.uint64)
  bits = splitmix64.mix_tensor(seed[..., 0] + tf.constant(splitmix64.increment(stream + 1), tf.uint64))
  bits = splitmix64.mix_tensor(bits ^ seed[..., 1])
  return tf.cast(tf.bitwise.right_shift(bits, tf.constant(11, tf.uint64)), tf.float64) * 2.0**-53


def uniform(record, stream: Stream, low, high):
  """Return int32 from low to high - 1, drawn from the record's seed; one number per record of a block."""
  width = tf.cast(high - low, tf.float64)
  return low + tf.cast(chance(record, stream) * width, tf.int32)
