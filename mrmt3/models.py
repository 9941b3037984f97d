"""Models for training: MT3's encoder-decoder over spectrogram frames, and MR-MT3's with a memory of a prior segment."""

from mrmt3.config import ModelSpec
from mrmt3.engine.names import t5x_module

_t5x_models = t5x_module('models')


class ContinuousInputsEncoderDecoderModel(_t5x_models.EncoderDecoderModel):
  """Encoder-decoder with spectrogram frames as inputs (as MT3)."""

  @property
  def FEATURE_CONVERTER_CLS(self):
    """The seqio feature converter's class; seqio is imported here, so that decoding can do without."""
    from mrmt3 import feature_converters

    return feature_converters.ContinuousInputsEncDecFeatureConverter

  def call_arguments(self, batch) -> tuple:
    """Returns the positional arguments of the network for a batch."""
    return batch['encoder_input_tokens'], batch['decoder_input_tokens'], batch['decoder_target_tokens']

  def get_initial_variables(self, rng, input_shapes, input_types=None):
    """Returns fresh variables of the network for batches of the given shapes and dtypes."""
    import jax.numpy as jnp

    types = input_types or {}
    batch = {name: jnp.zeros(shape, types.get(name, jnp.float32)) for name, shape in input_shapes.items()}
    return self.module.init({'params': rng}, *self.call_arguments(batch), enable_dropout=False)

  def _compute_logits(self, params, batch, dropout_rng=None, mutable=False, other_variables=None):
    rngs = {} if dropout_rng is None else {'dropout': dropout_rng}
    variables = {'params': params, **(other_variables or {})}
    return self.module.apply(
        variables, *self.call_arguments(batch), enable_dropout=dropout_rng is not None, rngs=rngs, mutable=mutable
    )


class MemoryEncoderDecoderModel(ContinuousInputsEncoderDecoderModel):
  """MR-MT3: the decoder also attends to a memory of the tokens of a prior segment (paper, section 3).

  Args:
    spec: network, front end and vocabulary; stored in every checkpoint, so that one folder is all that
      `mrmt3 transcribe` needs. With spec.network.memory_length 0 this is MT3 and the prior tokens are not looked at.
    optimizer_def: how to update the parameters.
    **kwargs: as EncoderDecoderModel's.
  """

  def __init__(self, spec: ModelSpec, optimizer_def=None, **kwargs):
    from mrmt3.network import Transformer

    super().__init__(Transformer(spec.network), optimizer_def=optimizer_def, **kwargs)
    self.spec = spec

  @property
  def FEATURE_CONVERTER_CLS(self):
    """The seqio feature converter's class."""
    from mrmt3 import feature_converters

    return feature_converters.MemoryFeatureConverter

  def call_arguments(self, batch) -> tuple:
    """Returns the positional arguments of the network for a batch."""
    prior_tokens = batch['prior_tokens'] if self.spec.network.memory_length else None
    return (*super().call_arguments(batch), prior_tokens)

  @property
  def token_types(self):
    """Kinds of tokens whose accuracy is reported apart: name -> (first model id, last model id)."""
    from mrmt3 import vocabularies

    return vocabularies.token_types(vocabularies.build_codec(self.spec.vocabulary))
