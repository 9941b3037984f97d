"""Attention as functions of queries, keys and values: plain, in blocks for training, and over the prefix of a cache."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

MASKED_LOGIT = -1e10  # finite, so that a query without visible keys attends uniformly to all
SHORTEST_PREFIX = 64  # of a cache, in positions
QUERY_BLOCKS = 4  # of an attention in training
SMALLEST_QUERY_BLOCK = 64


def attend(queries: jax.Array, keys: jax.Array, values: jax.Array, mask=None) -> jax.Array:
  """Attend without scaling the logits; softmax in float32.

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
  """Return keys and values, each `[..., keys, head_dim]`, parted into what shares a softmax.

  With `apart` 0 that is all of them; else all but the last `apart` ones, and these.
  """
  if not apart:
    return [arrays]
  return [tuple(x[..., :-apart, :] for x in arrays), tuple(x[..., -apart:, :] for x in arrays)]


def attend_parts(queries: jax.Array, parts: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
  """As `attend`, for keys and values of `parted`: each part has a softmax of its own, and the results are added."""
  return functools.reduce(operator.add, [attend(queries, *part) for part in parts])


def _blocks(queries: int, keys: int, causal: bool) -> list[tuple[slice, slice]]:
  """Return the (queries, keys) of each block; a causal block needs no keys after its last query."""
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
  """Return a mask for each block of `attend_in_blocks`, bool `[batch, heads, queries, keys]`: the weights that stay.

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

  So no array of queries x keys is kept but the dropout's masks, and a causal attention skips most of what it must not
  see.

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
  """Attend to keys 0..position only, of a cache that does not grow (`MultiHeadDotProductAttention`'s).

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
