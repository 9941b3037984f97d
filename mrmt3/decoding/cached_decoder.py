"""MT3's decoder one position at a time, as `network.Decoder`, laid out for memory bandwidth.

Decoding reads every weight once per token, so it is as fast as they can be read. XLA's CPU products read a matrix
fastest along its rows, with the batch as the short side: `[outputs, inputs] @ [inputs, batch]`. So weights are
transposed once (`pack`), those that share an input are joined, and the residual stream is `[emb, batch]`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3.nn import attention, layers

FIRST_CACHE = 64  # most positions that the cache has at first
_EPSILON = 1e-6  # as layers.LayerNorm
# Of the decoder, encoding needs the embedding only, for the memory.
_DECODING_ONLY = ('layers_', 'decoder_norm', 'logits_dense')


@dataclasses.dataclass(frozen=True)
class CachedDecoder:
  """A `StepDecoder` over the parameters of `network.Decoder`.

  Subclasses change what a position starts from in `pack_inputs`, `init_state` and `embed`.

  Attributes:
    config: the network's configuration, with the fields of `network.T5Config`.
    max_length: the number of positions that will ever be asked for: the size of the position table.
  """

  config: Any
  max_length: int

  def pack_inputs(self, decoder: Mapping) -> dict:
    """Return parameters that `embed` needs besides the embedding table, of a Transformer's `decoder`."""
    return {}

  def init_state(self, batch: int) -> Any:
    """Return what `embed` carries from one position to the next, before the first."""
    return None

  def embed(self, weights: dict, tokens: jax.Array, table: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """Return what the layers start from, `[batch, emb]`, and the state.

    Args:
      weights: of `pack`.
      tokens: int `[batch]`, the input tokens.
      table: `[emb]`, the row of the position table.
      state: of `init_state` or the call before.
    """
    return weights['embedding'][tokens] + table, state

  def pack(self, params: Mapping) -> dict:
    """Return a Transformer's parameters as `init_cache` and `step` take them."""
    decoder, config = params['decoder'], self.config
    dtype = jnp.dtype(config.dtype)

    def rows(part, *names):
      return jnp.concatenate([part[name]['kernel'] for name in names], axis=1).T.astype(dtype)

    def layer(part):
      own, cross, mlp = part['self_attention'], part['encoder_decoder_attention'], part['mlp']
      inner = sorted(name for name in mlp if name != 'wo')
      return {
        'norms': [part[f'pre_{name}_layer_norm']['scale'] for name in ('self_attention', 'cross_attention', 'mlp')],
        'self_in': rows(own, 'query', 'key', 'value'),
        'self_out': rows(own, 'out'),
        'cross_in': rows(cross, 'query'),
        'cross_out': rows(cross, 'out'),
        'cross_context': [cross[name]['kernel'].astype(dtype) for name in ('key', 'value')],
        'mlp_in': rows(mlp, *inner),
        'mlp_out': rows(mlp, 'wo'),
      }

    if config.logits_via_embedding:
      logits = decoder['token_embedder']['embedding'] / np.sqrt(config.emb_dim)
    else:
      logits = decoder['logits_dense']['kernel'].T
    return {
      'embedding': decoder['token_embedder']['embedding'].astype(dtype),
      'layers': [layer(decoder[f'layers_{index}']) for index in range(config.num_decoder_layers)],
      'norm': decoder['decoder_norm']['scale'],
      'logits': logits.astype(jnp.float32),
      **self.pack_inputs(decoder),
    }

  def encoder_params(self, params: Mapping) -> dict:
    """Return the parameters without those parts of the decoder that encoding does not need."""
    # flax wants what `Decoder.setup` declares besides submodules, which is small.
    kept = {name: part for name, part in params['decoder'].items() if not name.startswith(_DECODING_ONLY)}
    return {**params, 'decoder': kept}

  def init_cache(self, weights: dict, encoded: jax.Array, length: int, allowed: jax.Array | None = None) -> dict:
    """Return what the first step needs, see `StepDecoder`.

    `layers` has a dict each: room for `length` positions, and the keys and values of `encoded`
    `[batch, encoder frames, emb]`, those of each softmax in a pair of their own; all of them
    `[batch * heads, positions, head_dim]`.
    """
    config = self.config
    batch, frames, _ = encoded.shape
    rows = batch * config.num_heads
    room = jnp.zeros((rows, length, config.head_dim), config.dtype)
    caches = []
    for part in weights['layers']:
      context = [jnp.dot(encoded.astype(config.dtype), kernel) for kernel in part['cross_context']]
      keys, values = (
        x.reshape(batch, frames, config.num_heads, config.head_dim).transpose(0, 2, 1, 3).reshape(rows, frames, -1)
        for x in context
      )
      # Parted once: in the loop over tokens a slice would be copied for each.
      cross = attention.parted(config.decoupled_frames, keys, values)
      caches.append({'self_keys': room, 'self_values': room, 'cross': cross})
    return {'layers': caches, 'state': self.init_state(batch)}

  def cache_lengths(self, max_length: int) -> list[int]:
    """Return the lengths of the growing cache, the last one `max_length`."""
    # Empty room in a cache costs as much as keys, and to leave it out by a slice is to copy the rest: so the cache
    # grows.
    lengths = [max_length]
    while lengths[0] > FIRST_CACHE:
      lengths.insert(0, -(-lengths[0] // 2))
    return lengths

  def grow(self, cache: dict, length: int) -> dict:
    """Return a cache with room for `length` positions, which must not be fewer than it has room for."""

    def grown(x):
      return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0)))

    stepped = [
      {**part, **{name: grown(part[name]) for name in ('self_keys', 'self_values')}} for part in cache['layers']
    ]
    return {**cache, 'layers': stepped}

  def step(self, weights: dict, tokens: jax.Array, position: jax.Array, cache: dict) -> tuple[jax.Array, dict]:
    """Compute one position, see `StepDecoder`."""
    config = self.config
    table = layers.sinusoidal_positions(self.max_length, config.emb_dim, config.positions)
    x, state = self.embed(weights, tokens, jnp.asarray(table, config.dtype)[position], cache['state'])
    x, stepped = x.T, []
    for part, layer_cache in zip(weights['layers'], cache['layers'], strict=True):
      x, layer_cache = _layer(part, config, x, position, layer_cache)
      stepped.append(layer_cache)
    x = _norm(x, weights['norm'], config).astype(jnp.float32)
    return _product(weights['logits'], x).T, {**cache, 'layers': stepped, 'state': state}


