"""Models for training: MT3's encoder-decoder over spectrogram frames, and MR-MT3's with a memory of a prior segment."""

import copy
from collections.abc import Sequence
from typing import Any, Protocol

from mrmt3.config import ModelSpec
from mrmt3.data.example_config import LOG_MEL_ON
from mrmt3.engine.names import is_own_engine, t5x_module
from mrmt3.errors import UserError
from mrmt3.nn import parameters

_t5x_models = t5x_module('models')


class _ConverterOnDemand:
  """A seqio feature converter's class; seqio is imported when it is looked at, so that decoding can do without."""

  def __get__(self, model, model_class):
    from mrmt3.data import feature_converters

    return feature_converters.ContinuousInputsEncDecFeatureConverter


class ContinuousInputsEncoderDecoderModel(_t5x_models.EncoderDecoderModel):
  """Encoder-decoder with spectrogram frames as inputs (as in MT3).

  Args:
    module: the network, `network.Transformer` or another that is called as it is.
    input_vocabulary: vocabulary of the inputs, or None.
    output_vocabulary: vocabulary of the targets, or None.
    optimizer_def: how to update the parameters; None for evaluation only.
    input_depth: values an input frame has, for callers that give shapes of inputs without it.
    decode_fn: searches for the best tokens; None: beam search.
    **kwargs: as EncoderDecoderModel's: label_smoothing, z_loss, loss_normalizing_factor.
  """

  FEATURE_CONVERTER_CLS = _ConverterOnDemand()

  def __init__(
    self,
    module,
    input_vocabulary=None,
    output_vocabulary=None,
    optimizer_def=None,
    input_depth: int | None = None,
    decode_fn=None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    loss_normalizing_factor=None,
    **kwargs,
  ):
    if decode_fn is not None:
      kwargs['decode_fn'] = decode_fn
    super().__init__(
      module,
      input_vocabulary,
      output_vocabulary,
      optimizer_def=optimizer_def,
      label_smoothing=label_smoothing,
      z_loss=z_loss,
      loss_normalizing_factor=loss_normalizing_factor,
      **kwargs,
    )
    self._input_depth = input_depth

  def call_arguments(self, batch) -> tuple:
    """Return the positional arguments of the network for a batch."""
    return batch['encoder_input_tokens'], batch['decoder_input_tokens'], batch['decoder_target_tokens']

  def call_keywords(self, batch) -> dict:
    """Return further arguments of the network for a batch."""
    return {}

  def get_initial_variables(self, rng, input_shapes, input_types=None):
    """Return fresh variables of the network for batches of the given shapes and dtypes."""
    import jax.numpy as jnp

    types = input_types or {}
    shapes = dict(input_shapes)
    if len(shapes['encoder_input_tokens']) == 2 and self._input_depth is not None:
      shapes['encoder_input_tokens'] = (*shapes['encoder_input_tokens'], self._input_depth)
    shapes.pop('example_id', None)  # not for networks
    batch = {name: jnp.zeros(shape, types.get(name, jnp.float32)) for name, shape in shapes.items()}
    return self.module.init(
      {'params': rng}, *self.call_arguments(batch), **self.call_keywords(batch), enable_dropout=False
    )

  def _compute_logits(self, params, batch, dropout_rng=None, mutable=False, other_variables=None):
    rngs = {} if dropout_rng is None else {'dropout': dropout_rng}
    variables = {'params': params, **(other_variables or {})}
    return self.module.apply(
      variables,
      *self.call_arguments(batch),
      **self.call_keywords(batch),
      enable_dropout=dropout_rng is not None,
      rngs=rngs,
      mutable=mutable,
    )


def _vocabularies(spec: ModelSpec) -> dict:
  """Return what the real t5x asks a model for and compares with the task's; ours asks nothing, so it needs no seqio."""
  import seqio

  from mrmt3 import vocabularies

  output = vocabularies.vocabulary_from_codec(vocabularies.build_codec(spec.vocabulary))
  return {'input_vocabulary': seqio.PassThroughVocabulary(size=0), 'output_vocabulary': output}


class Objective(Protocol):
  """What training minimises instead of the loss of the tokens alone; see `framewise.FrameObjective`."""

  def module_options(self, spec: ModelSpec) -> dict:
    """Return arguments of `NetworkConfig.module` for training."""

  def loss_fn(self, model, token_loss, params, batch, dropout_rng) -> tuple[Any, dict]:
    """Return (loss, sums); `token_loss` is a function of logits that returns those of the tokens."""


