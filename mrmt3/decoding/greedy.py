"""Greedy decoding with a cache, all of it on the device. It knows no particular network."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mrmt3.decoding.logits_processors import AllowedTokens, LogitsProcessor
from mrmt3.decoding.step_decoder import StepDecoder
from mrmt3.special_tokens import EOS_ID, PAD_ID, START_ID


def greedy_decode(
  decoder: StepDecoder,
  weights: Any,
  encoded: jax.Array,
  max_length: int,
  active: jax.Array | None = None,
  allowed: jax.Array | None = None,
  processors: Sequence[LogitsProcessor] = (),
) -> jax.Array:
  """Decode greedily until every row has produced EOS; to be called inside a jitted function.

  Args:
    decoder: computes the logits of one position after the other.
    weights: what `decoder.pack` returned.
    encoded: what the network's `encode` returned; the batch is its first axis.
    max_length: most tokens a row can have, EOS included; static.
    active: bool `[batch]`, rows to decode; the others yield padding. None: all.
    allowed: bool `[vocab]`, the tokens that may be emitted. None: all.
    processors: applied to the logits, in this order, after `allowed`.

  Returns:
    int32 `[batch, max_length]`: tokens, EOS, then padding (0); no EOS if `max_length` was not enough.
  """
  if allowed is not None:
    processors = (AllowedTokens(allowed), *processors)
  batch, lengths = encoded.shape[0], decoder.cache_lengths(max_length)

  def step(loop):
    position, last, tokens, done, states, cache = loop
    logits, cache = decoder.step(weights, last, position, cache)
    processed = []
    for processor, state in zip(processors, states, strict=True):
      logits, state = processor(logits, state, last, tokens, position)
      processed.append(state)
    token = jnp.where(done, PAD_ID, logits.argmax(axis=-1).astype(jnp.int32))
    tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[:, None], position, axis=1)
    return position + 1, token, tokens, done | (token == EOS_ID), tuple(processed), cache

  loop = (
    jnp.int32(0),
    jnp.full(batch, START_ID),
    jnp.full((batch, max_length), PAD_ID),
    jnp.zeros(batch, bool) if active is None else ~active,
    tuple(processor.init(batch, max_length) for processor in processors),
    decoder.init_cache(weights, encoded, lengths[0], allowed),
  )
  for index, length in enumerate(lengths):
    if index:
      loop = (*loop[:-1], decoder.grow(loop[-1], length))
    loop = jax.lax.while_loop(lambda loop, end=length: (loop[0] < end) & ~loop[3].all(), step, loop)
  return loop[2]


def decode_encoded(
  params,
  encoded: jax.Array,
  spec: Any,
  max_length: int,
  active: jax.Array | None = None,
  allowed: jax.Array | None = None,
  weights: Any = None,
  decoder: StepDecoder | None = None,
) -> jax.Array:
  """Decode what a model's network has encoded; to be called inside a jitted function.

  Args:
    params: the network's parameters; not needed with `weights`.
    encoded: what the network's `encode` returned.
    spec: the model's `config.ModelSpec`.
    max_length: most tokens a row can have, EOS included.
    active: as in `greedy_decode`.
    allowed: as in `greedy_decode`.
    weights: what `pack` returned, or None: packed here, once per call.
    decoder: None: the model's `step_decoder`.

  Returns:
    int32 `[batch, max_length]`, as `greedy_decode`.
  """
  decoder = spec.step_decoder(max_length) if decoder is None else decoder
  processors = spec.decoding.logits_processors(spec.token_ids)
  weights = decoder.pack(params) if weights is None else weights
  return greedy_decode(decoder, weights, encoded, max_length, active, allowed, processors)


@functools.partial(jax.jit, static_argnames=('spec', 'max_length'))
def transcribe_segments(
  params,
  inputs: jax.Array,
  context: dict[str, jax.Array],
  active: jax.Array | None = None,
  allowed: jax.Array | None = None,
  weights: Any = None,
  *,
  spec: Any,
  max_length: int,
) -> jax.Array:
  """Encode segments with their memory and decode them greedily; jitted, compiled once per shape.

  Args:
    params: the network's parameters; with `weights` those that encoding needs are enough.
    inputs: log-mel frames `[batch, frames, mel]`.
    context: what the network takes from prior segments, `NetworkConfig.encoder_context`.
    active: bool `[batch]`, rows to decode, or None: all.
    allowed: bool `[vocab]`, the tokens that may be emitted, or None: all.
    weights: what `pack` returned, or None.
    spec: the model's `config.ModelSpec`.
    max_length: most tokens a row can have, EOS included.

  Returns:
    int32 `[batch, max_length]`: tokens, EOS, then padding (0).
  """
  module = spec.module()
  frames = spec.decoding.context_frames
  if frames:
    context = {**context, 'context_frames': frames, 'allowed': allowed}
  encoded = module.apply({'params': params}, inputs, enable_dropout=False, method=module.encode, **context)
  return decode_encoded(params, encoded, spec, max_length, active, allowed, weights, spec.context_decoder(max_length))


@functools.partial(jax.jit, static_argnames='spec')
def pack(params: dict, spec: Any) -> Any:
  """Return a network's parameters laid out for decoding, so that it is not done for every segment; jitted."""
  return spec.step_decoder(spec.targets_length).pack(params)
