"""MT3's layers with their names and arguments (flax.linen): attention, masks, biases, embeddings and T5's layer norm.

Our own network uses `nn.layers`, which are faster and less general. Parameters have the same names, shapes and meaning
in both.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import partitioning

from mrmt3.nn.attention import MASKED_LOGIT

param_with_axes = partitioning.param_with_axes
with_sharding_constraint = partitioning.with_sharding_constraint

Array = jax.Array
DType = jnp.dtype
PRNGKey = jax.Array
Shape = Sequence[int]
Activation = Callable[..., Array]
Initializer = Callable[[PRNGKey, Shape, DType], Array]

default_embed_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal', out_axis=0)
_attention_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
_dense_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')

dynamic_vector_slice_in_dim = jax.vmap(jax.lax.dynamic_slice_in_dim, in_axes=(None, 0, None, None))


def sinusoidal(min_scale: float = 1.0, max_scale: float = 10000.0, dtype: DType = jnp.float32) -> Initializer:
  """Return an initializer of sinusoidal position tables, float32 `[length, features]`.

  The first half of the features is sines, the second half cosines. Frequencies fall geometrically from `min_scale` to
  `min_scale / max_scale * min_scale`. The initializer raises ValueError for other dtypes and shapes.
  """

  def init(key: PRNGKey, shape: Shape, dtype: DType = dtype) -> Array:
    del key
    if dtype != np.float32:
      raise ValueError(f'the dtype of a position table is {dtype}; it must be float32')
    if len(shape) != 2:
      raise ValueError(f'the shape of a position table is {tuple(shape)}; it must be [length, features]')
    length, features = shape
    half = features // 2
    frequencies = min_scale * np.exp(np.arange(half) * (-np.log(max_scale / min_scale) / (half - 1)))
    angles = np.arange(length)[:, None] * frequencies
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return jnp.asarray(np.pad(table, ((0, 0), (0, features % 2))), jnp.float32)

  return init


def dot_product_attention(
  query: Array,
  key: Array,
  value: Array,
  bias: Array | None = None,
  dropout_rng: PRNGKey | None = None,
  dropout_rate: float = 0.0,
  deterministic: bool = False,
  dtype: DType = jnp.float32,
  float32_logits: bool = False,
) -> Array:
  """Dot-product attention without scaling of the logits.

  Args:
    query: `[batch, queries, heads, head_dim]`.
    key: `[batch, keys, heads, head_dim]`.
    value: `[batch, keys, heads, head_dim]`.
    bias: added to the logits, broadcastable to `[batch, heads, queries, keys]`, or None.
    dropout_rng: key of the dropout.
    dropout_rate: dropout rate of the weights; the mask is shared by all queries.
    deterministic: whether to disable dropout.
    dtype: dtype of the weights.
    float32_logits: whether to compute the logits in float32.

  Returns:
    `[batch, queries, heads, head_dim]`.
  """
  if float32_logits:
    query, key = query.astype(jnp.float32), key.astype(jnp.float32)
  logits = jnp.einsum('bqhd,bkhd->bhqk', query, key)
  if bias is not None:
    logits = logits + bias.astype(logits.dtype)
  weights = jax.nn.softmax(logits).astype(dtype)
  if dropout_rate > 0.0 and not deterministic:
    kept = jax.random.bernoulli(dropout_rng, 1.0 - dropout_rate, (*weights.shape[:2], 1, weights.shape[3]))
    weights = weights * (kept.astype(weights.dtype) / jnp.asarray(1.0 - dropout_rate, dtype))
  return jnp.einsum('bhqk,bkhd->bqhd', weights, value)


class MultiHeadDotProductAttention(nn.Module):
  """Multi-head attention.

  Attributes:
    num_heads: number of heads.
    head_dim: dimension of a head.
    dtype: dtype of the computation.
    dropout_rate: dropout rate of the attention weights.
    kernel_init: initializer; the query kernel is divided by sqrt(head_dim) instead of scaling the logits.
    float32_logits: whether to compute the logits in float32.
  """

  num_heads: int
  head_dim: int
  dtype: DType = jnp.float32
  dropout_rate: float = 0.0
  kernel_init: Initializer = _attention_init
  float32_logits: bool = False

  @nn.compact
  def __call__(
    self,
    inputs_q: Array,
    inputs_kv: Array,
    mask: Array | None = None,
    bias: Array | None = None,
    *,
    decode: bool = False,
    deterministic: bool = False,
  ) -> Array:
    """Return the attention output, `[batch, queries, features]`.

    With `decode`, the first call allocates the collection `cache` for the length of its inputs. Each further call takes
    one position and appends its key and value to the cache.

    Args:
      inputs_q: `[batch, queries, features]`.
      inputs_kv: `[batch, keys, features]`.
      mask: visible positions (> 0), broadcastable to `[batch, heads, queries, keys]`, or None.
      bias: added to the logits, `[1, heads, queries, keys]`, for all positions even with `decode`; or None.
      decode: see above.
      deterministic: whether to disable dropout; otherwise the random stream `dropout` is needed.
    """

    def project(name, init):
      return DenseGeneral(
        (self.num_heads, self.head_dim),
        dtype=self.dtype,
        kernel_init=init,
        kernel_axes=('embed', 'joined_kv'),
        name=name,
      )

    def scaled_init(*args):
      return self.kernel_init(*args) / jnp.sqrt(self.head_dim).astype(self.dtype)

    query = project('query', scaled_init)(inputs_q)
    key = project('key', self.kernel_init)(inputs_kv)
    value = project('value', self.kernel_init)(inputs_kv)
    query, key, value = (with_sharding_constraint(x, ('batch', 'length', 'heads', 'kv')) for x in (query, key, value))
    if decode:
      key, value, position = self._cached(query, key, value)
      if position is not None:
        seen = jnp.arange(key.shape[1]) <= position
        mask = combine_masks(mask, jnp.broadcast_to(seen, (key.shape[0], 1, 1, key.shape[1])))
        bias = None if bias is None else jax.lax.dynamic_slice_in_dim(bias, position, 1, axis=-2)
    hidden = None if mask is None else jnp.where(mask > 0, 0.0, MASKED_LOGIT).astype(self.dtype)
    drop = self.dropout_rate > 0.0 and not deterministic
    x = dot_product_attention(
      query,
      key,
      value,
      combine_biases(hidden, bias),
      self.make_rng('dropout') if drop else None,
      self.dropout_rate,
      deterministic,
      self.dtype,
      self.float32_logits,
    )
    return DenseGeneral(
      inputs_q.shape[-1],
      axis=(-2, -1),
      kernel_init=self.kernel_init,
      kernel_axes=('joined_kv', 'embed'),
      dtype=self.dtype,
      name='out',
    )(x)

  def _cached(self, query, key, value):
    """Return (keys, values, position): all so far, `[batch, length, heads, head_dim]`; the first position is None.

    The cache is `[batch, heads, head_dim, length]`, as in t5x.
    """
    is_filled = self.has_variable('cache', 'cached_key')
    shape = tuple(np.array(key.shape)[[0, 2, 3, 1]])
    cached = [self.variable('cache', f'cached_{name}', jnp.zeros, shape, key.dtype) for name in ('key', 'value')]
    index = self.variable('cache', 'cache_index', lambda: jnp.array(0, jnp.int32))
    if not is_filled:
      return key, value, None
    batch, heads, head_dim, _ = cached[0].value.shape
    if query.shape != (batch, 1, heads, head_dim):
      raise ValueError(f'queries of a cached step are {query.shape}; they must be {(batch, 1, heads, head_dim)}')
    position = index.value
    for variable, new in zip(cached, (key, value), strict=True):
      column = new.transpose(0, 2, 3, 1).astype(variable.value.dtype)
      variable.value = jax.lax.dynamic_update_slice_in_dim(variable.value, column, position, axis=3)
    index.value = position + 1
    return *(variable.value.transpose(0, 3, 1, 2) for variable in cached), position


def _as_tuple(x) -> tuple:
  return tuple(x) if isinstance(x, Iterable) else (x,)


class DenseGeneral(nn.Module):
  """A linear layer without bias over any axes, with a 2-D kernel.

  Attributes:
    features: size of the output's last axis, or sizes of its last axes.
    axis: axis or axes of the input to contract.
    dtype: dtype of the computation.
    kernel_init: initializer of the kernel.
    kernel_axes: logical axes of the kernel.
  """

  features: Iterable[int] | int
  axis: Iterable[int] | int = -1
  dtype: DType = jnp.float32
  kernel_init: Initializer = _dense_init
  kernel_axes: tuple[str, ...] = ()

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    """Return the input with `axis` replaced by `features`, which come last."""
    features = _as_tuple(self.features)
    axes = tuple(axis % inputs.ndim for axis in _as_tuple(self.axis))
    sizes = tuple(inputs.shape[axis] for axis in axes)
    shape = (math.prod(sizes), math.prod(features))
    kernel = param_with_axes('kernel', self.kernel_init, shape, jnp.float32, axes=self.kernel_axes)
    kernel = kernel.astype(self.dtype).reshape(sizes + features)
    return jnp.tensordot(jnp.asarray(inputs, self.dtype), kernel, (axes, tuple(range(len(axes)))))


def _activation(name: str | Callable) -> Callable:
  if callable(name):
    return name
  if not isinstance(name, str):
    raise ValueError(f'activation is {name!r}; it must be a function or the name of one in flax.linen')
  return (lambda x: x) if name == 'linear' else getattr(nn, name)


class MlpBlock(nn.Module):
  """MLP whose hidden layer is the product of several linear layers with activations (a gated MLP if there are two).

  Attributes:
    intermediate_dim: hidden dimension.
    activations: functions, or their names in flax.linen, or 'linear'.
    kernel_init: initializer of the kernels.
    intermediate_dropout_rate: dropout rate of the hidden layer; the mask is shared by all positions.
    dtype: dtype of the computation.
  """

  intermediate_dim: int = 2048
  activations: Sequence[str | Callable] = ('relu',)
  kernel_init: Initializer = _dense_init
  intermediate_dropout_rate: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, inputs: Array, decode: bool = False, deterministic: bool = False) -> Array:
    """Return `[..., length, features]` for inputs of that shape."""
    dense = functools.partial(DenseGeneral, dtype=self.dtype, kernel_init=self.kernel_init)
    names = ['wi'] if len(self.activations) == 1 else [f'wi_{index}' for index in range(len(self.activations))]
    parts = [
      _activation(activation)(dense(self.intermediate_dim, kernel_axes=('embed', 'mlp'), name=name)(inputs))
      for name, activation in zip(names, self.activations, strict=True)
    ]
    x = functools.reduce(operator.mul, parts)
    x = nn.Dropout(self.intermediate_dropout_rate, broadcast_dims=(-2,))(x, deterministic=deterministic)
    x = with_sharding_constraint(x, ('batch', 'length', 'mlp'))
    return dense(inputs.shape[-1], kernel_axes=('mlp', 'embed'), name='wo')(x)


class Embed(nn.Module):
  """An embedding table.

  Attributes:
    num_embeddings: number of embeddings.
    features: dimension of an embedding.
    cast_input_dtype: dtype that inputs are cast to first, or None.
    dtype: dtype of the result.
    attend_dtype: dtype of `attend`; None is `dtype`.
    embedding_init: initializer of the table.
    one_hot: whether to look up rows by a product with one-hot vectors, which some partitionings need.
  """

  num_embeddings: int
  features: int
  cast_input_dtype: DType | None = None
  dtype: DType = jnp.float32
  attend_dtype: DType | None = None
  embedding_init: Initializer = default_embed_init
  one_hot: bool = False

  def setup(self):
    """Create the table."""
    shape = (self.num_embeddings, self.features)
    self.embedding = param_with_axes('embedding', self.embedding_init, shape, jnp.float32, axes=('vocab', 'embed'))

  def __call__(self, inputs: Array) -> Array:
    """Return the embeddings `[..., features]` of ids, int `[...]`; ValueError for other dtypes."""
    if self.cast_input_dtype:
      inputs = inputs.astype(self.cast_input_dtype)
    if not jnp.issubdtype(inputs.dtype, jnp.integer):
      raise ValueError('Input type must be an integer or unsigned integer.')
    table = jnp.asarray(self.embedding, self.dtype)
    if self.one_hot:
      return jnp.dot(jax.nn.one_hot(inputs, self.num_embeddings, dtype=self.dtype), table)
    return with_sharding_constraint(table[inputs], ('batch', 'length', 'embed'))

  def attend(self, query: Array) -> Array:
    """Return the dot products of `query` `[..., features]` with each embedding, `[..., num_embeddings]`."""
    return jnp.dot(query, jnp.asarray(self.embedding, self.attend_dtype or self.dtype).T)


class FixedEmbed(nn.Module):
  """A fixed table of position embeddings.

  Attributes:
    features: dimension of an embedding.
    max_length: number of positions.
    embedding_init: initializer of the table.
    dtype: dtype of the table.
  """

  features: int
  max_length: int = 2048
  embedding_init: Initializer = sinusoidal()
  dtype: DType = jnp.float32

  @nn.compact
  def __call__(self, inputs: Array, *, decode: bool = False) -> Array:
    """Return the embeddings of positions, int `[batch, length]`; with `decode` of the next one, `[1, features]`."""
    table = self.embedding_init(None, (self.max_length, self.features), self.dtype)
    if not decode:
      return jnp.take(table, inputs, axis=0)
    index = self.variable('cache', 'position_embedder_index', lambda: jnp.array(-1).astype(jnp.uint32))
    position = index.value
    index.value = position + 1
    return jax.lax.dynamic_slice(table, (position, jnp.zeros_like(position)), (1, self.features))


class LayerNorm(nn.Module):
  """T5's layer norm: division by the root mean square in float32, and a learned scale.

  Attributes:
    epsilon: added to the mean square.
    dtype: dtype of the result.
    scale_init: initializer of the scale.
  """

  epsilon: float = 1e-6
  dtype: Any = jnp.float32
  scale_init: Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Return the normalized `x` `[..., features]`."""
    x = jnp.asarray(x, jnp.float32)
    scale = param_with_axes('scale', self.scale_init, (x.shape[-1],), jnp.float32, axes=('embed',))
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
    return jnp.asarray(x * inverse, self.dtype) * jnp.asarray(scale, self.dtype)


