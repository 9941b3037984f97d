"""The running status of a position: what was said last, of each type of token, up to there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def within(tokens: jax.Array, ranges: tuple[tuple[int, int], ...]) -> jax.Array:
  """Returns whether tokens lie in any of the ranges, bool of their shape."""
  return functools.reduce(jnp.logical_or, [(tokens >= first) & (tokens <= last) for first, last in ranges])


def running_status(
  tokens: jax.Array, ranges: tuple[tuple[int, int], ...], ends: tuple[tuple[int, int], ...] = ()
) -> jax.Array:
  """Returns the last token of each range at or before each position, int `[batch, length, ranges]`, 0 where there is none.

  With `ends` (`T5Config.event_ends`) there follow the same at the last token of those, and that token: `ranges + 1` numbers more.
  """
  place = jnp.arange(tokens.shape[1])

  def latest(values, marked):
    """Returns the row of `values` `[batch, length, n]` at the last mark at or before each position, 0 where there is none."""
    index = jax.lax.cummax(jnp.where(marked, place, -1), axis=1)[..., None]
    return jnp.where(index < 0, 0, jnp.take_along_axis(values, jnp.maximum(index, 0), axis=1))

  own = tokens[..., None]
  status = jnp.concatenate([latest(own, within(tokens, (pair,))) for pair in ranges], axis=-1)
  if not ends:
    return status
  event = latest(jnp.concatenate([status, own], axis=-1), within(tokens, ends))
  return jnp.concatenate([status, event], axis=-1)


def next_status(
  status: jax.Array, tokens: jax.Array, ranges: tuple[tuple[int, int], ...], ends: tuple[tuple[int, int], ...] = ()
) -> jax.Array:
  """Returns the running status `[batch, n]`, of `running_status`, after one more token `[batch]`."""
  first, last = np.array(ranges).T
  token = tokens[:, None]
  status, event = status[:, : len(ranges)], status[:, len(ranges) :]
  status = jnp.where((token >= first) & (token <= last), token, status)
  if not ends:
    return status
  event = jnp.where(within(token, ends), jnp.concatenate([status, token], axis=-1), event)
  return jnp.concatenate([status, event], axis=-1)
