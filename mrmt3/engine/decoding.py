"""Temperature sampling (greedy by default) and beam search, with t5x's names, arguments and results."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

IMPOSSIBLE = -1.0e7  # log-probability of impossible hypotheses


@dataclasses.dataclass(frozen=True)
class DecodingState:
  """Input of one decoding step.

  Attributes:
    cur_index: int `[rows]`, positions.
    cur_token: int `[rows, 1]`, the last tokens.
    cache: the network's cache, a tree of arrays `[rows, ...]`; scalars are shared by all rows.
  """

  cur_index: jax.Array
  cur_token: jax.Array
  cache: Any


def _rows(tree, change: Callable):
  """Apply `change` to all arrays of a cache that have rows; scalars, which are positions, stay."""
  return jax.tree.map(lambda x: change(x) if x.ndim else x, tree)


def _by_row(x: jax.Array, rows: int) -> jax.Array:
  return x.reshape(rows, -1, *x.shape[1:])


def temperature_sample(
  inputs: jax.Array,
  cache,
  tokens_to_logits: Callable,
  eos_id: int,
  decode_rng: jax.Array | None = None,
  num_decodes: int = 1,
  temperature: float = 1.0,
  topk: int = 1,
  topp: float = 0.0,
  cache_offset: int = 0,
) -> tuple[jax.Array, jax.Array]:
  """Sample tokens. With topk 1 (the default) or temperature 0 this is greedy decoding.

  Args:
    inputs: int `[batch, length]`; only the shape is used (prompts are not supported).
    cache: the network's cache for `batch` rows.
    tokens_to_logits: DecodingState -> (logits `[rows, vocabulary]`, new cache).
    eos_id: id of the end-of-sequence token.
    decode_rng: key; None is key 0.
    num_decodes: samples per example.
    temperature: divides the logits.
    topk: sample from the topk most likely tokens; 0 from all.
    topp: sample from the most likely tokens whose probabilities sum to topp; 0 from all.
    cache_offset: not supported, keep 0.

  Returns:
    (tokens int32 `[batch, num_decodes, length]` with 0 after EOS, log-probabilities `[batch, num_decodes]`), ordered
    from the least to the most likely decode.

  Raises:
    ValueError: cache_offset is set, or both topk and topp.
  """
  if cache_offset or (topk and topp):
    raise ValueError('temperature_sample: leave cache_offset at 0, and set topk or topp to 0')
  batch, length = inputs.shape
  rows = batch * num_decodes
  cache = _rows(cache, lambda x: jnp.repeat(x, num_decodes, axis=0))
  key = jax.random.key(0) if decode_rng is None else decode_rng

  def choose(logits, position):
    if topk == 1 or temperature == 0:
      return logits.argmax(axis=-1)
    logits = logits / temperature
    if topk:
      logits = jnp.where(logits < jax.lax.top_k(logits, topk)[0][:, -1:], IMPOSSIBLE, logits)
    if topp:
      ordered = jnp.sort(logits, axis=-1, descending=True)
      before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered)
      least = jnp.min(jnp.where(before < topp, ordered, jnp.inf), axis=-1, keepdims=True)
      logits = jnp.where(logits < least, IMPOSSIBLE, logits)
    return jax.random.categorical(jax.random.fold_in(key, position), logits)

  def step(state):
    position, last, tokens, scores, done, cache = state
    logits, cache = tokens_to_logits(DecodingState(jnp.full(rows, position), last[:, None], cache))
    token = jnp.where(done, 0, choose(logits, position)).astype(jnp.int32)
    log_probability = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=-1)[:, 0]
    scores += jnp.where(done, 0.0, log_probability)
    tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[:, None], position, axis=1)
    return position + 1, token, tokens, scores, done | (token == eos_id), cache

  none = jnp.zeros(rows, jnp.int32)
  start = (jnp.int32(0), none, jnp.zeros((rows, length), jnp.int32), jnp.zeros(rows), none > 0, cache)
  state = jax.lax.while_loop(lambda state: (state[0] < length) & ~state[4].all(), step, start)
  tokens, scores = _by_row(state[2], batch), state[3].reshape(batch, -1)
  order = scores.argsort(axis=1)
  return jnp.take_along_axis(tokens, order[..., None], axis=1), jnp.take_along_axis(scores, order, axis=1)


def beam_search(
  inputs: jax.Array,
  cache,
  tokens_to_logits: Callable,
  eos_id: int,
  num_decodes: int = 4,
  alpha: float = 0.6,
  max_decode_len: int | None = None,
  decode_rng: jax.Array | None = None,
  cache_offset: int = 0,
) -> tuple[jax.Array, jax.Array]:
  """Beam search with a length penalty ((5 + length) / 6)^alpha.

  Each step considers the best 2 * num_decodes continuations of the live beams. Those that end with EOS join the
  finished hypotheses, of which the best num_decodes are kept; the best others stay live. With one beam this is not
  greedy search: a second-best EOS makes a finished hypothesis, and the best finished one is preferred to the live one.

  Args:
    inputs: int `[batch, length]`; only the shape is used (prompts are not supported).
    cache: the network's cache for `batch` rows.
    tokens_to_logits: DecodingState -> (logits `[rows, vocabulary]`, new cache).
    eos_id: id of the end-of-sequence token.
    num_decodes: number of beams.
    alpha: exponent of the length penalty.
    max_decode_len: maximum number of tokens; None is the length of the inputs.
    decode_rng: unused.
    cache_offset: not supported, keep 0.

  Returns:
    (tokens int32 `[batch, num_decodes, length]` with 0 after EOS, scores `[batch, num_decodes]`), from worst to best.

  Raises:
    ValueError: cache_offset is set.
  """
  del decode_rng
  if cache_offset:
    raise ValueError('beam_search: cache_offset is not supported; leave it at 0')
  batch, beams = inputs.shape[0], num_decodes
  length = inputs.shape[1] if max_decode_len is None else max_decode_len
  cache = _rows(cache, lambda x: jnp.repeat(x, beams, axis=0))

  def penalty(count):
    return ((5.0 + count) / 6.0) ** alpha

  def take(x, chosen):
    return jnp.take_along_axis(x, chosen.reshape(chosen.shape + (1,) * (x.ndim - 2)), axis=1)

  def step(state):
    position, live, live_scores, finished, finished_scores, cache = state
    last = jnp.where(position > 0, live[:, :, position - 1], 0).reshape(-1, 1)
    logits, cache = tokens_to_logits(DecodingState(jnp.full(batch * beams, position), last, cache))
    vocabulary = logits.shape[-1]
    scores = live_scores[..., None] + _by_row(jax.nn.log_softmax(logits), batch)
    best, index = jax.lax.top_k(scores.reshape(batch, -1), 2 * beams)
    parent, token = index // vocabulary, (index % vocabulary).astype(jnp.int32)
    grown = take(live, parent).at[:, :, position].set(token)
    ended = token == eos_id

    live_scores, kept = jax.lax.top_k(jnp.where(ended, IMPOSSIBLE, best), beams)
    origin = take(parent, kept)
    cache = _rows(cache, lambda x: take(_by_row(x, batch), origin).reshape(x.shape))

    candidates = jnp.concatenate([finished_scores, jnp.where(ended, best / penalty(position + 1), IMPOSSIBLE)], axis=1)
    finished_scores, chosen = jax.lax.top_k(candidates, beams)
    finished = take(jnp.concatenate([finished, grown], axis=1), chosen)
    return position + 1, take(grown, kept), live_scores, finished, finished_scores, cache

  def is_unfinished(state):
    position, _, live_scores, _, finished_scores, _ = state
    # The score of a live beam is at most its score at the maximum length.
    could_win = live_scores[:, 0] / penalty(length) > finished_scores[:, -1]
    return (position < length) & could_win.any()

  nothing = jnp.zeros((batch, beams, length), jnp.int32)
  first = jnp.where(jnp.arange(beams) == 0, 0.0, IMPOSSIBLE) * jnp.ones((batch, 1))
  start = (jnp.int32(0), nothing, first, nothing, jnp.full((batch, beams), IMPOSSIBLE), cache)
  _, live, live_scores, finished, finished_scores, _ = jax.lax.while_loop(is_unfinished, step, start)
  any_finished = (finished_scores > IMPOSSIBLE).any(axis=1)[:, None]
  tokens = jnp.where(any_finished[..., None], finished, live)
  scores = jnp.where(any_finished, finished_scores, live_scores)  # without the length penalty, as in t5x
  return tokens[:, ::-1], scores[:, ::-1]
