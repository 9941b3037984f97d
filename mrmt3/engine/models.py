"""The training loop's model interface, as t5x's EncoderDecoderModel: a network with its loss and decoding."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from mrmt3.engine import decoding, losses, optimizers
from mrmt3.errors import UserError
from mrmt3.special_tokens import EOS_ID

EXAMPLE_LOSS = 'example_loss'
NORMALIZERS = ('NUM_REAL_TARGET_TOKENS',)


class EncoderDecoderModel:
  """An encoder-decoder network with teacher forcing.

  Subclasses define FEATURE_CONVERTER_CLS (a seqio.FeatureConverter). The methods that they override and that the engine
  calls have t5x's names, so that one subclass works with both engines.

  Args:
    module: Flax module that returns logits `[batch, length, vocabulary]`.
    input_vocabulary: vocabulary of the inputs, or None.
    output_vocabulary: vocabulary of the targets, or None.
    optimizer_def: the optimizer; None for evaluation only.
    label_smoothing: see `losses`.
    z_loss: see `losses`.
    loss_normalizing_factor: divides the summed loss. None keeps the sum (t5x's default); 'NUM_REAL_TARGET_TOKENS' is
      the number of target tokens that are not padding (as in MR-MT3).
    decode_fn: decoding algorithm, see `decoding`; None is t5x's default, beam search.
    feature_converter_cls: overrides the class's FEATURE_CONVERTER_CLS.

  Raises:
    UserError: loss_normalizing_factor is an unknown name.
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
    decode_fn: Callable | None = None,
    feature_converter_cls: Callable | None = None,
  ):
    if isinstance(loss_normalizing_factor, str) and loss_normalizing_factor not in NORMALIZERS:
      raise UserError(
        f'loss_normalizing_factor is {loss_normalizing_factor!r}; set it to a number, None or {NORMALIZERS[0]!r}'
      )
    if feature_converter_cls is not None:
      self.FEATURE_CONVERTER_CLS = feature_converter_cls
    self._decode_fn = decode_fn or decoding.beam_search
    self.module = module
    self.input_vocabulary = input_vocabulary
    self.output_vocabulary = output_vocabulary
    self.optimizer_def = optimizer_def
    self._label_smoothing = label_smoothing
    self._z_loss = z_loss
    self._loss_normalizing_factor = loss_normalizing_factor

  def call_keywords(self, batch: Mapping[str, jax.Array]) -> dict:
    """Return the network's further keyword arguments, for encoding and for calls; none here."""
    return {}

  def get_initial_variables(self, rng: jax.Array, input_shapes: Mapping, input_types: Mapping | None = None):
    """Return initial variables (`params` and others) for batches of these shapes and dtypes, given by feature."""
    types = input_types or {}
    inputs, tokens = (
      jnp.ones(input_shapes[name], types.get(name, jnp.float32))
      for name in ('encoder_input_tokens', 'decoder_input_tokens')
    )
    return self.module.init(rng, inputs, tokens, tokens, decode=False, enable_dropout=False)

  def get_initial_params(self, rng: jax.Array, batch: Mapping[str, jax.Array]):
    """Return initial parameters; `batch` is any batch of the right shapes."""
    shapes, types = {k: x.shape for k, x in batch.items()}, {k: x.dtype for k, x in batch.items()}
    return jax.jit(lambda key: self.get_initial_variables(key, shapes, types)['params'])(rng)

  def _compute_logits(self, params, batch, dropout_rng=None, mutable=False, other_variables=None):
    """Return logits `[batch, length, vocabulary]`, with dropout if there is a key for it."""
    return self.module.apply(
      {'params': params, **(other_variables or {})},
      batch['encoder_input_tokens'],
      batch['decoder_input_tokens'],
      batch['decoder_target_tokens'],
      decode=False,
      enable_dropout=dropout_rng is not None,
      rngs={} if dropout_rng is None else {'dropout': dropout_rng},
      mutable=mutable,
    )

  def loss_fn(self, params, batch: Mapping[str, jax.Array], dropout_rng: jax.Array | None):
    """Return (summed loss, sums over the batch).

    The sums are `loss`, `z_loss`, `correct` (tokens), `tokens`, and `example_loss`, float `[batch]`. With `token_types`
    there are also `correct/TYPE` and `tokens/TYPE`.

    Training minimizes the summed loss divided by `loss_normalizer(sums)`, where the sums cover all microbatches.

    Args:
      params: parameters.
      batch: model features, `[batch, ...]`.
      dropout_rng: key; None disables dropout.
    """
    logits = self._compute_logits(params, batch, dropout_rng)
    targets = batch['decoder_target_tokens']
    weights = batch.get('decoder_loss_weights')
    weights = (targets > 0 if weights is None else weights).astype(jnp.float32)
    token_loss, z_term = losses.cross_entropy_with_logits(
      logits, targets, label_smoothing=self._label_smoothing, z_loss=self._z_loss
    )
    # Same as argmax except for ties, and much faster on a CPU.
    label_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    correct = (label_logits >= logits.max(axis=-1)) * weights
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

  def trim_batch(self, batch: Mapping):
    """Return a training batch (numpy arrays) without needless padding; unchanged here."""
    return batch

  @property
  def token_types(self) -> Mapping[str, tuple[int, int]]:
    """Token types with an accuracy of their own, as {name: (first model id, last model id)}; none here."""
    return {}

  def loss_normalizer(self, sums: Mapping[str, jax.Array]) -> jax.Array | float:
    """Return the divisor of the summed loss and its gradient for a whole batch."""
    if self._loss_normalizing_factor == 'NUM_REAL_TARGET_TOKENS':
      return jnp.maximum(sums['tokens'], 1.0)
    return 1.0 if self._loss_normalizing_factor is None else self._loss_normalizing_factor

  def eval_fn(self, params, batch: Mapping[str, jax.Array]):
    """Same as `loss_fn` without dropout."""
    return self.loss_fn(params, batch, None)

  def predict_batch(self, params, batch, rng=None, decoder_params=None, **kwargs) -> jax.Array:
    """Return tokens int32 `[batch, length]`; see `predict_batch_with_aux` for the arguments."""
    return self.predict_batch_with_aux(params, batch, rng, decoder_params, **kwargs)[0]

  def predict_batch_with_aux(
    self,
    params,
    batch,
    rng=None,
    decoder_params=None,
    return_all_decodes=False,
    num_decodes=1,
    prompt_with_targets=False,
  ):
    """Decode with the network's Flax cache collection, as in t5x.

    Args:
      params: parameters.
      batch: encoder_input_tokens, and decoder_input_tokens, whose length is the maximum number of tokens.
      rng: key for decoders that sample.
      decoder_params: further arguments of decode_fn.
      return_all_decodes: return all decodes, worst first, instead of the best one.
      num_decodes: hypotheses per example.
      prompt_with_targets: not supported, keep False.

    Returns:
      (tokens int32 `[batch, length]`, {'scores': float32 `[batch]`}), each with an axis num_decodes after the batch
      axis if return_all_decodes is set.

    Raises:
      UserError: prompt_with_targets is set.
    """
    if prompt_with_targets:
      raise UserError('predict_batch: prompt_with_targets is not supported; leave it at False')
    inputs, zeros = batch['encoder_input_tokens'], jnp.zeros_like(batch['decoder_input_tokens'])
    variables, keywords = {'params': params}, self.call_keywords(batch)
    encoded = self.module.apply(variables, inputs, enable_dropout=False, method=self.module.encode, **keywords)
    # The first call with decode=True creates the cache. Only its shapes are needed here.
    cache = jax.eval_shape(
      lambda: self.module.apply(
        variables, inputs, zeros, zeros, decode=True, enable_dropout=False, mutable=['cache'], **keywords
      )
    )[1]['cache']
    cache = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), cache)
    repeated = [jnp.repeat(x, num_decodes, axis=0) for x in (encoded, inputs)]

    def tokens_to_logits(state):
      logits, changed = self.module.apply(
        {**variables, 'cache': state.cache},
        *repeated,
        state.cur_token,
        state.cur_token,
        enable_dropout=False,
        decode=True,
        max_decode_length=zeros.shape[1],
        mutable=['cache'],
        method=self.module.decode,
      )
      return logits[:, 0], changed['cache']

    options = {'eos_id': EOS_ID, **({} if rng is None else {'decode_rng': rng}), **(decoder_params or {})}
    tokens, scores = self._decode_fn(
      inputs=zeros, cache=cache, tokens_to_logits=tokens_to_logits, num_decodes=num_decodes, **options
    )
    if not return_all_decodes:
      tokens, scores = tokens[:, -1], scores[:, -1]
    return tokens, {'scores': scores}

  def score_batch(self, params, batch, return_intermediates: bool = False) -> jax.Array:
    """Return the log-probability of each example's targets, float32 `[batch]`; return_intermediates must be False."""
    if return_intermediates:
      raise UserError('score_batch: return_intermediates is not supported; leave it at False')
    logits = self._compute_logits(params, batch)
    loss, _ = losses.cross_entropy_with_logits(logits, batch['decoder_target_tokens'])
    return -(loss * batch['decoder_loss_weights']).sum(axis=-1)
