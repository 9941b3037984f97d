"""seqio feature converters: from a task's features to the model's batch features."""

import seqio
import tensorflow as tf


def _pad(x, length: int | None):
  """Return `x` `[n, ...]` padded with 0 to `[length, ...]`; unchanged if `length` is None; longer `x` is an error."""
  if length is None or x.shape[0] == length:
    return x
  padded = tf.pad(x, [[0, length - tf.shape(x)[0]]] + [[0, 0]] * (len(x.shape) - 1))
  return tf.ensure_shape(padded, [length, *x.shape[1:]])


class ContinuousInputsEncDecFeatureConverter(seqio.FeatureConverter):
  """Spectrogram frames in, tokens out (as in MT3).

  Task features inputs `[frames, mel]` float32 and targets `[length]` int32 become encoder_input_tokens `[frames, mel]`
  (padded with zeros), decoder_target_tokens, decoder_input_tokens (shifted right, start token 0) and
  decoder_loss_weights `[length]` (1 for tokens, 0 for padding). Packing is not supported.
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
    """Raise ValueError with `pack`: a segment's frames cannot share an example."""
    if pack:
      raise ValueError('packing is not supported with continuous inputs; set pack = False')
    # Padding fails on features that are too long. seqio's length check would add two steps per example.
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
    """Pad and rename features in one map; see the class."""

    def convert(example):
      features = self._task_features(example)
      return self._model_features({name: _pad(x, task_feature_lengths.get(name)) for name, x in features.items()})

    return ds.map(convert)

  def get_model_feature_lengths(self, task_feature_lengths):
    """Return the padded length of each model feature."""
    decoder = dict.fromkeys(
      list(ContinuousInputsEncDecFeatureConverter.MODEL_FEATURES)[1:], task_feature_lengths['targets']
    )
    return {'encoder_input_tokens': task_feature_lengths['inputs'], **decoder}


class MemoryFeatureConverter(ContinuousInputsEncDecFeatureConverter):
  """Like its base class, with the tokens of prior segments: prior_targets `[length]` int32 becomes prior_tokens.

  encoder_input_frames `[1]` int32 is the number of frames before padding; a model that computes log-mels from samples
  clears the padding frames after the log. example_id `[3]` int64 identifies the example, see
  `seqio_preprocessors.add_targets_and_inputs`; it is -1 if the task has none.
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
    """Return the padded length of each model feature."""
    lengths = super().get_model_feature_lengths(task_feature_lengths)
    return {
      **lengths,
      'prior_tokens': task_feature_lengths['prior_targets'],
      'encoder_input_frames': 1,
      'example_id': 3,
    }


class PredictedPriorFeatureConverter(MemoryFeatureConverter):
  """Like its base class, with the inputs of the prior segment, from which the model predicts the prior tokens.

  prior_inputs `[frames, depth]` float32 becomes prior_input_tokens. prior_input_frames `[1]` int32 is its number of
  frames before padding, 0 without a prior segment.
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
    """Return the padded length of each model feature."""
    lengths = super().get_model_feature_lengths(task_feature_lengths)
    return {**lengths, 'prior_input_tokens': task_feature_lengths['prior_inputs'], 'prior_input_frames': 1}


BUCKET = 8


class PieceFeatureConverter(seqio.FeatureConverter):
  """All segments of a piece as one example.

  | task feature | model feature |
  |---|---|
  | inputs `[segments, frames, depth]` float32, log-mel or samples | encoder_input_tokens `[n, frames, depth]` |
  | targets `[segments, length]` int32 | decoder_target_tokens `[n, length]` |
  | | decoder_input_tokens `[n, length]`, each row shifted right, start token 0 |
  | | decoder_loss_weights `[n, length]`, 1 for tokens, 0 for padding |
  | valid_frames `[segments]`; all frames without it | encoder_input_frames `[n]`, frames that are not padding |
  | | num_segments `[1]` |

  Args:
    pack: must be False.
    segments: n of every piece, if all examples need one shape, as t5x requires; a longer piece is an error. None rounds
      up to a multiple of `bucket`.
    bucket: see `segments`. Larger buckets need fewer compilations and more computation.
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
    # One at a time: a piece takes tens of megabytes, and many in parallel could exhaust memory.
    return ds.map(self._convert_piece, num_parallel_calls=1)

  def _convert_piece(self, features):
    inputs, targets = features['inputs'], features['targets']
    count = tf.shape(inputs)[0]
    size = self._segments or -(-count // self._bucket) * self._bucket
    message = f'a piece has more segments than PieceFeatureConverter.segments = {self._segments}; raise it'
    with tf.control_dependencies([tf.debugging.assert_less_equal(count, size, message)]):
      padding = size - count
    frames = features.get('valid_frames')
    frames = tf.fill([count], tf.shape(inputs)[1]) if frames is None else tf.cast(frames, tf.int32)
    frames = tf.pad(frames, [[0, padding]])
    inputs = tf.pad(inputs, [[0, padding], [0, 0], [0, 0]])
    targets = tf.pad(targets, [[0, padding], [0, 0]])
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
    """Return None for each model feature, because lengths vary with the piece."""
    del task_feature_lengths
    return dict.fromkeys(self.MODEL_FEATURES)


class PieceOrSegmentFeatureConverter(PieceFeatureConverter):
  """Converts whole pieces like PieceFeatureConverter and single segments with another converter.

  The rank of the task's inputs decides. t5x's `train` asks a model for a single converter; this one lets it train on
  segments and evaluate on pieces.

  Args:
    segment_converter_cls: a seqio.FeatureConverter class for tasks whose inputs are `[frames, depth]`.
    **kwargs: arguments of PieceFeatureConverter; single segments use only `pack`.
  """

  def __init__(self, segment_converter_cls, **kwargs):
    super().__init__(**kwargs)
    self._segment_converter_cls = segment_converter_cls

  def __call__(self, ds, task_feature_lengths):
    """Return the model features of a dataset of task features."""
    if ds.element_spec['inputs'].shape.rank == 2:
      return self._segment_converter_cls(pack=False)(ds, task_feature_lengths)
    return super().__call__(ds, task_feature_lengths)
