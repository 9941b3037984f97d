"""The decoder one position at a time, as `network.Decoder`, laid out for the memory bus.

Decoding reads every weight once a token, so it is as fast as they can be read. XLA's CPU products read a matrix fastest along
its rows, with the batch as the short side: `[outputs, inputs] @ [inputs, batch]`. So weights are transposed once (`pack`), those
that share an input are joined, and the residual stream is `[emb, batch]`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3.network import T5Config, named_status, status_width
from mrmt3.nn import attention, layers
from mrmt3.tokens.event_state import next_status

_EPSILON = 1e-6  # as layers.LayerNorm


def pack(decoder: dict, config: T5Config) -> dict:
  """Returns a decoder's parameters (a Transformer's `decoder`) as `init_cache` and `step` take them."""
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
    'status_scale': decoder['status_scale'].astype(dtype) if config.running_status else None,
    'event_map': decoder['event_map'].astype(dtype) if config.event_ends else None,
    'logits': logits.astype(jnp.float32),
  }


def init_cache(weights: dict, config: T5Config, encoded: jax.Array, length: int) -> dict:
  """Returns what the first step needs: `layers`, a dict each, and the running `status`, int `[batch, n]`.

  A layer has room for `length` positions, and the keys and values of `encoded` `[batch, states, emb]`, those of each softmax in a pair
  of their own; all of them `[batch * heads, positions, head_dim]`.
  """
  batch, states, _ = encoded.shape
  rows = batch * config.num_heads
  room = jnp.zeros((rows, length, config.head_dim), config.dtype)
  caches = []
  for part in weights['layers']:
    context = [jnp.dot(encoded.astype(config.dtype), kernel) for kernel in part['cross_context']]
    keys, values = (
      x.reshape(batch, states, config.num_heads, config.head_dim).transpose(0, 2, 1, 3).reshape(rows, states, -1)
      for x in context
    )
    # Parted once: in the loop over tokens a slice would be copied for each.
    caches.append(
      {'self_keys': room, 'self_values': room, 'cross': attention.parted(config.states_apart, keys, values)}
    )
  return {'layers': caches, 'status': jnp.zeros((batch, status_width(config)), jnp.int32)}


def grow(cache: dict, length: int) -> dict:
  """Returns a cache with room for `length` positions, which must not be fewer than it has room for."""

  def grown(x):
    return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0)))

  stepped = [{**part, **{name: grown(part[name]) for name in ('self_keys', 'self_values')}} for part in cache['layers']]
  return {**cache, 'layers': stepped}


def step(
  weights: dict, config: T5Config, tokens: jax.Array, position: jax.Array, cache: dict, max_length: int
) -> tuple[jax.Array, dict]:
  """Does one position.

  Args:
    weights: of `pack`.
    config: the network's configuration.
    tokens: int `[batch]`, the input tokens.
    position: int scalar, theirs, below the cache's length.
    cache: of `init_cache` or the step before.
    max_length: the number of positions that will ever be asked for: the size of the position table.

  Returns:
    (logits after them, float32 `[batch, vocab]`, the new cache).
  """
  table = layers.sinusoidal_positions(max_length, config.emb_dim, config.positions)
  x, status = weights['embedding'][tokens] + jnp.asarray(table, config.dtype)[position], cache['status']
  if config.running_status:
    status = next_status(status, tokens, config.running_status, config.event_ends)
    x = x + named_status(status, weights['embedding'], weights['status_scale'], weights['event_map'])
  x, stepped = x.T, []
  for part, layer_cache in zip(weights['layers'], cache['layers'], strict=True):
    x, layer_cache = _layer(part, config, x, position, layer_cache)
    stepped.append(layer_cache)
  x = _norm(x, weights['norm'], config).astype(jnp.float32)
  return _product(weights['logits'], x).T, {**cache, 'layers': stepped, 'status': status}


def _product(weights, x):
  """Returns `weights @ x`, to be transposed: XLA would make that a product of the transposes, which it has no fast code for."""
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
  """Returns `[heads * head_dim, batch]` as `[batch * heads, 1, head_dim]`."""
  return x.T.reshape(-1, 1, config.head_dim)


def _joined(x, config):
  """Returns `[batch * heads, 1, head_dim]` as `[heads * head_dim, batch]`."""
  return x.reshape(-1, config.num_heads * config.head_dim).T