class MemoryEncoderDecoderModel(ContinuousInputsEncoderDecoderModel):
  """A model of a `ModelSpec`: MR-MT3, or another network of `model_registry`.

  Args:
    spec: network, front end and vocabulary; stored in every checkpoint, so that one folder is all that
      `mrmt3 transcribe` needs. A `network.T5Config` with memory_length 0 is MT3, and prior tokens are ignored.
    optimizer_def: how to update the parameters.
    log_mel_on: 'host', or 'device' where the task gives raw samples (as its ExampleConfig.log_mel_on).
    predicted_prior: probability that an example's prior tokens, in training, are not the truth but what the network
      itself predicts for the prior segment, with an empty memory (scheduled sampling; paper: 0). The task must have
      prior_inputs. Each such step decodes greedily: count on several times the time of a step without.
    objective: what is minimised, an `Objective`; None: the loss of the tokens.
    augmentation: how inputs are changed in training, see `augmentation`; None: not at all.
    length_multiple: training batches are cut to the longest target in them, rounded up to so many tokens; 0: not at
      all. Each length is compiled once. With `ExampleConfig.length_block` most batches are short. (Not under the real
      t5x, nor with several hosts.)
    remat: compute the inside of each layer again for the gradient instead of keeping it: about a third more work, a
      fraction of the memory (docs/scaling.md).
    frozen: parts of the parameters that training leaves as they are, such as 'encoder' or 'note_reader/events'; their
      gradients are not computed. Only an optimizer's weight decay would still shrink them: bind it to 0.
    fresh: parts of the parameters that the checkpoint a run starts from (`RestoreCheckpointConfig.path`) may lack: they
      start fresh, which the log notes. So a decoder is put behind an encoder that was trained without one. (Not under
      the real t5x.)
    **kwargs: as EncoderDecoderModel's.

  Raises:
    UserError: for values out of range.
  """

  def __init__(
    self,
    spec: ModelSpec,
    optimizer_def=None,
    log_mel_on: str = 'host',
    predicted_prior: float = 0.0,
    objective: Objective | None = None,
    augmentation=None,
    length_multiple: int = 0,
    remat: bool = False,
    frozen: Sequence[str] = (),
    fresh: Sequence[str] = (),
    **kwargs,
  ):
    if log_mel_on not in LOG_MEL_ON:
      raise UserError(f'MemoryEncoderDecoderModel.log_mel_on is {log_mel_on!r}; it is one of {", ".join(LOG_MEL_ON)}')
    if not 0 <= predicted_prior <= 1:
      raise UserError(f'MemoryEncoderDecoderModel.predicted_prior is {predicted_prior!r}; it is a probability, 0 to 1')
    if predicted_prior and (not spec.network.uses_prior or spec.network.num_prior_segments > 1):
      raise UserError('MemoryEncoderDecoderModel.predicted_prior needs a network with a memory of one prior segment')
    vocabularies = _vocabularies(spec) if not is_own_engine() else {}
    self._module_options = {} if objective is None else objective.module_options(spec)
    module = spec.module(remat=remat, **self._module_options)
    super().__init__(module, optimizer_def=optimizer_def, **vocabularies, **kwargs)
    self.spec = spec
    self._objective = objective
    self._augmentation = augmentation
    self._length_multiple = length_multiple
    self._frozen = (frozen,) if isinstance(frozen, str) else tuple(frozen)
    self.fresh = (fresh,) if isinstance(fresh, str) else tuple(fresh)
    self._check_parts('frozen', self._frozen)
    self._check_parts('fresh', self.fresh)
    self._log_mel_on = log_mel_on
    self._predicted_prior = predicted_prior

  @property
  def FEATURE_CONVERTER_CLS(self):
    """The seqio feature converter's class."""
    from mrmt3.data import feature_converters

    if self._predicted_prior:
      return feature_converters.PredictedPriorFeatureConverter
    return feature_converters.MemoryFeatureConverter

  def get_initial_variables(self, rng, input_shapes, input_types=None):
    """As ContinuousInputsEncoderDecoderModel's, with the start values that the network's config sets."""
    return self.initialized(super().get_initial_variables(rng, input_shapes, input_types))

  def initialized(self, variables):
    """Return fresh variables with the start values that the network's config sets (`NetworkConfig.initialize`)."""
    return {**variables, 'params': self.spec.network.initialize(variables['params'], self.spec)}

  def call_arguments(self, batch) -> tuple:
    """Return the positional arguments of the network for a batch."""
    _, decoder_inputs, targets = super().call_arguments(batch)
    inputs = self.network_inputs(batch['encoder_input_tokens'], batch.get('encoder_input_frames'))
    return inputs, decoder_inputs, targets

  def call_keywords(self, batch) -> dict:
    """Return further arguments of the network for a batch: the prior tokens, if it uses them."""
    return {'prior_tokens': batch['prior_tokens']} if self.spec.network.uses_prior else {}

  def network_inputs(self, inputs, frames):
    """Return log-mel inputs `[batch, frames, mel]`: as they are, or computed of samples `[batch, frames, hop]`.

    `frames` `[batch, 1]`: how many frames of each example are not padding; None: the inputs are log-mels already.
    """
    if self._log_mel_on == 'host' or frames is None:
      return inputs
    from mrmt3 import spectrograms

    mel = spectrograms.log_mel(spectrograms.flatten_frames(inputs), self.spec.spectrogram)
    return spectrograms.clear_invalid_frames(mel, frames[:, 0])

  def predict_batch_with_aux(self, params, batch, *args, **kwargs):
    """As EncoderDecoderModel's; the inputs may be samples (`log_mel_on`)."""
    inputs = self.network_inputs(batch['encoder_input_tokens'], batch.get('encoder_input_frames'))
    return super().predict_batch_with_aux(params, {**batch, 'encoder_input_tokens': inputs}, *args, **kwargs)

  def loss_fn(self, params, batch, dropout_rng):
    """As EncoderDecoderModel's, or the objective's.

    In training (with a key), prior tokens are predicted where `predicted_prior` asks for it, and inputs augmented.
    """
    import jax

    params = self._without_gradient(params)
    if self._predicted_prior and dropout_rng is not None:
      dropout_rng, chance_rng = jax.random.split(dropout_rng)
      batch = {**batch, 'prior_tokens': self.predict_prior(params, batch, chance_rng)}
    if self._augmentation is not None and dropout_rng is not None:
      dropout_rng, chance_rng = jax.random.split(dropout_rng)
      batch = self._augmented(batch, chance_rng)
    if self._objective is None:
      return super().loss_fn(params, batch, dropout_rng)

    def token_loss(logits):
      known = copy.copy(self)  # so that either engine computes its loss as usual, without a second pass of the network
      known._compute_logits = lambda *_, **__: logits
      return super(MemoryEncoderDecoderModel, known).loss_fn(params, batch, dropout_rng)

    return self._objective.loss_fn(self, token_loss, params, batch, dropout_rng)

  @property
  def loss_normalizing_factor(self):
    """What the real t5x divides the loss by."""
    return self._loss_normalizing_factor

  def _check_parts(self, argument, names):
    """Raise UserError for a name that is no part of the parameters."""
    if not names:
      return
    shapes = self.spec.parameter_shapes(**self._module_options)
    every = parameters.paths(shapes)
    for name in names:
      # A study names once what may be fresh, for networks that differ.
      if argument == 'fresh' and name in self.spec.network.optional_parts:
        continue
      if not any(parameters.is_part(path, name) for path in every):
        raise UserError(
          f'MemoryEncoderDecoderModel.{argument} has {name!r}, which is no part of the parameters; parts are '
          f'{", ".join(shapes)}, and theirs'
        )

  def _without_gradient(self, params):
    """Return the parameters, those that are `frozen` as constants."""
    import jax

    if not self._frozen:
      return params

    def hold(keys, x):
      path = jax.tree_util.keystr(keys, simple=True, separator='/')
      return jax.lax.stop_gradient(x) if any(parameters.is_part(path, name) for name in self._frozen) else x

    return jax.tree_util.tree_map_with_path(hold, params)

  def _augmented(self, batch, rng):
    batch = dict(batch)
    frames = batch.pop('encoder_input_frames', None)
    inputs = self.network_inputs(batch['encoder_input_tokens'], frames)
    return {**batch, 'encoder_input_tokens': self._augmentation(inputs, frames, rng, self.spec.spectrogram)}

  def trim_batch(self, batch):
    """Return a batch (numpy arrays) without the padding that all its targets share; see `length_multiple`."""
    import numpy as np

    if not self._length_multiple:
      return batch
    targets = batch['decoder_target_tokens']
    longest = int(np.flatnonzero((targets > 0).any(axis=0)).max(initial=0)) + 1
    length = -(-longest // self._length_multiple) * self._length_multiple
    return {name: x[:, :length] if name.startswith('decoder_') else x for name, x in batch.items()}

  def predict_prior(self, params, batch, rng):
    """Return prior tokens `[batch, length]`; for random rows, what the network predicts for the prior segment."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mrmt3 import vocabularies
    from mrmt3.decoding import greedy
    from mrmt3.tokens import segment_targets

    truth = batch['prior_tokens']
    has_prior = batch['prior_input_frames'][:, 0] > 0
    chosen = has_prior & (jax.random.uniform(rng, has_prior.shape) < self._predicted_prior)
    empty = segment_targets.empty_segment(vocabularies.build_codec(self.spec.vocabulary))
    memory = jnp.zeros_like(truth).at[:, : len(empty)].set(np.asarray(empty))

    def predict(params):
      inputs = self.network_inputs(batch['prior_input_tokens'], batch['prior_input_frames'])
      return greedy.transcribe_segments(
        params, inputs, {'prior_tokens': memory}, chosen, spec=self.spec, max_length=truth.shape[1]
      )

    # No gradient flows through predicted tokens.
    predicted = jax.lax.cond(chosen.any(), predict, lambda _: truth, jax.lax.stop_gradient(params))
    return jnp.where(chosen[:, None], jax.lax.stop_gradient(predicted), truth)

  @property
  def token_types(self):
    """Kinds of tokens whose accuracy is reported apart: name -> (first model id, last model id)."""
    from mrmt3 import vocabularies

    return vocabularies.token_types(vocabularies.build_codec(self.spec.vocabulary))


def __getattr__(name: str):
  if name == 'ContinuousInputsEncDecFeatureConverter':  # MT3 has it here; imports seqio
    from mrmt3.data import feature_converters

    return feature_converters.ContinuousInputsEncDecFeatureConverter
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
