"""Mixing the audio and the tokens of several examples (as in MT3; imports TensorFlow).

Our own tasks mix pieces before tokenization (`data.seqio_preprocessors.add_mix`). That needs no merging of tokens, and
it follows the data set's seed.
"""

from collections.abc import Sequence

import seqio
import tensorflow as tf

import gin
from mrmt3 import run_length_encoding
from mrmt3.event_codec import Codec


@gin.configurable
def mix_transcription_examples(
  ds: tf.data.Dataset,
  sequence_length: seqio.preprocessors.SequenceLengthType,
  output_features: seqio.preprocessors.OutputFeaturesType,
  codec: Codec,
  inputs_feature_key: str = 'inputs',
  targets_feature_keys: Sequence[str] = ('targets',),
  max_examples_per_mix: int | None = None,
  shuffle_buffer_size: int = seqio.SHUFFLE_BUFFER_SIZE,
) -> tf.data.Dataset:
  """Mix 1 to `max_examples_per_mix` examples into one; each number is equally likely.

  Args:
    ds: examples whose inputs are samples and whose targets are run-length encoded regular ids.
    sequence_length: unused; `handle_too_long` handles long targets.
    output_features: unused.
    codec: the codec of the targets.
    inputs_feature_key: feature that is summed and scaled to a peak of 1.
    targets_feature_keys: features that are merged, see `run_length_encoding.merge_run_length_encoded_targets`.
    max_examples_per_mix: maximum number of examples per mix; None does not mix.
    shuffle_buffer_size: total size of the shuffle buffers.

  Returns:
    A data set of mixes. Other features have one padded row per example in the mix.
  """
  del sequence_length, output_features
  if max_examples_per_mix is None:
    return ds
  buffer_size = shuffle_buffer_size // max_examples_per_mix
  mixes = tf.data.Dataset.sample_from_datasets(
    [ds.shuffle(buffer_size).padded_batch(count) for count in range(1, max_examples_per_mix + 1)]
  )

  def mix(example):
    samples = tf.reduce_sum(example[inputs_feature_key], axis=0)
    merged = {
      key: run_length_encoding.merge_run_length_encoded_targets(example[key], codec) for key in targets_feature_keys
    }
    return {**example, **merged, inputs_feature_key: tf.math.divide_no_nan(samples, tf.reduce_max(tf.abs(samples)))}

  return mixes.map(mix, num_parallel_calls=tf.data.AUTOTUNE)
