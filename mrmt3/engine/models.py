"""The model interface that the train loop knows: a network with a loss, as t5x's EncoderDecoderModel."""

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

  Subclasses bring FEATURE_CONVERTER_CLS (a seqio.FeatureConverter). The methods that they override, and what the engine
  calls, are t5x's, so that one subclass works with both.

  Args:
    module: Flax module that returns logits `[batch, length, vocabulary]`.
    input_vocabulary: vocabulary of the inputs, or None.
    output_vocabulary: vocabulary of the targets, or None.
    optimizer_def: how to update the parameters; None for evaluation only.
    label_smoothing: see `losses`.
    z_loss: see `losses`.
    loss_normalizing_factor: divides the summed loss; None leaves the sum (t5x's default), 'NUM_REAL_TARGET_TOKENS' means
      the number of non-padding target tokens (MR-MT3's mean).
    decode_fn: searches for the best tokens, see `decoding`; None is t5x's default, beam search.
    feature_converter_cls: in the place of the class's own FEATURE_CONVERTER_CLS.
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
        f'loss_normalizing_factor is {loss_normalizing_factor!r}; it is a number, None or {NORMALIZERS[0]!r}'
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
    """Returns what the network is given besides inputs and tokens, when it encodes or is called; nothing here."""
    return {}

  def get_initial_variables(self, rng: jax.Array, input_shapes: Mapping, input_types: Mapping | None = None):
    """Returns fresh variables (`params` and others) for batches of the given shapes and dtypes, a key each feature."""
    types = input_types or {}
    inputs, tokens = (
      jnp.ones(input_shapes[name], types.get(name, jnp.float32))
      for name in ('encoder_input_tokens', 'decoder_input_tokens')
    )
    return self.module.init(rng, inputs, tokens, tokens, decode=False, enable_dropout=False)

  def get_initial_params(self, rng: jax.Array, batch: Mapping[str, jax.Array]):
    """Returns fresh parameters; `batch` is any batch of the right shapes."""
    shapes, types = {k: x.shape for k, x in batch.items()}, {k: x.dtype for k, x in batch.items()}
    return jax.jit(lambda key: self.get_initial_variables(key, shapes, types)['params'])(rng)

  def _compute_logits(self, params, batch, dropout_rng=None, mutable=False, other_variables=None):
    """Returns logits `[batch, length, vocabulary]`; dropout is on where a key is given."""
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
    """Returns (loss, sums): the summed loss, and sums over the batch of loss, z_loss, correct tokens and tokens.

    With `token_types`, the latter two for each type as well (`correct/TYPE`, `tokens/TYPE`). `example_loss` is the loss of
    every example, `[batch]`.

    What is minimised is the summed loss divided by `loss_normalizer(sums)`, also where a batch is summed in parts.
    """
    logits = self._compute_logits(params, batch, dropout_rng)
    targets = batch['decoder_target_tokens']
    weights = batch.get('decoder_loss_weights')
    weights = (targets > 0 if weights is None else weights).astype(jnp.float32)
    token_loss, z_term = losses.cross_entropy_with_logits(
      logits, targets, label_smoothing=self._label_smoothing, z_loss=self._z_loss
    )
    # As argmax, but for ties, and much faster on a CPU.
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
    """Returns a training batch (numpy arrays) without padding that need not be computed; here as it is."""
    return batch

  @property
  def token_types(self) -> Mapping[str, tuple[int, int]]:
    """Kinds of tokens that are reported apart: name -> (first model id, last model id); none here."""
    return {}

  def loss_normalizer(self, sums: Mapping[str, jax.Array]) -> jax.Array | float:
    """Returns what the summed loss of a whole batch, and its gradient, are divided by."""
    if self._loss_normalizing_factor == 'NUM_REAL_TARGET_TOKENS':
      return jnp.maximum(sums['tokens'], 1.0)
    return 1.0 if self._loss_normalizing_factor is None else self._loss_normalizing_factor

  def eval_fn(self, params, batch: Mapping[str, jax.Array]):
    """As `loss_fn` without dropout."""
    return self.loss_fn(params, batch, None)

  def predict_batch(self, params, batch, rng=None, decoder_params=None, **kwargs) -> jax.Array:
    """Returns int32 tokens `[batch, length]`; arguments as `predict_batch_with_aux`."""
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
    """Decodes with the network's own cache, as t5x's networks have it.

    Args:
      params: parameters.
      batch: encoder_input_tokens, and decoder_input_tokens whose length is the most tokens to decode.
      rng: key for decoders that draw.
      decoder_params: further arguments of decode_fn.
      return_all_decodes: all decodes, worst first, and not only the best.
      num_decodes: hypotheses of an example.
      prompt_with_targets: not supported, keep False.

    Returns:
      (tokens int32 `[batch, length]`, {'scores': float32 `[batch]`}), each with an axis num_decodes behind the batch's if
      all are asked for.
    """
    if prompt_with_targets:
      raise UserError('predict_batch: prompt_with_targets is not supported')
    inputs, shaped = batch['encoder_input_tokens'], jnp.zeros_like(batch['decoder_input_tokens'])
    variables, more = {'params': params}, self.call_keywords(batch)
    encoded = self.module.apply(variables, inputs, enable_dropout=False, method=self.module.encode, **more)
    # The network makes room for the cache when it is called once with decode on; of that only the shapes are needed.
    cache = jax.eval_shape(
      lambda: self.module.apply(
        variables, inputs, shaped, shaped, decode=True, enable_dropout=False, mutable=['cache'], **more
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
        max_decode_length=shaped.shape[1],
        mutable=['cache'],
        method=self.module.decode,
      )
      return logits[:, 0], changed['cache']

    options = {'eos_id': EOS_ID, **({} if rng is None else {'decode_rng': rng}), **(decoder_params or {})}
    tokens, scores = self._decode_fn(
      inputs=shaped, cache=cache, tokens_to_logits=tokens_to_logits, num_decodes=num_decodes, **options
    )
    if not return_all_decodes:
      tokens, scores = tokens[:, -1], scores[:, -1]
    return tokens, {'scores': scores}

  def score_batch(self, params, batch, return_intermediates: bool = False) -> jax.Array:
    """Returns the log-probability of each example's targets, float32 `[batch]`."""
    if return_intermediates:
      raise UserError('score_batch: return_intermediates is not supported')
    logits = self._compute_logits(params, batch)
    loss, _ = losses.cross_entropy_with_logits(logits, batch['decoder_target_tokens'])
    return -(loss * batch['decoder_loss_weights']).sum(axis=-1)
