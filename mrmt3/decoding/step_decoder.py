"""What the greedy loop asks of a decoder."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax


class StepDecoder(Protocol):
  """Decodes one position at a time. Instances are hashable and hold no arrays."""

  def pack(self, params: Mapping) -> Any:
    """Return the parameters of the network as `init_cache` and `step` take them, or None if they need none."""

  def encoder_params(self, params: Mapping) -> Mapping:
    """Return the parameters that `encode` needs, so that the others need not stay on the device twice."""

  def init_cache(self, weights: Any, encoded: jax.Array, length: int, allowed: jax.Array | None = None) -> Any:
    """Return what the first step needs.

    Args:
      weights: what `pack` returned.
      encoded: what `encode` returned.
      length: positions there is room for.
      allowed: bool `[vocab]`, the tokens that may be emitted, or None: all. The loop masks the
        logits in any case; a decoder that weighs alternatives of its own leaves the others out before it does.
    """

  def step(self, weights: Any, tokens: jax.Array, position: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    """Compute one position.

    Args:
      weights: what `pack` returned.
      tokens: int `[batch]`, the input tokens.
      position: int scalar, theirs, below the cache's length.
      cache: what `init_cache` or the step before returned.

    Returns:
      (logits of the next token, float32 `[batch, vocab]`, the new cache).
    """

  def cache_lengths(self, max_length: int) -> list[int]:
    """Return the lengths that the cache has one after the other while it grows; the last is `max_length`."""

  def grow(self, cache: Any, length: int) -> Any:
    """Return a cache with room for `length` positions, at least as many as before."""