def make_attention_mask(
  query_input: Array,
  key_input: Array,
  pairwise_fn: Callable = jnp.multiply,
  extra_batch_dims: int = 0,
  dtype: DType = jnp.float32,
) -> Array:
  """Return `pairwise_fn` of each query and key, `[batch, 1, queries, keys]`; the axis of size 1 is for the heads.

  Args:
    query_input: `[batch, queries]`.
    key_input: `[batch, keys]`.
    pairwise_fn: elementwise comparison.
    extra_batch_dims: number of leading axes of size 1 to add.
    dtype: dtype of the result.
  """
  mask = pairwise_fn(query_input[..., :, None], key_input[..., None, :])[..., None, :, :]
  return jnp.expand_dims(mask, tuple(range(extra_batch_dims))).astype(dtype)


def make_causal_mask(x: Array, extra_batch_dims: int = 0, dtype: DType = jnp.float32) -> Array:
  """Return a causal mask `[batch, 1, length, length]` for `x` `[batch, length]`: query i attends to keys 0..i."""
  positions = jnp.broadcast_to(jnp.arange(x.shape[-1], dtype=jnp.int32), x.shape)
  return make_attention_mask(positions, positions, jnp.greater_equal, extra_batch_dims, dtype)


def _same_rank(arrays) -> list:
  given = [array for array in arrays if array is not None]
  if len({array.ndim for array in given}) > 1:
    raise AssertionError(f'masks must have same rank: {tuple(array.ndim for array in given)}')
  return given


