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
