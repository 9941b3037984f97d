"""The model interface that the train loop knows: a network with a loss, as t5x's EncoderDecoderModel."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from mrmt3.engine import losses, optimizers

EXAMPLE_LOSS = 'example_loss'


class EncoderDecoderModel:
  """An encoder-decoder network with teacher forcing.

  Subclasses bring FEATURE_CONVERTER_CLS (a seqio.FeatureConverter) and `call_arguments`.

  Args:
    module: Flax module that returns logits `[batch, length, vocabulary]`.
    input_vocabulary: vocabulary of the inputs, or None.
    output_vocabulary: vocabulary of the targets, or None.
    optimizer_def: how to update the parameters; None for evaluation only.
    label_smoothing: see `losses`.
    z_loss: see `losses`.
    loss_normalizing_factor: divides the summed loss; None leaves the sum (t5x's default), 'tokens' means the number of
      non-padding target tokens (MR-MT3's mean).
  """

  FEATURE_CONVERTER_CLS = None

  def __init__(
      self,
      module: nn.Module,
      input_vocabulary=None,
      output_vocabulary=None,
      optimizer_def: optimizers.OptimizerDef | None = None,
      label_smoothing: float = 0.0,
      z_loss: float = 0.0,
      loss_normalizing_factor: float | str | None = None,
  ):
    self.module = module
    self.input_vocabulary = input_vocabulary
    self.output_vocabulary = output_vocabulary
    self.optimizer_def = optimizer_def
    self._label_smoothing = label_smoothing
    self._z_loss = z_loss
    self._loss_normalizing_factor = loss_normalizing_factor

  def call_arguments(self, batch: Mapping[str, jax.Array]) -> tuple:
    """Returns the positional arguments of the module for a batch."""
    return batch['encoder_input_tokens'], batch['decoder_input_tokens'], batch['decoder_target_tokens']

  def get_initial_params(self, rng: jax.Array, batch: Mapping[str, jax.Array]):
    """Returns fresh parameters; `batch` is any batch of the right shapes."""
    initialise = jax.jit(lambda key, args: self.module.init({'params': key}, *args, enable_dropout=False)['params'])
    return initialise(rng, self.call_arguments(batch))

  def logits(self, params, batch: Mapping[str, jax.Array], dropout_rng: jax.Array | None = None) -> jax.Array:
    """Returns logits `[batch, length, vocabulary]`; dropout is on where a key is given."""
    rngs = {} if dropout_rng is None else {'dropout': dropout_rng}
    arguments = self.call_arguments(batch)
    return self.module.apply({'params': params}, *arguments, enable_dropout=dropout_rng is not None, rngs=rngs)

  def loss_fn(self, params, batch: Mapping[str, jax.Array], dropout_rng: jax.Array | None):
    """Returns (loss, sums): the summed loss, and sums over the batch of loss, z_loss, correct tokens and tokens.

    With `token_types`, the latter two for each type as well (`correct/TYPE`, `tokens/TYPE`). `example_loss` is the loss of
    every example, `[batch]`.

    What is minimised is the summed loss divided by `loss_normalizer(sums)`, also where a batch is summed in parts.
    """
    logits = self.logits(params, batch, dropout_rng)
    targets = batch['decoder_target_tokens']
    weights = batch.get('decoder_loss_weights')
    weights = (targets > 0 if weights is None else weights).astype(jnp.float32)
    token_loss, z_term = losses.cross_entropy_with_logits(
        logits, targets, label_smoothing=self._label_smoothing, z_loss=self._z_loss
    )
    correct = (logits.argmax(axis=-1) == targets) * weights
    sums = {
        'loss': (token_loss * weights).sum(),
        'z_loss': (z_term * weights).sum(),
        'correct': correct.sum(),
        'tokens': weights.sum(),
        EXAMPLE_LOSS: (token_loss * weights).sum(axis=-1),
    }
    for name, (first, last) in self.token_types.items():
      of_type = (targets >= first) & (targets <= last)
      sums |= {f'correct/{name}': (correct * of_type).sum(), f'tokens/{name}': (weights * of_type).sum()}
    return sums['loss'], sums

  @property
  def token_types(self) -> Mapping[str, tuple[int, int]]:
    """Kinds of tokens that are reported apart: name -> (first model id, last model id); none here."""
    return {}

  def loss_normalizer(self, sums: Mapping[str, jax.Array]) -> jax.Array | float:
    """Returns what the summed loss of a whole batch, and its gradient, are divided by."""
    if self._loss_normalizing_factor == 'tokens':
      return jnp.maximum(sums['tokens'], 1.0)
    return 1.0 if self._loss_normalizing_factor is None else self._loss_normalizing_factor

  def eval_fn(self, params, batch: Mapping[str, jax.Array]):
    """As `loss_fn` without dropout."""
    return self.loss_fn(params, batch, None)