def combine_masks(*masks: Array | None, dtype: DType = jnp.float32) -> Array | None:
  """Return the logical AND of the masks that are not None, or None. AssertionError if their ranks differ."""
  given = _same_rank(masks)
  return functools.reduce(jnp.logical_and, given).astype(dtype) if given else None


def combine_biases(*masks: Array | None) -> Array | None:
  """Return the sum of the biases that are not None, or None. AssertionError if their ranks differ."""
  given = _same_rank(masks)
  return functools.reduce(operator.add, given) if given else None


def make_decoder_mask(
  decoder_target_tokens: Array,
  dtype: DType,
  decoder_causal_attention: Array | None = None,
  decoder_segment_ids: Array | None = None,
) -> Array:
  """Return a decoder's mask `[batch, 1, length, length]`: causal, without padding, and within packed examples.

  Args:
    decoder_target_tokens: `[batch, length]`, 0 is padding.
    dtype: dtype of the result.
    decoder_causal_attention: `[batch, length]`, 1 at positions that attend to each other in both directions; or None.
    decoder_segment_ids: `[batch, length]`, ids of the examples packed into a row; or None.
  """
  causal = make_causal_mask(decoder_target_tokens, dtype=dtype)
  if decoder_causal_attention is not None:
    both_ways = make_attention_mask(decoder_causal_attention, decoder_causal_attention, jnp.logical_and, dtype=dtype)
    causal = jnp.logical_or(causal, both_ways)
  real = make_attention_mask(decoder_target_tokens > 0, decoder_target_tokens > 0, dtype=dtype)
  packed = None
  if decoder_segment_ids is not None:
    packed = make_attention_mask(decoder_segment_ids, decoder_segment_ids, jnp.equal, dtype=dtype)
  return combine_masks(causal, real, packed, dtype=dtype)
