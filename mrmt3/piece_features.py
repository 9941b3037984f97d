"""The seqio feature converter of whole pieces: what a model that carries a memory from segment to segment evaluates."""

import seqio
import tensorflow as tf

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
