"""Logits processors: they change the logits of the next token before one is chosen.

A processor is made inside the jitted function that decodes. Its state is a pytree that the greedy loop carries.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mrmt3.special_tokens import PAD_ID
from mrmt3.tokens.event_state import next_event_state, within
from mrmt3.tokens.token_ids import TokenIds


class LogitsProcessor(Protocol):
  """A change of logits."""

  def init(self, batch: int, max_length: int) -> Any:
    """Return the state before the first token."""

  def __call__(self, logits: jax.Array, state: Any, last: jax.Array, tokens: jax.Array, position: jax.Array):
    """Process the logits of one position.

    Args:
      logits: float `[batch, vocab]`, of the next token.
      state: what `init` or the call before returned.
      last: int `[batch]`, the token before, which is the decoder's input.
      tokens: int `[batch, max_length]`, the tokens so far, then padding.
      position: int scalar, where the next token will stand.

    Returns:
      (logits, state).
    """


class AllowedTokens:
  """Forbids all tokens but some."""

  def __init__(self, allowed: jax.Array):
    """Take bool `[vocab]`."""
    self._allowed = allowed

  def init(self, batch: int, max_length: int) -> None:
    """Return no state."""

  def __call__(self, logits, state, last, tokens, position):
    """Mask the logits."""
    return jnp.where(self._allowed, logits, -jnp.inf), state


class _Emitted(NamedTuple):
  """The event state of the last token `[batch, 4]`, and those at every position `[batch, length, 4]`."""

  current: jax.Array
  history: jax.Array


class NoRepeatedEvents:
  """Forbids to complete an event that the segment has already, and padding, which is not for a decoder to emit.

  An event is a pitch or drum token with its time, velocity and program. So a drum can be repeated once the program has
  changed.
  """

  def __init__(self, ids: TokenIds):
    """Take the ids of the vocabulary's tokens."""
    self._ids = ids

  def init(self, batch: int, max_length: int) -> _Emitted:
    """Return the state before the first token."""
    kinds = len(self._ids.state)
    return _Emitted(jnp.zeros((batch, kinds), jnp.int32), jnp.zeros((batch, max_length, kinds), jnp.int32))

  def __call__(self, logits, state, last, tokens, position):
    """Forbid what would repeat an event."""
    current = next_event_state(state.current, last, self._ids.state)
    same_state = (state.history == current[:, None]).all(axis=-1)
    repeated = within(tokens, self._ids.event_ends) & same_state
    rows = jnp.arange(len(tokens))[:, None]
    logits = logits.at[rows, jnp.where(repeated, tokens, PAD_ID)].set(-jnp.inf)
    history = jax.lax.dynamic_update_slice_in_dim(state.history, current[:, None], position, axis=1)
    return logits, _Emitted(current, history)
