"""The layers of T5.1.1 as MT3 uses them: bias-free, RMS-normalised, with fixed positions (flax.linen).

Parameters carry T5X's logical axis names (vocab, embed, joined_kv, mlp) in the `params_axes` collection. Two
families of weights exist, `mt3` (magenta's Flax code) and `mr_mt3` (its PyTorch ports); both are here.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import partitioning

MASKED_LOGIT = -1e10  # finite, so that a query that may see nothing attends uniformly to everything
SHORTEST_PREFIX = 64  # of a cache, in positions
QUERY_BLOCKS = 4  # of an attention in training
SMALLEST_QUERY_BLOCK = 64

_truncated_normal = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
_normal = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
_uniform = nn.initializers.variance_scaling(1.0 / 3.0, 'fan_in', 'uniform')  # within +-1/sqrt(fan_in)

ATTENTION_INITIALIZER = _normal
MLP_INITIALIZERS = {'mt3': _truncated_normal, 'mr_mt3': _normal}
PROJECTION_INITIALIZERS = {'mt3': _truncated_normal, 'mr_mt3': _uniform}


def position_frequencies(features: int, kind: str = 'mt3') -> np.ndarray:
  """Returns the angles a position of `sinusoidal_positions`, float64 `[features / 2]`."""
  half = features // 2
  return 10000.0 ** -(np.arange(half) / (half - 1 if kind == 'mt3' else half))


@functools.lru_cache(maxsize=16)
def sinusoidal_positions(length: int, features: int, kind: str = 'mt3') -> np.ndarray:
  """Returns the fixed position table, float32 `[length, features]`: sines in the first half, cosines in the second.

  Wavelengths run from 2 pi to 2 pi 10000; `mt3` reaches the longest one at the last sine, `mr_mt3` one step later.
  """
  angles = np.arange(length)[:, None] * position_frequencies(features, kind)
  table = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)
  table.flags.writeable = False
  return table


@jax.custom_vjp
def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the product of `x` `[..., n]` and `kernel` `[n, m]`.

  A kernel's gradient is the product of two arrays along their rows, one of which has to be transposed first. Left alone
  that is the gradient of the output, often the larger one; here it is the smaller one.
  """
  return jnp.dot(x, kernel)


def _project_forward(x, kernel):
  return jnp.dot(x, kernel), (x, kernel)


def _project_backward(saved, gradient):
  x, kernel = saved
  rows, gradients = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
  if rows.shape[1] <= gradients.shape[1]:
    kernel_gradient = jnp.einsum('tn,tm->nm', rows, gradients)
  else:
    kernel_gradient = jnp.einsum('tm,tn->mn', gradients, rows).T
  return jnp.dot(gradient, kernel.T), kernel_gradient


project.defvjp(_project_forward, _project_backward)


class Dropout(nn.Module):
  """Dropout with one mask for all positions (`shared`, over axis -2) or one for each element."""

  rate: float
  shared: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, enable_dropout: bool) -> jax.Array:
    """Returns `x` `[..., length, features]` with features dropped and the others scaled up."""
    dims = (-2,) if self.shared else ()
    return nn.Dropout(self.rate, broadcast_dims=dims)(x, deterministic=not enable_dropout)


@functools.partial(jax.checkpoint, static_argnums=2)
def _normalise(x: jax.Array, scale: jax.Array, dtype) -> jax.Array:
  """Returns `x` `[..., features]` with a mean square of 1, times `scale` `[features]`; computed again for gradients."""
  x = x.astype(jnp.float32)
  inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
  return (x * inverse).astype(dtype) * scale.astype(dtype)


class LayerNorm(nn.Module):
  """Division by the root mean square (eps 1e-6) in float32, then a learned scale."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns `x` `[..., features]` normalised."""
    scale = partitioning.param_with_axes('scale', nn.initializers.ones, (x.shape[-1],), jnp.float32, axes=('embed',))
    return _normalise(x, scale, self.dtype)


