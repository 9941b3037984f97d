"""The event state of a position in a token sequence: the last token of each kind up to there.

As in MIDI's running status, a pitch or drum token takes its time, velocity and program from the tokens before it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.tokens.token_ids import Range


def within(tokens: jax.Array, ranges: tuple[Range, ...]) -> jax.Array:
  """Return whether tokens lie in any of the ranges (first, last), bool of the tokens' shape."""
  return functools.reduce(jnp.logical_or, [(tokens >= first) & (tokens <= last) for first, last in ranges])


def event_state(tokens: jax.Array, ranges: tuple[Range, ...], ends: tuple[Range, ...] = ()) -> jax.Array:
  """Return the last token of each range at or before each position.

  Args:
    tokens: int `[batch, length]`, model ids.
    ranges: `TokenIds.state`, or some of it.
    ends: `TokenIds.event_ends`, to append the last complete event, or ().

  Returns:
    int `[batch, length, len(ranges)]`, 0 where there is none yet. With `ends` follow the same numbers at the last token
    that completed an event, and that token: `len(ranges) + 1` more.
  """
  place = jnp.arange(tokens.shape[1])

  def latest(values, marked):
    """Return the row of `values` `[batch, length, n]` at the last mark up to each position, 0 without one."""
    index = jax.lax.cummax(jnp.where(marked, place, -1), axis=1)[..., None]
    return jnp.where(index < 0, 0, jnp.take_along_axis(values, jnp.maximum(index, 0), axis=1))

  own = tokens[..., None]
  state = jnp.concatenate([latest(own, within(tokens, (pair,))) for pair in ranges], axis=-1)
  if not ends:
    return state
  event = latest(jnp.concatenate([state, own], axis=-1), within(tokens, ends))
  return jnp.concatenate([state, event], axis=-1)


def next_event_state(
  state: jax.Array, tokens: jax.Array, ranges: tuple[Range, ...], ends: tuple[Range, ...] = ()
) -> jax.Array:
  """Return the event state `[batch, n]`, as of `event_state`, after one more token `[batch]`."""
  first, last = np.array(ranges).T
  token = tokens[:, None]
  state, event = state[:, : len(ranges)], state[:, len(ranges) :]
  state = jnp.where((token >= first) & (token <= last), token, state)
  if not ends:
    return state
  event = jnp.where(within(token, ends), jnp.concatenate([state, token], axis=-1), event)
  return jnp.concatenate([state, event], axis=-1)
