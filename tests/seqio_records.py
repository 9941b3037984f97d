"""Records as the preprocessors of our tasks take them."""

import numpy as np
import tensorflow as tf


def records(count: int, **fields) -> tf.data.Dataset:
  """Return `count` records with different seeds, like those of `SegmentSource`, of a piece and chunk of 3200 frames.

  Args:
    count: number of records.
    **fields: further fields, or other values.
  """
  base = {'chunk_start': 0, 'chunk_end': 3200, 'frames': 3200, **fields}
  base = {name: np.int32(value) for name, value in base.items()}
  seeds = tf.data.Dataset.random(seed=7).batch(2, drop_remainder=True).take(count)
  return seeds.map(lambda seed: {**base, 'seed': seed})
