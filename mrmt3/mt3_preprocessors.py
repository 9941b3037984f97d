"""MT3's seqio preprocessors over its own examples (audio frames and a piece's tokens with an index by frame).

`preprocessors` has their names as well. Imports TensorFlow.
"""

from collections.abc import Mapping, Sequence

import seqio
import tensorflow as tf

import gin
from mrmt3 import spectrograms
from mrmt3.event_codec import Codec
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import PROGRAM_GRANULARITIES


def add_unique_id(ds: tf.data.Dataset) -> tf.data.Dataset:
  """Adds unique_id `[1]`, the number of the example."""
  return ds.enumerate().map(lambda i, example: {**example, 'unique_id': [i]}, num_parallel_calls=tf.data.AUTOTUNE)


@seqio.map_over_dataset
def pad_notesequence_array(ex):
  """Makes `sequence` an array by frame, empty but for the first, so that it can be split with the frames."""
  count = tf.shape(ex['input_times'])[0]
  return {**ex, 'sequence': tf.concat([[ex['sequence']], tf.fill([count - 1], '')], axis=0)}


@seqio.map_over_dataset
def add_dummy_targets(ex):
  """Adds empty targets, which seqio wants even where metrics take the notes."""
  return {**ex, 'targets': tf.zeros([0], tf.int32)}


def _as_keys(keys: Sequence[str] | None) -> list[str]:
  return list(keys or ())


def split_tokens(
  dataset: tf.data.Dataset,
  max_tokens_per_segment: int,
  feature_key: str = 'targets',
  additional_feature_keys: Sequence[str] | None = None,
  passthrough_feature_keys: Sequence[str] | None = None,
) -> tf.data.Dataset:
  """Cuts an example into consecutive ones of `max_tokens_per_segment`, the last one perhaps shorter.

  Args:
    dataset: the examples; empty ones are dropped.
    max_tokens_per_segment: length.
    feature_key: feature that decides the number of segments, cut along its first axis.
    additional_feature_keys: cut with it.
    passthrough_feature_keys: kept whole in every segment. All other features are dropped.
  """
  length = max_tokens_per_segment
  cut = [feature_key, *_as_keys(additional_feature_keys)]

  @seqio.map_over_dataset(num_seeds=1)
  def split(example, seed):
    del seed  # T5's takes one as well: so what follows draws what it draws in MT3
    count = -(-tf.shape(example[feature_key], tf.int64)[0] // length)
    whole = {key: example[key] for key in _as_keys(passthrough_feature_keys)}

    def segment(index):
      return {**whole, **{key: example[key][index * length : (index + 1) * length] for key in cut}}

    return tf.data.Dataset.range(count).map(segment)

  return split(dataset).flat_map(lambda segments: segments)


def split_tokens_to_inputs_length(dataset, sequence_length, output_features, **kwargs) -> tf.data.Dataset:
  """As `split_tokens`, with segments of the inputs' length, one less if they end with EOS."""
  return split_tokens(dataset, _room(sequence_length, output_features, 'inputs'), **kwargs)


def select_random_chunk(
  dataset: tf.data.Dataset,
  sequence_length: Mapping[str, int],
  output_features: Mapping[str, seqio.Feature],
  feature_key: str = 'targets',
  additional_feature_keys: Sequence[str] | None = None,
  passthrough_feature_keys: Sequence[str] | None = None,
  uniform_random_start: bool = False,
) -> tf.data.Dataset:
  """Cuts one segment out of each example, at random.

  Args:
    dataset: the examples; empty ones are dropped.
    sequence_length: gives the segment's length, that of `feature_key`, one less if it ends with EOS.
    output_features: tells whether it does.
    feature_key: feature that decides the number of places, cut along its first axis.
    additional_feature_keys: cut with it.
    passthrough_feature_keys: kept whole. All other features are dropped.
    uniform_random_start: True: any segment that overlaps the example, cut short at its ends, each start as likely. False:
      one of the consecutive ones that begin at 0.
  """
  length = _room(sequence_length, output_features, feature_key)
  keys = [feature_key, *_as_keys(additional_feature_keys)]

  @seqio.map_over_dataset(num_seeds=1)
  def select(example, seed):
    count = tf.shape(example[feature_key])[0]
    seed = tf.random.experimental.stateless_split(seed)[1]  # which T5 draws the start from
    if uniform_random_start:
      start = tf.random.stateless_uniform([], seed, 1 - length, count, tf.int32)
    else:
      start = length * tf.random.stateless_uniform([], seed, 0, -(-count // length), tf.int32)
    first, last = tf.maximum(start, 0), tf.minimum(start + length, count)
    whole = {key: example[key] for key in _as_keys(passthrough_feature_keys)}
    return {**whole, **{key: example[key][first:last] for key in keys}}

  return select(dataset.filter(lambda example: tf.size(example[feature_key]) > 0))


def _room(sequence_length, output_features, key) -> int:
  """Returns how long a feature may be before its EOS."""
  return sequence_length[key] - bool(output_features[key].add_eos)


@seqio.map_over_dataset
def compute_spectrograms(ex, spectrogram_config: SpectrogramConfig):
  """Replaces inputs `[frames, hop]` samples by log-mel `[frames, mel]`; adds raw_inputs `[samples]`."""
  samples = spectrograms.flatten_frames(ex['inputs'])
  return {**ex, 'inputs': spectrograms.compute_spectrogram(samples, spectrogram_config), 'raw_inputs': samples}


def handle_too_long(
  dataset: tf.data.Dataset,
  output_features: seqio.preprocessors.OutputFeaturesType,
  sequence_length: seqio.preprocessors.SequenceLengthType,
  skip: bool = False,
) -> tf.data.Dataset:
  """Leaves out, with `skip`, examples with a feature longer than its length; without it they are an error that names it."""

  def sizes(example):
    return [
      (key, tf.shape(example[key])[0], _room(sequence_length, output_features, key))
      for key in output_features
      if key in example
    ]

  def fits(example):
    return tf.reduce_all([size <= room for _, size, room in sizes(example)])

  def check(example):
    checks = [
      tf.debugging.Assert(size <= room, [f'{key} exceeds its maximum length {room}; it is', size])
      for key, size, room in sizes(example)
    ]
    with tf.control_dependencies(checks):
      return {key: tf.identity(value) for key, value in example.items()}

  if skip:
    return dataset.filter(fits)
  return dataset.map(check, num_parallel_calls=tf.data.AUTOTUNE)


@gin.configurable(module='mrmt3.preprocessors')
def map_midi_programs(
  ds: tf.data.Dataset, codec: Codec, granularity_type: str = 'full', feature_key: str = 'targets'
) -> tf.data.Dataset:
  """Makes the programs in a feature of regular ids as coarse as one of `vocabularies.PROGRAM_GRANULARITIES`."""
  granularity = PROGRAM_GRANULARITIES[granularity_type]

  def change(example):
    return {**example, feature_key: granularity.tokens_map_fn(example[feature_key], codec)}

  return ds.map(change, num_parallel_calls=tf.data.AUTOTUNE)
