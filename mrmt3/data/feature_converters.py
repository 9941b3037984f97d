"""seqio feature converters: from a task's features to what the network is called with."""

import seqio
import tensorflow as tf


def _pad(x, length: int | None):
  """Returns `x` `[n, ...]` padded with 0 to `[length, ...]`; None leaves it. TensorFlow's error where it is longer."""
  if length is None or x.shape[0] == length:
    return x
  padded = tf.pad(x, [[0, length - tf.shape(x)[0]]] + [[0, 0]] * (len(x.shape) - 1))
  return tf.ensure_shape(padded, [length, *x.shape[1:]])


class ContinuousInputsEncDecFeatureConverter(seqio.FeatureConverter):
  """Spectrogram frames in, tokens out (as MT3).

  Task features inputs `[frames, mel]` float32 and targets `[length]` int32 become encoder_input_tokens `[frames, mel]`
  (padded with zeros), decoder_target_tokens, decoder_input_tokens (shifted right, start token 0) and
  decoder_loss_weights `[length]` (1 at every token that is not padding). Packing is not supported.
  """

  FeatureSpec = seqio.FeatureConverter.FeatureSpec
  TASK_FEATURES = {'inputs': FeatureSpec(dtype=tf.float32, rank=2), 'targets': FeatureSpec(dtype=tf.int32)}
  MODEL_FEATURES = {
    'encoder_input_tokens': FeatureSpec(dtype=tf.float32, rank=2),
    'decoder_target_tokens': FeatureSpec(dtype=tf.int32),
    'decoder_input_tokens': FeatureSpec(dtype=tf.int32),
    'decoder_loss_weights': FeatureSpec(dtype=tf.int32),
  }
  PACKING_FEATURE_DTYPES = None

  def __init__(self, pack: bool = False, **kwargs):
    """Raises ValueError with `pack`: a segment's frames cannot share an example."""
    if pack:
      raise ValueError('packing is not supported with continuous inputs; set pack = False')
    # What is too long cannot be padded, which is an error; looking at lengths would be two more steps for each example.
    super().__init__(pack=False, **{'apply_length_check': False, **kwargs})

  def _model_features(self, features):
    targets = features['targets']
    return {
      'encoder_input_tokens': features['inputs'],
      'decoder_target_tokens': targets,
      'decoder_input_tokens': tf.concat([[self.bos_id], targets[:-1]], axis=0),
      'decoder_loss_weights': tf.cast(targets > 0, tf.int32),
    }

  def _task_features(self, features):
    return {name: features[name] for name in self.TASK_FEATURES}

  def _convert_features(self, ds, task_feature_lengths):
    """Pads, then renames, in one step; see the class."""

    def convert(example):
      features = self._task_features(example)
      return self._model_features({name: _pad(x, task_feature_lengths.get(name)) for name, x in features.items()})

    return ds.map(convert)

  def get_model_feature_lengths(self, task_feature_lengths):
    """Returns the padded length of each model feature."""
    decoder = dict.fromkeys(
      list(ContinuousInputsEncDecFeatureConverter.MODEL_FEATURES)[1:], task_feature_lengths['targets']
    )
    return {'encoder_input_tokens': task_feature_lengths['inputs'], **decoder}


class MemoryFeatureConverter(ContinuousInputsEncDecFeatureConverter):
  """As its base, with the tokens of prior segments: prior_targets `[length]` int32 becomes prior_tokens.

  encoder_input_frames `[1]` int32 says how many frames were there before padding: a model that computes log-mels from
  samples has to clear the others after the log. example_id `[3]` int64 says which example it is, see `preprocessors`; -1 where a
  task does not say.
  """

  FeatureSpec = seqio.FeatureConverter.FeatureSpec
  TASK_FEATURES = {
    **ContinuousInputsEncDecFeatureConverter.TASK_FEATURES,
    'prior_targets': FeatureSpec(dtype=tf.int32),
  }
  MODEL_FEATURES = {
    **ContinuousInputsEncDecFeatureConverter.MODEL_FEATURES,
    'prior_tokens': FeatureSpec(dtype=tf.int32),
    'encoder_input_frames': FeatureSpec(dtype=tf.int32),
    'example_id': FeatureSpec(dtype=tf.int64),
  }

  def _task_features(self, features):
    return {
      **super()._task_features(features),
      'encoder_input_frames': tf.shape(features['inputs'])[:1],
      'example_id': features.get('example_id', tf.constant([-1, -1, -1], tf.int64)),
    }

  def _model_features(self, features):
    return {
      **super()._model_features(features),
      'prior_tokens': features['prior_targets'],
      'encoder_input_frames': features['encoder_input_frames'],
      'example_id': features['example_id'],
    }

  def get_model_feature_lengths(self, task_feature_lengths):
    """Returns the padded length of each model feature."""
    lengths = super().get_model_feature_lengths(task_feature_lengths)
    return {
      **lengths,
      'prior_tokens': task_feature_lengths['prior_targets'],
      'encoder_input_frames': 1,
      'example_id': 3,
    }


