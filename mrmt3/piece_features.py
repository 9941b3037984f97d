"""The seqio feature converter of whole pieces: what a model that carries a memory from segment to segment evaluates."""

import seqio
import tensorflow as tf

BUCKET = 8


class PieceFeatureConverter(seqio.FeatureConverter):
  """All segments of a piece as one example.

  Task features inputs `[segments, frames, mel]` float32 and targets `[segments, length]` int32 become
  encoder_input_tokens `[n, frames, mel]`, decoder_target_tokens, decoder_input_tokens (each row shifted right, start token 0)
  and decoder_loss_weights `[n, length]`, padded with zeros, and num_segments `[1]`.

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
    return ds.map(self._convert_piece, num_parallel_calls=tf.data.AUTOTUNE)

  def _convert_piece(self, features):
    inputs, targets = features['inputs'], features['targets']
    count = tf.shape(inputs)[0]
    size = self._segments or -(-count // self._bucket) * self._bucket
    message = f'a piece has more segments than PieceFeatureConverter.segments = {self._segments}'
    with tf.control_dependencies([tf.debugging.assert_less_equal(count, size, message)]):
      more = size - count
    inputs = tf.pad(inputs, [[0, more], [0, 0], [0, 0]])
    targets = tf.pad(targets, [[0, more], [0, 0]])
    if self._segments:
      inputs = tf.ensure_shape(inputs, [self._segments, None, None])
      targets = tf.ensure_shape(targets, [self._segments, None])
    return {
        'encoder_input_tokens': inputs,
        'decoder_target_tokens': targets,
        'decoder_input_tokens': tf.pad(targets[:, :-1], [[0, 0], [1, 0]], constant_values=self.bos_id),
        'decoder_loss_weights': tf.cast(targets > 0, tf.int32),
        'num_segments': count[None],
    }

  def get_model_feature_lengths(self, task_feature_lengths):
    """Returns None for each model feature: lengths follow from the piece."""
    del task_feature_lengths
    return dict.fromkeys(self.MODEL_FEATURES)