class Dense(nn.Module):
  """A linear map of the last axis, without bias."""

  features: int
  kernel_axes: tuple[str, str]
  kernel_init: nn.initializers.Initializer
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns `[..., features]`."""
    return project(x.astype(self.dtype), self._kernel(x.shape[-1]))

  def _kernel(self, inputs):
    shape = (inputs, self.features)
    kernel = partitioning.param_with_axes('kernel', self.kernel_init, shape, jnp.float32, axes=self.kernel_axes)
    return kernel.astype(self.dtype)


class ChannelsFirstDense(Dense):
  """As `Dense`, with the same parameter, but of the first axis."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns `[features, ...]` for `x` `[channels, ...]`."""
    # Not as a matrix: joined with others, the batch could not stay split over devices.
    return jnp.tensordot(self._kernel(len(x)).T, x.astype(self.dtype), axes=1)


class Embed(nn.Module):
  """A table of token embeddings."""

  num_embeddings: int
  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Returns the rows for int tokens `[...]` as `[..., features]`."""
    shape = (self.num_embeddings, self.features)
    table = partitioning.param_with_axes(
      'embedding', nn.initializers.normal(1.0), shape, jnp.float32, axes=('vocab', 'embed')
    )
    return jnp.asarray(table, self.dtype)[tokens]

  def table(self) -> jax.Array:
    """Returns all rows, `[num_embeddings, features]`; they must have been made by a call before."""
    return jnp.asarray(self.get_variable('params', 'embedding'), self.dtype)

  def attend(self, x: jax.Array) -> jax.Array:
    """Returns the products of `x` `[..., features]` with every row, float32 `[..., num_embeddings]`."""
    return jnp.dot(x.astype(jnp.float32), self.get_variable('params', 'embedding').T)


@functools.partial(jax.checkpoint, static_argnums=1)
def _gate(parts: list[jax.Array], activations: tuple[str, ...]) -> jax.Array:
  """Returns the product of the activated parts; what activations need for gradients is computed again, not kept."""
  hidden = None
  for part, activation in zip(parts, activations, strict=True):
    if activation != 'linear':
      part = getattr(nn, activation)(part)  # nn.gelu is the tanh approximation by default
    hidden = part if hidden is None else hidden * part
  return hidden


class MlpBlock(nn.Module):
  """Gated MLP: the product of several activated maps, dropout, and a map back."""

  intermediate_dim: int
  activations: tuple[str, ...] = ('gelu', 'linear')
  dropout_rate: float = 0.1
  shared_dropout: bool = True
  initializers: str = 'mt3'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, enable_dropout: bool) -> jax.Array:
    """Returns `[..., length, features]` for `x` of that shape."""
    init = MLP_INITIALIZERS[self.initializers]
    names = ['wi'] if len(self.activations) == 1 else [f'wi_{index}' for index in range(len(self.activations))]
    parts = [Dense(self.intermediate_dim, ('embed', 'mlp'), init, self.dtype, name=name)(x) for name in names]
    hidden = _gate(parts, tuple(self.activations))
    hidden = Dropout(self.dropout_rate, self.shared_dropout)(hidden, enable_dropout)
    return Dense(x.shape[-1], ('mlp', 'embed'), init, self.dtype, name='wo')(hidden)


def attend(queries: jax.Array, keys: jax.Array, values: jax.Array, mask=None) -> jax.Array:
  """Attends without scaling the logits; softmax in float32.

  The weights are normalised after the product with the values: on a CPU that saves a pass over the largest array of the
  network, which costs as much as the products.

  Args:
    queries: `[..., queries, head_dim]`; batch and heads lead, apart or joined.
    keys: `[..., keys, head_dim]`.
    values: `[..., keys, head_dim]`.
    mask: bool, broadcastable to `[..., queries, keys]`, or None: all keys are seen.

  Returns:
    `[..., queries, head_dim]`.
  """
  logits = jnp.einsum('...qd,...kd->...qk', queries, keys).astype(jnp.float32)
  if mask is not None:
    logits = jnp.where(mask, logits, MASKED_LOGIT)
  weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
  total = weights.sum(axis=-1)[..., None]
  return jnp.einsum('...qk,...kd->...qd', weights.astype(values.dtype), values) / total.astype(values.dtype)


def parted(apart: int, *arrays: jax.Array) -> list[tuple[jax.Array, ...]]:
  """Returns keys and values, each `[..., keys, head_dim]`, parted into what shares a softmax.

  With `apart` 0 that is all of them; else all but the last `apart` ones, and these.
  """
  if not apart:
    return [arrays]
  return [tuple(x[..., :-apart, :] for x in arrays), tuple(x[..., -apart:, :] for x in arrays)]


def attend_parts(queries: jax.Array, parts: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
  """As `attend`, to keys and values of `parted`: each part has a softmax of its own, and what is found in each is added."""
  return functools.reduce(operator.add, [attend(queries, *part) for part in parts])


def _blocks(queries: int, keys: int, causal: bool) -> list[tuple[slice, slice]]:
  """Returns the (queries, keys) of each block; a causal block needs no keys after its last query."""
  size = max(SMALLEST_QUERY_BLOCK, -(-queries // QUERY_BLOCKS))
  ends = [min(start + size, queries) for start in range(0, queries, size)]
  return [(slice(end - (end - 1) % size - 1, end), slice(0, end if causal else keys)) for end in ends]


def _block_logits(queries, keys, seen, causal, rows, columns):
  logits = jnp.einsum('...qd,...kd->...qk', queries[..., rows, :], keys[..., columns, :]).astype(jnp.float32)
  mask = None if seen is None else seen[:, None, None, columns]
  if causal:
    past = np.arange(rows.start, rows.stop)[:, None] >= np.arange(columns.stop)
    mask = past if mask is None else mask & past
  return logits if mask is None else jnp.where(mask, logits, MASKED_LOGIT)


def dropout_masks(key: jax.Array, rate: float, queries: jax.Array, keys: jax.Array, causal: bool) -> list[jax.Array]:
  """Returns a mask for each block of `attend_in_blocks`, bool `[batch, heads, queries, keys]`: the weights that stay.

  Args:
    key: random key.
    rate: share of the weights to be dropped, drawn to 1 / 65536.
    queries: those of `attend_in_blocks`, of which only the shape counts, as of `keys`.
    keys: see queries.
    causal: see `attend_in_blocks`.
  """
  # Random bits cost more than the attention: 16 of them decide as well as 32.
  least = round(rate * 2**16)
  masks = []
  for index, (rows, columns) in enumerate(_blocks(queries.shape[-2], keys.shape[-2], causal)):
    shape = (*queries.shape[:-2], rows.stop - rows.start, columns.stop)
    masks.append(jax.random.bits(jax.random.fold_in(key, index), shape, jnp.uint16) >= least)
  return masks


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def attend_in_blocks(
  queries: jax.Array, keys: jax.Array, values: jax.Array, seen, kept, causal: bool, dropout_rate: float = 0.0
) -> jax.Array:
  """As `attend`, for training: a block of queries at a time, weights computed again in the backward pass.

  So no array of queries x keys is kept but the dropout's masks, and a causal attention skips most of what it must not see.

  Args:
    queries: `[batch, heads, queries, head_dim]`.
    keys: `[batch, heads, keys, head_dim]`.
    values: `[batch, heads, keys, head_dim]`.
    seen: bool `[batch, keys]`, the keys to be seen, or None: all are.
    kept: element-wise dropout of the weights, see `dropout_masks`; None: no such.
    causal: whether query i sees keys 0..i only; then there must be as many queries as keys.
    dropout_rate: the rate that the masks were drawn with.

  Returns:
    `[batch, heads, queries, head_dim]`. A query that may see nothing gets some mean of the values.
  """
  return _attend_forward(queries, keys, values, seen, kept, causal, dropout_rate)[0]


def _attend_forward(queries, keys, values, seen, kept, causal, dropout_rate):
  outputs, log_totals = [], []
  for index, (rows, columns) in enumerate(_blocks(queries.shape[-2], keys.shape[-2], causal)):
    logits = _block_logits(queries, keys, seen, causal, rows, columns)
    largest = logits.max(axis=-1)
    weights = jnp.exp(logits - largest[..., None])
    total = weights.sum(axis=-1)
    scale = total
    if kept is not None:
      weights, scale = jnp.where(kept[index], weights, 0.0), total * (1.0 - dropout_rate)
    y = jnp.einsum('...qk,...kd->...qd', weights.astype(values.dtype), values[..., columns, :])
    outputs.append(y / scale[..., None].astype(values.dtype))
    log_totals.append(largest + jnp.log(total))
  output = jnp.concatenate(outputs, axis=-2)
  return output, (queries, keys, values, seen, kept, output, jnp.concatenate(log_totals, axis=-1))


def _attend_backward(causal, dropout_rate, saved, gradient):
  queries, keys, values, seen, kept, output, log_total = saved
  # Without the barrier XLA would recognise the logits of the forward pass and keep them for this.
  queries, keys, gradient = jax.lax.optimization_barrier((queries, keys, gradient))
  dtype = values.dtype
  slope = (gradient * output).astype(jnp.float32).sum(axis=-1)
  # Transposed, so that not the weights but the much smaller factors are transposed before the products.
  keys_gradient = jnp.zeros_like(keys.swapaxes(-1, -2))
  values_gradient = jnp.zeros_like(values.swapaxes(-1, -2))
  queries_gradient = []
  for index, (rows, columns) in enumerate(_blocks(queries.shape[-2], keys.shape[-2], causal)):
    logits = _block_logits(queries, keys, seen, causal, rows, columns)
    weights = jnp.exp(logits - log_total[..., rows, None])
    part = gradient[..., rows, :]
    change = jnp.einsum('...qd,...kd->...qk', part, values[..., columns, :]).astype(jnp.float32)
    dropped = weights
    if kept is not None:
      dropped, change = (jnp.where(kept[index], x, 0.0) / (1.0 - dropout_rate) for x in (weights, change))
    values_gradient = values_gradient.at[..., columns].add(
      jnp.einsum('...qd,...qk->...dk', part, dropped.astype(dtype))
    )
    change = (weights * (change - slope[..., rows, None])).astype(dtype)
    queries_gradient.append(jnp.einsum('...qk,...kd->...qd', change, keys[..., columns, :]))
    keys_gradient = keys_gradient.at[..., columns].add(jnp.einsum('...qd,...qk->...dk', queries[..., rows, :], change))
  queries_gradient = jnp.concatenate(queries_gradient, axis=-2)
  return queries_gradient, keys_gradient.swapaxes(-1, -2), values_gradient.swapaxes(-1, -2), None, None


attend_in_blocks.defvjp(_attend_forward, _attend_backward)


def attend_to_prefix(queries: jax.Array, keys: jax.Array, values: jax.Array, position: jax.Array) -> jax.Array:
  """Attends to keys 0..position only, of a cache that does not grow (`MultiHeadDotProductAttention`'s).

  Empty room in a cache costs as much as keys, so the shortest of a few prefixes that hold the position is taken.

  Args:
    queries: `[rows, queries, head_dim]`.
    keys: `[rows, length, head_dim]`.
    values: `[rows, length, head_dim]`.
    position: int scalar below `length`, may be traced.

  Returns:
    `[rows, queries, head_dim]`.
  """
  lengths = [keys.shape[1]]
  while lengths[0] > SHORTEST_PREFIX:
    lengths.insert(0, -(-lengths[0] // 2))

  def over(length):
    return lambda q, k, v: attend(q, k[:, :length], v[:, :length], jnp.arange(length) <= position)

  index = jnp.searchsorted(jnp.asarray(lengths), position, side='right')
  return jax.lax.switch(index, [over(length) for length in lengths], queries, keys, values)


class MultiHeadDotProductAttention(nn.Module):
  """Multi-head attention; heads are joined in the kernels (`joined_kv`), apart in keys and values.

  With `apart`, the last so many keys have a softmax of their own, and what is found in both is added.
  """

  num_heads: int
  head_dim: int
  features: int
  dropout_rate: float = 0.1
  shared_dropout: bool = True
  dtype: Any = jnp.float32
  apart: int = 0

  def setup(self):
    """Declares the parts."""

    def scaled_init(*args):
      return ATTENTION_INITIALIZER(*args) / np.sqrt(self.head_dim)  # stands in for scaling the logits

    def dense(init):
      return Dense(self.num_heads * self.head_dim, ('embed', 'joined_kv'), init, self.dtype)

    self.query, self.key, self.value = dense(scaled_init), dense(ATTENTION_INITIALIZER), dense(ATTENTION_INITIALIZER)
    self.out = Dense(self.features, ('joined_kv', 'embed'), ATTENTION_INITIALIZER, self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate, broadcast_dims=(-1,))

  def _split_heads(self, x):
    # [b, t, h d] -> [b, h, t, d]: batched matrix products with leading batch axes are XLA:CPU's fast path.
    return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(0, 2, 1, 3)

  def keys_values(self, context: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the keys and values of `context` `[batch, length, features]`, each `[batch, heads, length, head_dim]`."""
    return self._split_heads(self.key(context)), self._split_heads(self.value(context))

  def __call__(
    self,
    x: jax.Array,
    context: jax.Array,
    enable_dropout: bool = False,
    *,
    real: jax.Array | None = None,
    seen: jax.Array | None = None,
    causal: bool = False,
    mask: jax.Array | None = None,
  ) -> jax.Array:
    """Returns what the queries of `x` find in `context`.

    Args:
      x: `[batch, queries, features]`.
      context: `[batch, keys, features]`.
      enable_dropout: whether to drop (needs the `dropout` random stream).
      real: bool `[batch, queries]`; the other queries get the mean of all values. None: all are real.
      seen: bool `[batch, keys]`, the keys that real queries see, or None: all.
      causal: whether real query i sees keys 0..i only.
      mask: what else is to hold for a key to be seen (> 0), broadcastable to `[batch, heads, queries, keys]`, or None. It is
        slower: there is an array of queries x keys then.

    Returns:
      `[batch, queries, features]`.
    """
    if self.apart and (mask is not None or seen is not None or causal):
      raise ValueError('an attention in which some keys are apart takes no mask, seen or causal')
    if mask is not None:
      return self._masked(x, context, enable_dropout, real, seen, causal, mask)
    queries, (keys, values) = self._split_heads(self.query(x)), self.keys_values(context)
    if enable_dropout and self.shared_dropout:
      # One mask for all queries: dropping a key's weights is dropping its value.
      values = self.dropout(values, deterministic=False)
    found = []
    for part in parted(self.apart, keys, values):
      kept = None
      if enable_dropout and not self.shared_dropout and self.dropout_rate:
        kept = dropout_masks(self.make_rng('dropout'), self.dropout_rate, queries, part[0], causal)
      found.append(attend_in_blocks(queries, *part, seen, kept, causal, self.dropout_rate))
    y = functools.reduce(operator.add, found)
    if real is not None:
      y = jnp.where(real[:, None, :, None], y, values.mean(axis=-2, keepdims=True))
    return self.out(y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1))

  def _masked(self, x, context, enable_dropout, real, seen, causal, mask):
    """Does what a call does where there is a mask."""
    queries, (keys, values) = self._split_heads(self.query(x)), self.keys_values(context)
    mask = mask > 0
    mask = mask if real is None else mask & real[:, None, :, None]
    mask = mask if seen is None else mask & seen[:, None, None, :]
    mask = mask & np.tri(x.shape[1], dtype=bool) if causal else mask
    logits = jnp.einsum('bhqd,bhkd->bhqk', queries, keys).astype(jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask, logits, MASKED_LOGIT)).astype(values.dtype)
    if enable_dropout and self.dropout_rate:
      shape = (*weights.shape[:2], 1 if self.shared_dropout else weights.shape[2], weights.shape[3])
      kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - self.dropout_rate, shape)
      weights = jnp.where(kept, weights / (1 - self.dropout_rate), 0)
    y = jnp.einsum('bhqk,bhkd->bhqd', weights, values)
    return self.out(y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1))

  def step(self, x: jax.Array, keys: jax.Array, values: jax.Array, position: jax.Array | None = None) -> jax.Array:
    """Does one query a row, without dropout.

    Args:
      x: `[batch, 1, features]`.
      keys: `[batch * heads, length, head_dim]`.
      values: `[batch * heads, length, head_dim]`.
      position: the last key to be seen, or None: all are.

    Returns:
      `[batch, 1, features]`.
    """
    queries = self.query(x).reshape(-1, 1, self.head_dim)
    if position is None:
      y = attend_parts(queries, parted(self.apart, keys, values))
    else:
      y = attend_to_prefix(queries, keys, values, position)
    return self.out(y.reshape(x.shape[0], 1, -1))
