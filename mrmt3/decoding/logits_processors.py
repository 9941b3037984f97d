"""Keeps a decoder from saying an event twice (`T5Config.say_once`)."""

import jax
import jax.numpy as jnp

from mrmt3.special_tokens import PAD_ID
from mrmt3.tokens.event_state import within


def forbid(
  logits: jax.Array, status: jax.Array, tokens: jax.Array, statuses: jax.Array, ends: tuple[tuple[int, int], ...]
) -> jax.Array:
  """Returns the logits with -inf at tokens that would repeat an event, and at padding, which is not for a decoder to say.

  Args:
    logits: float `[batch, vocab]`, of the next token.
    status: int `[batch, ranges]`, the running status that it would have: time, velocity and program.
    tokens: int `[batch, length]`, what has been said, then padding.
    statuses: int `[batch, length, ranges]`, the running status at each.
    ends: `T5Config.event_ends`.
  """
  said = within(tokens, ends) & (statuses == status[:, None]).all(axis=-1)
  rows = jnp.arange(len(tokens))[:, None]
  return logits.at[rows, jnp.where(said, tokens, PAD_ID)].set(-jnp.inf)
