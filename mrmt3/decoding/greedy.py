"""Greedy decoding with a key/value cache, all of it on the device."""

import functools

import jax
import jax.numpy as jnp

from mrmt3.decoding import cached_decoder, logits_processors
from mrmt3.framewise import token_decoder
from mrmt3.network import T5Config, Transformer

START_ID = 0
PAD_ID = 0
EOS_ID = 1
FIRST_CACHE = 64  # positions that it has at most


def greedy_decode(
  params,
  config: T5Config,
  encoded: jax.Array,
  max_length: int,
  active: jax.Array | None = None,
  allowed: jax.Array | None = None,
  weights: dict | None = None,
) -> jax.Array:
  """Decodes greedily until every row has produced EOS; to be called inside a jitted function.

  A row's tokens are those that teacher forcing with them would rank first; with `T5Config.copy_threshold` or `say_once` they need not be.

  Args:
    params: the network's parameters.
    config: the network's configuration.
    encoded: what `Transformer.encode` returned, `[batch, states, emb]` or rows to copy.
    max_length: most tokens a row can have, EOS included; static.
    active: bool `[batch]`, rows to decode; the others yield padding. None: all.
    allowed: bool `[vocab]`, the tokens that may be said. None: all.
    weights: the decoder's parameters as `decoder_step.pack` lays them out; None: that is done here, once a call. Without a decoder
      (`T5Config.copied_tokens`) neither these nor `params` are looked at.

  Returns:
    int32 `[batch, max_length]`: tokens, EOS, then padding (0); no EOS if `max_length` was not enough.
  """
  rooms = [max_length]
  if config.copied_tokens:
    cache = token_decoder.init_cache(encoded)
  else:
    # Empty room in a cache costs as much as keys, and to leave it out by a slice is to copy the rest: so the cache grows.
    while rooms[0] > FIRST_CACHE:
      rooms.insert(0, -(-rooms[0] // 2))
    weights = cached_decoder.pack(params['decoder'], config) if weights is None else weights
    cache = cached_decoder.init_cache(weights, config, encoded, rooms[0])

  def step(state):
    position, last, tokens, done, statuses, cache = state
    if config.copied_tokens:
      logits, cache = token_decoder.step(config, last, cache, allowed)
    else:
      logits, cache = cached_decoder.step(weights, config, last, position, cache, max_length)
    if allowed is not None:
      logits = jnp.where(allowed, logits, -jnp.inf)
    if config.say_once:
      status = cache['status'][:, : len(config.running_status)]
      logits = logits_processors.forbid(logits, status, tokens, statuses, config.event_ends)
      statuses = jax.lax.dynamic_update_slice_in_dim(statuses, status[:, None], position, axis=1)
    token = jnp.where(done, PAD_ID, logits.argmax(axis=-1).astype(jnp.int32))
    tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[:, None], position, axis=1)
    return position + 1, token, tokens, done | (token == EOS_ID), statuses, cache

  batch = encoded.shape[0]
  done = jnp.zeros(batch, bool) if active is None else ~active
  statuses = jnp.zeros((batch, max_length, len(config.running_status)), jnp.int32) if config.say_once else None
  state = (jnp.int32(0), jnp.full(batch, START_ID), jnp.full((batch, max_length), PAD_ID), done, statuses, cache)

  def fill(room, state):
    return jax.lax.while_loop(lambda state: (state[0] < room) & ~state[3].all(), step, state)

  state = fill(rooms[0], state)
  for room in rooms[1:]:
    state = fill(room, (*state[:-1], cached_decoder.grow(state[-1], room)))
  return state[2]


@functools.partial(jax.jit, static_argnames=('config', 'max_length'))
def transcribe_segments(
  params,
  inputs: jax.Array,
  prior_tokens: jax.Array | None,
  active: jax.Array | None = None,
  allowed: jax.Array | None = None,
  weights: dict | None = None,
  heard: jax.Array | None = None,
  adjacent: jax.Array | None = None,
  *,
  config: T5Config,
  max_length: int,
) -> jax.Array:
  """Encodes segments with their memory and decodes them greedily; jitted, compiled once a shape.

  Args:
    params: the network's parameters.
    inputs: log-mel frames `[batch, frames, mel]`.
    prior_tokens: int `[batch, prior]` for a network with memory, else None.
    active: bool `[batch]`, rows to decode, or None: all.
    allowed: bool `[vocab]`, the tokens that may be said, or None: all.
    weights: of `pack_decoder`, or None; with them `params` are looked at for the encoder and the embedding only.
    heard: see `Transformer.encode`, like adjacent.
    adjacent: see heard.
    config: the network's configuration.
    max_length: most tokens a row can have, EOS included.

  Returns:
    int32 `[batch, max_length]`: tokens, EOS, then padding (0).
  """
  encoded = Transformer(config).apply(
    {'params': params},
    inputs,
    prior_tokens=prior_tokens,
    heard=heard,
    adjacent=adjacent,
    enable_dropout=False,
    method=Transformer.encode,
  )
  return greedy_decode(params, config, encoded, max_length, active, allowed, weights)


@functools.partial(jax.jit, static_argnames='config')
def pack_decoder(decoder: dict, config: T5Config) -> dict:
  """Returns a decoder's parameters laid out for decoding, so that it need not be done for every segment; jitted."""
  return cached_decoder.pack(decoder, config)
