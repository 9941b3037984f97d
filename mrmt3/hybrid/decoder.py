"""MR-MT3's decoder with the event state added to its inputs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mrmt3.decoding.cached_decoder import CachedDecoder
from mrmt3.network import Decoder
from mrmt3.nn import layers
from mrmt3.tokens.event_state import event_state, next_event_state
from mrmt3.tokens.token_ids import Range, TokenIds


def _ends(config: Any, tokens: TokenIds) -> tuple[Range, ...]:
  """Return the kinds of tokens that complete an event, if the decoder's inputs include the last event."""
  return tokens.event_ends if config.last_event else ()


def state_width(config: Any, tokens: TokenIds) -> int:
  """Return how many numbers the event state of a position has."""
  kinds = len(tokens.state)
  return 2 * kinds + 1 if config.last_event else kinds


def embed_event_state(state: jax.Array, table: jax.Array, scale: jax.Array, event_map: jax.Array | None) -> jax.Array:
  """Return what is added to token embeddings, `[..., emb]`, for the event state `[..., n]`.

  Args:
    state: of `event_state`.
    table: the embedding table, `[vocab, emb]`.
    scale: `[n, emb]`, how much each of the numbers counts.
    event_map: `[emb, emb]`, maps the embedding of the last event, or None without it.
  """
  named = jnp.where(state[..., None] > 0, table[state], 0) * scale
  if event_map is None:
    return named.sum(axis=-2)
  kinds = (len(scale) - 1) // 2
  return named[..., :kinds, :].sum(axis=-2) + jnp.dot(named[..., kinds:, :].sum(axis=-2), event_map)


class EventStateDecoder(Decoder):
  """`network.Decoder` whose inputs include the event state.

  Attributes:
    tokens: the model ids of the vocabulary's tokens.
  """

  tokens: TokenIds | None = None

  def setup_inputs(self) -> None:
    """Declare the scales of the event state, and the map of the last event."""
    cfg = self.config
    if cfg.event_state:
      self.status_scale = layers.partitioning.param_with_axes(
        'status_scale',
        nn.initializers.ones,
        (state_width(cfg, self.tokens), cfg.emb_dim),
        jnp.float32,
        axes=(None, 'embed'),
      )
    if cfg.last_event:
      self.event_map = layers.partitioning.param_with_axes(
        'event_map', nn.initializers.orthogonal(), (cfg.emb_dim, cfg.emb_dim), jnp.float32, axes=('joined_kv', 'embed')
      )

  def embed_inputs(self, tokens: jax.Array) -> jax.Array:
    """Return the embeddings of tokens `[batch, length]` with those of their event state added."""
    if not self.config.event_state:
      return self.embed(tokens)
    return self._with_state(tokens, event_state(tokens, self.tokens.state, _ends(self.config, self.tokens)))

  def embed_cached(self, tokens: jax.Array, has_cache: bool) -> jax.Array:
    """Return the same for a call with `decode`; the event state is in the collection `cache`."""
    cfg, ids = self.config, self.tokens
    if not cfg.event_state:
      return self.embed(tokens)
    if not has_cache:
      self.put_variable('cache', 'event_state', jnp.zeros((len(tokens), state_width(cfg, ids)), jnp.int32))
      return self.embed_inputs(tokens)
    state = next_event_state(self.get_variable('cache', 'event_state'), tokens[:, 0], ids.state, _ends(cfg, ids))
    self.put_variable('cache', 'event_state', state)
    return self._with_state(tokens, state[:, None])

  def _with_state(self, tokens, state):
    x = self.embed(tokens)
    event_map = self.event_map.astype(x.dtype) if self.config.last_event else None
    return x + embed_event_state(state, self.token_embedder.table(), self.status_scale.astype(x.dtype), event_map)


@dataclasses.dataclass(frozen=True)
class EventStateCachedDecoder(CachedDecoder):
  """`CachedDecoder` for `EventStateDecoder`.

  Attributes:
    tokens: the model ids of the vocabulary's tokens.
  """

  tokens: TokenIds

  def pack_inputs(self, decoder) -> dict:
    """Return the scales of the event state, and the map of the last event."""
    config, dtype = self.config, jnp.dtype(self.config.dtype)
    return {
      'status_scale': decoder['status_scale'].astype(dtype) if config.event_state else None,
      'event_map': decoder['event_map'].astype(dtype) if config.last_event else None,
    }

  def init_state(self, batch: int):
    """Return the event state before the first token, int `[batch, n]`."""
    return jnp.zeros((batch, state_width(self.config, self.tokens)), jnp.int32) if self.config.event_state else None

  def embed(self, weights, tokens, table, state):
    """Return what the layers start from, `[batch, emb]`, and the event state."""
    x = weights['embedding'][tokens] + table
    if not self.config.event_state:
      return x, state
    state = next_event_state(state, tokens, self.tokens.state, _ends(self.config, self.tokens))
    return x + embed_event_state(state, weights['embedding'], weights['status_scale'], weights['event_map']), state