def _product(weights, x):
  """Return `weights @ x`, to be transposed: XLA turns that into a product of transposes, which is slow on CPUs."""
  return jax.lax.optimization_barrier(jnp.dot(weights, x))


def _layer(part, config, x, position, cache):
  y = _norm(x, part['norms'][0], config)
  query, key, value = jnp.split(_product(part['self_in'], y), 3)
  keys, values = (
    jax.lax.dynamic_update_slice_in_dim(cache[name], _by_head(new, config), position, axis=1)
    for name, new in (('self_keys', key), ('self_values', value))
  )
  found = attention.attend(_by_head(query, config), keys, values, jnp.arange(keys.shape[1]) <= position)
  x = x + jnp.dot(part['self_out'], _joined(found, config))
  y = _norm(x, part['norms'][1], config)
  query = _by_head(_product(part['cross_in'], y), config)
  found = attention.attend_parts(query, cache['cross'])
  x = x + jnp.dot(part['cross_out'], _joined(found, config))
  hidden = None
  inner = jnp.split(jnp.dot(part['mlp_in'], _norm(x, part['norms'][2], config)), len(config.mlp_activations))
  for y, activation in zip(inner, config.mlp_activations, strict=True):
    y = y if activation == 'linear' else getattr(nn, activation)(y)
    hidden = y if hidden is None else hidden * y
  return x + jnp.dot(part['mlp_out'], hidden), {**cache, 'self_keys': keys, 'self_values': values}


def _norm(x, scale, config):
  x = x.astype(jnp.float32)
  inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=0, keepdims=True) + _EPSILON)
  return (x * inverse).astype(config.dtype) * scale.astype(config.dtype)[:, None]


def _by_head(x, config):
  """Return `[heads * head_dim, batch]` as `[batch * heads, 1, head_dim]`."""
  return x.T.reshape(-1, 1, config.head_dim)


def _joined(x, config):
  """Return `[batch * heads, 1, head_dim]` as `[heads * head_dim, batch]`."""
  return x.reshape(-1, config.num_heads * config.head_dim).T