class PredictedPriorFeatureConverter(MemoryFeatureConverter):
  """As its base, with the inputs of the prior segment, of which the model predicts prior tokens itself.

  prior_inputs `[frames, depth]` float32 becomes prior_input_tokens, prior_input_frames `[1]` as encoder_input_frames; 0
  where there is no prior segment.
  """

  FeatureSpec = seqio.FeatureConverter.FeatureSpec
  TASK_FEATURES = {**MemoryFeatureConverter.TASK_FEATURES, 'prior_inputs': FeatureSpec(dtype=tf.float32, rank=2)}
  MODEL_FEATURES = {
    **MemoryFeatureConverter.MODEL_FEATURES,
    'prior_input_tokens': FeatureSpec(dtype=tf.float32, rank=2),
    'prior_input_frames': FeatureSpec(dtype=tf.int32),
  }

  def _task_features(self, features):
    return {**super()._task_features(features), 'prior_input_frames': tf.shape(features['prior_inputs'])[:1]}

  def _model_features(self, features):
    return {
      **super()._model_features(features),
      'prior_input_tokens': features['prior_inputs'],
      'prior_input_frames': features['prior_input_frames'],
    }

  def get_model_feature_lengths(self, task_feature_lengths):
    """Returns the padded length of each model feature."""
    lengths = super().get_model_feature_lengths(task_feature_lengths)
    return {**lengths, 'prior_input_tokens': task_feature_lengths['prior_inputs'], 'prior_input_frames': 1}


BUCKET = 8


class PieceFeatureConverter(seqio.FeatureConverter):
  """All segments of a piece as one example.

  Task features inputs `[segments, frames, depth]` float32 (log-mel or samples) and targets `[segments, length]` int32 become
  encoder_input_tokens `[n, frames, depth]`, decoder_target_tokens, decoder_input_tokens (each row shifted right, start token 0)
  and decoder_loss_weights `[n, length]`, padded with zeros, num_segments `[1]`, and encoder_input_frames `[n]`: the frames
  of each segment that are not padding, the task's feature valid_frames, where it has none all.

  Args:
    pack: must be False.
    segments: n of every piece, where all examples must have one shape (as t5x asks); a longer piece is an error. None
      takes the next multiple of `bucket`.
    bucket: see segments; larger ones compile less and compute more.
  """

  FeatureSpec = seqio.FeatureConverter.FeatureSpec
  TASK_FEATURES = {'inputs': FeatureSpec(dtype=tf.float32, rank=3), 'targets': FeatureSpec(dtype=tf.int32, rank=2)}
  MODEL_FEATURES = {
    'encoder_input_tokens': FeatureSpec(dtype=tf.float32, rank=3),
    'decoder_target_tokens': FeatureSpec(dtype=tf.int32, rank=2),
    'decoder_input_tokens': FeatureSpec(dtype=tf.int32, rank=2),
    'decoder_loss_weights': FeatureSpec(dtype=tf.int32, rank=2),
    'encoder_input_frames': FeatureSpec(dtype=tf.int32),
    'num_segments': FeatureSpec(dtype=tf.int32),
  }
  PACKING_FEATURE_DTYPES = None

  def __init__(self, pack: bool = False, segments: int | None = None, bucket: int = BUCKET, **kwargs):
    if pack:
      raise ValueError('packing is not supported with whole pieces; set pack = False')
    super().__init__(pack=False, **{'apply_length_check': False, **kwargs})
    self._segments, self._bucket = segments, bucket

  def _convert_features(self, ds, task_feature_lengths):
    del task_feature_lengths
    # One after the other: a piece takes tens of megabytes, and many in preparation would take all memory.
    return ds.map(self._convert_piece, num_parallel_calls=1)

  def _convert_piece(self, features):
    inputs, targets = features['inputs'], features['targets']
    count = tf.shape(inputs)[0]
    size = self._segments or -(-count // self._bucket) * self._bucket
    message = f'a piece has more segments than PieceFeatureConverter.segments = {self._segments}'
    with tf.control_dependencies([tf.debugging.assert_less_equal(count, size, message)]):
      more = size - count
    frames = features.get('valid_frames')
    frames = tf.fill([count], tf.shape(inputs)[1]) if frames is None else tf.cast(frames, tf.int32)
    frames = tf.pad(frames, [[0, more]])
    inputs = tf.pad(inputs, [[0, more], [0, 0], [0, 0]])
    targets = tf.pad(targets, [[0, more], [0, 0]])
    if self._segments:
      inputs = tf.ensure_shape(inputs, [self._segments, None, None])
      targets = tf.ensure_shape(targets, [self._segments, None])
      frames = tf.ensure_shape(frames, [self._segments])
    return {
      'encoder_input_tokens': inputs,
      'decoder_target_tokens': targets,
      'decoder_input_tokens': tf.pad(targets[:, :-1], [[0, 0], [1, 0]], constant_values=self.bos_id),
      'decoder_loss_weights': tf.cast(targets > 0, tf.int32),
      'encoder_input_frames': frames,
      'num_segments': count[None],
    }

  def get_model_feature_lengths(self, task_feature_lengths):
    """Returns None for each model feature: lengths follow from the piece."""
    del task_feature_lengths
    return dict.fromkeys(self.MODEL_FEATURES)


class PieceOrSegmentFeatureConverter(PieceFeatureConverter):
  """Whole pieces as PieceFeatureConverter, single segments as another converter; told by the rank of the task's inputs.

  So one model can be trained on segments and evaluated on pieces by t5x's `train`, which asks a model for one converter.

  Args:
    segment_converter_cls: a seqio.FeatureConverter class for tasks whose inputs are `[frames, depth]`.
    **kwargs: as PieceFeatureConverter's; of single segments only `pack` counts.
  """

  def __init__(self, segment_converter_cls, **kwargs):
    super().__init__(**kwargs)
    self._segment_converter_cls = segment_converter_cls

  def __call__(self, ds, task_feature_lengths):
    """Returns the model features of a dataset of task features."""
    if ds.element_spec['inputs'].shape.rank == 2:
      return self._segment_converter_cls(pack=False)(ds, task_feature_lengths)
    return super().__call__(ds, task_feature_lengths)
