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

from mrmt3.nn.attention import (
  MASKED_LOGIT,
  attend_in_blocks,
  attend_parts,
  attend_to_prefix,
  dropout_masks,
  parted,
)

_truncated_normal = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
_normal = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
_uniform = nn.initializers.variance_scaling(1.0 / 3.0, 'fan_in', 'uniform')  # within +-1/sqrt(fan_in)

ATTENTION_INITIALIZER = _normal
MLP_INITIALIZERS = {'mt3': _truncated_normal, 'mr_mt3': _normal}
PROJECTION_INITIALIZERS = {'mt3': _truncated_normal, 'mr_mt3': _uniform}


def position_frequencies(features: int, kind: str = 'mt3') -> np.ndarray:
  """Return the angles a position of `sinusoidal_positions`, float64 `[features / 2]`."""
  half = features // 2
  return 10000.0 ** -(np.arange(half) / (half - 1 if kind == 'mt3' else half))


@functools.lru_cache(maxsize=16)
def sinusoidal_positions(length: int, features: int, kind: str = 'mt3') -> np.ndarray:
  """Return the fixed position table, float32 `[length, features]`: sines in the first half, cosines in the second.

  Wavelengths run from 2 pi to 2 pi 10000; `mt3` reaches the longest one at the last sine, `mr_mt3` one step later.
  """
  angles = np.arange(length)[:, None] * position_frequencies(features, kind)
  table = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)
  table.flags.writeable = False
  return table


@jax.custom_vjp
def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Return the product of `x` `[..., n]` and `kernel` `[n, m]`.

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
    """Return `x` `[..., length, features]` with features dropped and the others scaled up."""
    dims = (-2,) if self.shared else ()
    return nn.Dropout(self.rate, broadcast_dims=dims)(x, deterministic=not enable_dropout)


@functools.partial(jax.checkpoint, static_argnums=2)
def _normalise(x: jax.Array, scale: jax.Array, dtype) -> jax.Array:
  """Return `x` `[..., features]` with a mean square of 1, times `scale` `[features]`; computed again for gradients."""
  x = x.astype(jnp.float32)
  inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
  return (x * inverse).astype(dtype) * scale.astype(dtype)


class LayerNorm(nn.Module):
  """Division by the root mean square (eps 1e-6) in float32, then a learned scale."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return `x` `[..., features]` normalised."""
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
    """Return `[..., features]`."""
    return project(x.astype(self.dtype), self._kernel(x.shape[-1]))

  def _kernel(self, inputs):
    shape = (inputs, self.features)
    kernel = partitioning.param_with_axes('kernel', self.kernel_init, shape, jnp.float32, axes=self.kernel_axes)
    return kernel.astype(self.dtype)


class ChannelsFirstDense(Dense):
  """As `Dense`, with the same parameter, but of the first axis."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return `[features, ...]` for `x` `[channels, ...]`."""
    # Not as a matrix: joined with others, the batch could not stay split over devices.
    return jnp.tensordot(self._kernel(len(x)).T, x.astype(self.dtype), axes=1)


class Embed(nn.Module):
  """A table of token embeddings."""

  num_embeddings: int
  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Return the rows for int tokens `[...]` as `[..., features]`."""
    shape = (self.num_embeddings, self.features)
    table = partitioning.param_with_axes(
      'embedding', nn.initializers.normal(1.0), shape, jnp.float32, axes=('vocab', 'embed')
    )
    return jnp.asarray(table, self.dtype)[tokens]

  def table(self) -> jax.Array:
    """Return all rows, `[num_embeddings, features]`; they must have been made by a call before."""
    return jnp.asarray(self.get_variable('params', 'embedding'), self.dtype)

  def attend(self, x: jax.Array) -> jax.Array:
    """Return the products of `x` `[..., features]` with every row, float32 `[..., num_embeddings]`."""
    return jnp.dot(x.astype(jnp.float32), self.get_variable('params', 'embedding').T)


@functools.partial(jax.checkpoint, static_argnums=1)
def _gate(parts: list[jax.Array], activations: tuple[str, ...]) -> jax.Array:
  """Return the product of the activated parts; what activations need for gradients is computed again, not kept."""
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
    """Return `[..., length, features]` for `x` of that shape."""
    init = MLP_INITIALIZERS[self.initializers]
    names = ['wi'] if len(self.activations) == 1 else [f'wi_{index}' for index in range(len(self.activations))]
    parts = [Dense(self.intermediate_dim, ('embed', 'mlp'), init, self.dtype, name=name)(x) for name in names]
    hidden = _gate(parts, tuple(self.activations))
    hidden = Dropout(self.dropout_rate, self.shared_dropout)(hidden, enable_dropout)
    return Dense(x.shape[-1], ('mlp', 'embed'), init, self.dtype, name='wo')(hidden)


class MultiHeadDotProductAttention(nn.Module):
  """Multi-head attention; heads are joined in the kernels (`joined_kv`), apart in keys and values.

  With `apart`, the last `apart` keys have a softmax of their own, and the two results are added.
  """

  num_heads: int
  head_dim: int
  features: int
  dropout_rate: float = 0.1
  shared_dropout: bool = True
  dtype: Any = jnp.float32
  apart: int = 0

  def setup(self):
    """Declare the parts."""

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
    """Return the keys and values of `context` `[batch, length, features]`, each `[batch, heads, length, head_dim]`."""
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
    """Return what the queries of `x` find in `context`.

    Args:
      x: `[batch, queries, features]`.
      context: `[batch, keys, features]`.
      enable_dropout: whether to drop (needs the `dropout` random stream).
      real: bool `[batch, queries]`; the other queries get the mean of all values. None: all are real.
      seen: bool `[batch, keys]`, the keys that real queries see, or None: all.
      causal: whether real query i sees keys 0..i only.
      mask: what else is to hold for a key to be seen (> 0), broadcastable to `[batch, heads, queries, keys]`, or None.
        It is slower: there is an array of queries x keys then.

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
    """Do what a call does where there is a mask."""
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
    """Attend with one query per row, without dropout.

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
