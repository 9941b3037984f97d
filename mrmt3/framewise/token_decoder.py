"""Writing tokens from note candidates: the copy mechanism of the frame-level model.

Not in the papers. The events of a segment are written in a known order, and so are the candidates
(`NoteHeads.candidates` and, for notes that continue, `NoteHeads.ties`). Given the last emitted token, it is known which
candidates can be next: the first of the later ones that is real. Each is real with some probability, which gives a
probability for every token. With `FramewiseConfig.emission_threshold`, decoding emits every event whose own probability
is large enough, not the likeliest token.

There is no decoder network. One that is trained for hours does not hold up once it reads its own tokens instead of the
truth (docs/model-card has the figures).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.framewise.candidates import DRUM, OFF, ON, TIE, NoteCandidates
from mrmt3.notes.instruments import CLASS_PROGRAMS, NUM_CLASSES, class_index
from mrmt3.special_tokens import EOS_ID
from mrmt3.tokens.batched_parsing import NUM_PITCHES
from mrmt3.tokens.event_state import event_state, next_event_state
from mrmt3.tokens.token_ids import TokenIds

_ELSE = 0.01  # probability that the next token is any at all
_NEVER = -1e9
_TINY = 1e-9  # added to a class's probability, so that the only possible one can be chosen however unlikely
_SAME_EVENT = 1  # frames by which one event may be detected and written apart
WIDTH = NUM_CLASSES + 4  # numbers of a candidate

_CERTAIN = 20.0  # score
_PASSED = -3.0  # added to the score of a candidate that comes before the last emitted one, in the same frame
_ENDS = 0.7  # added to the score of offsets: a note that ends too early is a lesser evil than one that never ends
# The highest score of a candidate that has been emitted: another instrument may play it too, but a threshold rules it
# out.
_AGAIN = -5.0


class _Position(NamedTuple):
  """Where a position stands in the token order, `[batch, length, 1]` each but one.

  Attributes:
    frame: the encoder frame that has been reached.
    velocity: the last velocity token, 0 for none.
    own_class: float32 `[batch, length, NUM_CLASSES]`, 1 for the Slakh class of the last program; all 0 for none.
    after_ties: bool, whether the tie section is complete.
    after_time: bool, whether the token is a time: an event of it follows.
    after_program: the same for a program.
    after_velocity: the same for a velocity.
  """

  frame: jax.Array
  velocity: jax.Array
  own_class: jax.Array
  after_ties: jax.Array
  after_time: jax.Array
  after_program: jax.Array
  after_velocity: jax.Array

  @property
  def begun(self):
    """Whether part of the next event has been emitted."""
    return self.after_time | self.class_known

  @property
  def class_known(self):
    """Whether the next event is of the last program."""
    return self.after_program | self.after_velocity


def _position(ids, tokens, state) -> _Position:
  time, velocity, program, tie = (state[..., k, None] for k in range(4))
  own_class = jax.nn.one_hot(jnp.asarray(_class_of(ids))[program[..., 0]], NUM_CLASSES)
  after = (_within(tokens[..., None], pair) for pair in (ids.time, ids.program, ids.velocity))
  return _Position(jnp.maximum(time - ids.time[0], 0), velocity, own_class, tie > 0, *after)


def as_rows(candidates: NoteCandidates) -> jax.Array:
  """Return candidates as rows, float32 `[batch, n, WIDTH]`."""
  numbers = [jnp.asarray(x, jnp.float32)[..., None] for x in candidates[:-1]]
  return jnp.concatenate([*numbers, candidates.classes], axis=-1)


def of_rows(rows: jax.Array) -> NoteCandidates:
  """Return the candidates that `as_rows` wrote, whole numbers as float32."""
  return NoteCandidates(*(rows[..., k] for k in range(4)), rows[..., 4:])


def sequence_logits(ids: TokenIds, rows: jax.Array, tokens: jax.Array, vocab_size: int) -> jax.Array:
  """Return the logits of whole sequences, float32 `[batch, length, vocab]`.

  Args:
    ids: the ids of the tokens.
    rows: of `as_rows`, `[batch, n, WIDTH]`.
    tokens: int `[batch, length]`, the input tokens.
    vocab_size: how many tokens there are.
  """
  candidates, state = of_rows(rows), event_state(tokens, ids.state)
  emitted = jax.lax.cummax(completes(ids, candidates, tokens, state).astype(jnp.int8), axis=1) > 0
  return candidate_logits(ids, candidates, tokens, state, emitted, vocab_size)


@dataclasses.dataclass(frozen=True)
class CandidateDecoder:
  """A `StepDecoder` over note candidates. It has no parameters.

  Attributes:
    config: the network's configuration, with vocab_size and emission_threshold.
    ids: the ids of the tokens.
    pair_offsets: an offset ends a note that sounds, of the likeliest class among those that sound at its pitch; where
      none sounds, it is not emitted.
  """

  config: Any
  ids: TokenIds
  pair_offsets: bool = False

  def pack(self, params) -> None:
    """Return no parameters."""

  def encoder_params(self, params):
    """Return all parameters."""
    return params

  def init_cache(self, weights, encoded: jax.Array, length: int, allowed: jax.Array | None = None) -> dict:
    """Return what the first step needs: the candidates, the event state, and which candidates have been emitted."""
    batch, number, _ = encoded.shape
    sounding = {'sounding': jnp.zeros((batch, NUM_CLASSES, NUM_PITCHES), bool)} if self.pair_offsets else {}
    return sounding | {
      'candidates': of_rows(encoded),
      'allowed': allowed,
      'state': jnp.zeros((batch, 4), jnp.int32),
      'emitted': jnp.zeros((batch, number), bool),
    }

  def cache_lengths(self, max_length: int) -> list[int]:
    """Return the only length: the cache does not grow."""
    return [max_length]

  def grow(self, cache, length: int):
    """Return the cache as it is."""
    return cache

  def step(self, weights, tokens: jax.Array, position, cache: dict) -> tuple[jax.Array, dict]:
    """Compute one position, see `StepDecoder`."""
    ids, candidates = self.ids, cache['candidates']
    state = next_event_state(cache['state'], tokens, ids.state)
    emitted = cache['emitted'] | completes(ids, candidates, tokens[:, None], state[:, None])[:, 0]
    if self.pair_offsets:
      cache = {**cache, 'sounding': next_sounding(ids, cache['sounding'], tokens, state)}
      candidates = paired(candidates, cache['sounding'])
    args = (x[:, None] for x in (tokens, state, emitted))
    config = self.config
    logits = candidate_logits(ids, candidates, *args, config.vocab_size, config.emission_threshold, cache['allowed'])
    return logits[:, 0], {**cache, 'state': state, 'emitted': emitted}


def next_sounding(ids: TokenIds, sounding: jax.Array, tokens: jax.Array, state: jax.Array) -> jax.Array:
  """Return what sounds after one more token, bool `[batch, NUM_CLASSES, NUM_PITCHES]`.

  Args:
    ids: the ids of the tokens.
    sounding: before it.
    tokens: int `[batch]`, the token.
    state: int `[batch, 4]`, the event state with it.
  """
  position = _position(ids, tokens[:, None], state[:, None])
  pitch = jax.nn.one_hot(tokens - ids.pitch[0], NUM_PITCHES, dtype=bool)  # no pitch for other tokens
  note = (position.own_class[:, 0, :, None] > 0) & pitch[:, None]
  begins = (position.velocity > ids.velocity[0]) | ~position.after_ties
  return jnp.where(note, begins, sounding)


def paired(candidates: NoteCandidates, sounding: jax.Array) -> NoteCandidates:
  """Return candidates whose offsets are of classes that sound at their pitch, and impossible where none does."""
  pitches = candidates.pitches.astype(jnp.int32)
  here = jnp.take_along_axis(sounding, pitches[:, None], axis=2).swapaxes(1, 2)  # [batch, n, classes]
  likely = (candidates.classes + _TINY) * here
  likely = likely / (likely.sum(axis=-1, keepdims=True) + _TINY)
  ends = candidates.groups == OFF
  return candidates._replace(
    scores=jnp.where(ends & ~here.any(axis=-1), _NEVER, candidates.scores),
    classes=jnp.where(ends[..., None], likely, candidates.classes),
  )


def completes(ids: TokenIds, candidates: NoteCandidates, tokens: jax.Array, state: jax.Array) -> jax.Array:
  """Return whether a token completes the event of a candidate, or the same one a frame away; bool `[batch, length, n]`.

  Arguments are those of `candidate_logits`. Only the tie section, where instruments are known, distinguishes them.
  """
  position, token = _position(ids, tokens, state), tokens[..., None]
  is_drum = _within(token, ids.drum)
  group = jnp.where(is_drum, DRUM, jnp.where(position.velocity > ids.velocity[0], ON, OFF))
  group = jnp.where(position.after_ties, group, TIE)
  pitch = token - jnp.where(is_drum, ids.drum[0], ids.pitch[0])
  ends_event = is_drum | _within(token, ids.pitch)
  same = ends_event & (group == candidates.groups[:, None]) & (pitch == candidates.pitches[:, None])
  could_be = jnp.einsum('btc,bnc->btn', position.own_class, candidates.classes) > 0
  same = same & (could_be | position.after_ties)
  return same & (jnp.abs(position.frame - candidates.frames[:, None]) <= _SAME_EVENT)


def candidate_logits(
  ids: TokenIds,
  candidates: NoteCandidates,
  tokens: jax.Array,
  state: jax.Array,
  emitted: jax.Array,
  vocab_size: int,
  threshold: float = 0.0,
  allowed: jax.Array | None = None,
) -> jax.Array:
  """Return logits, float32 `[batch, length, vocab_size]`.

  Args:
    ids: the ids of the tokens.
    candidates: in token order.
    tokens: int `[batch, length]`, the input tokens.
    state: int `[batch, length, 4]`, of `event_state` for `ids.state`.
    emitted: bool `[batch, length, n]`, what has been emitted up to there.
    vocab_size: how many tokens there are.
    threshold: 0, or what a candidate's probability must be for it to be certain; others are impossible.
    allowed: bool `[vocab]`, the tokens that may be emitted, or None: all. An event keeps the probability of its allowed
      classes.
  """
  position = _position(ids, tokens, state)
  here, pitched = candidates.frames[:, None] == position.frame, candidates.groups[:, None] != DRUM
  classes, score = candidates.classes, (candidates.scores + _ENDS * (candidates.groups == OFF))[:, None]
  passed = jax.lax.cummax((here & emitted).astype(jnp.int8), axis=2, reverse=True) > 0
  score = score + _PASSED * (here & passed)
  score = jnp.where(emitted, jnp.minimum(score, _AGAIN), score)
  if allowed is not None:
    classes = classes * allowed[ids.program[0] + CLASS_PROGRAMS]
    kept = jnp.where(pitched, classes.sum(axis=-1)[:, None], allowed[ids.drum[0]])
    score = jax.scipy.special.logit(jnp.clip(jax.nn.sigmoid(score) * kept, 1e-9, 1 - 1e-6))
    classes = classes / (classes.sum(axis=-1, keepdims=True) + 1e-9)
  possible = _possible(ids, candidates, position)
  if threshold:
    score = _decided(score, score >= np.log(threshold / (1.0 - threshold)), possible, position.begun)
  # The first of the possible ones that is real.
  missed = jnp.where(possible, jax.nn.log_sigmoid(-score), 0.0)
  total = jnp.cumsum(missed, axis=-1)
  probability = jnp.exp(jnp.where(possible, jax.nn.log_sigmoid(score) + total - missed, _NEVER))

  of_class = jnp.where(pitched, jnp.einsum('btc,bnc->btn', position.own_class, classes), 1.0)
  probability = jnp.where(position.class_known, probability * of_class, probability)
  probability = jnp.where(position.begun, probability / (probability.sum(axis=-1, keepdims=True) + 1e-9), probability)
  # A program token comes first for events of this frame whose class is not the current one.
  now = jnp.where(here, probability, 0.0)
  others = jnp.where(pitched & ~position.class_known, now, 0.0)
  programs = jnp.einsum('btn,bnc->btc', others, classes) * (1.0 - position.own_class)
  nothing = jnp.where(position.begun, 0.0, jnp.exp(total[..., -1:]))
  next_token = {
    **_event_tokens(ids, candidates, position, jnp.where(position.class_known, now, now * of_class)),
    ids.time: _counted(jnp.where(here, 0.0, probability), candidates.frames, ids.time[1] - ids.time[0] + 1),
    ids.program: jnp.einsum(
      'btc,cp->btp', programs, jax.nn.one_hot(CLASS_PROGRAMS, ids.program[1] - ids.program[0] + 1)
    ),
    (EOS_ID, EOS_ID): jnp.where(position.after_ties, nothing, 0.0),
    ids.tie: jnp.where(position.after_ties, 0.0, nothing),
  }
  return jnp.log((1.0 - _ELSE) * _placed(next_token, vocab_size) + _ELSE / vocab_size)


def _possible(ids, candidates, position):
  """Return whether a candidate can be next, given the begun event; bool `[batch, length, n]`."""
  frame, group = candidates.frames[:, None], candidates.groups[:, None]
  timely = (frame == position.frame) | (~position.begun & (frame > position.frame))
  timely = timely & ((group == TIE) != position.after_ties)
  as_emitted = ~position.after_velocity | ((group == OFF) == (position.velocity == ids.velocity[0]))
  return timely & as_emitted & (~position.after_program | (group != DRUM))


def _event_tokens(ids, candidates, position, probability):
  """Return the probabilities of velocities, pitches and drums of events of known time and class, for `_placed`.

  Args:
    ids: the ids of the tokens.
    candidates: in token order.
    position: where each position stands.
    probability: `[batch, length, n]`, the probability of each candidate.
  """
  soft, loud = ids.velocity
  group = candidates.groups[:, None]
  known = position.after_velocity | (position.velocity == jnp.where(group == OFF, soft, loud)) | (group == TIE)
  event = jnp.where(known, probability, 0.0)
  return {
    ids.velocity: _counted(probability - event, jnp.where(candidates.groups == OFF, 0, 1), 2),
    ids.pitch: _counted(jnp.where(group == DRUM, 0.0, event), candidates.pitches, NUM_PITCHES),
    ids.drum: _counted(jnp.where(group == DRUM, event, 0.0), candidates.pitches, NUM_PITCHES),
  }


def _counted(probability, number, size):
  """Return the probability of each number, `[batch, length, size]`, from those of candidates, `[batch, n]`."""
  return jnp.einsum('btn,bns->bts', probability, jax.nn.one_hot(number, size))


def _within(tokens, pair):
  return (tokens >= pair[0]) & (tokens <= pair[1])


def _class_of(ids):
  """Return the number of the Slakh class of each program's token, NUM_CLASSES for other tokens, int `[tokens]`."""
  first, last = ids.program
  classes = np.full(last + 1, NUM_CLASSES)
  classes[first:] = class_index(np.arange(last - first + 1))
  return classes


def _decided(score, enough, possible, begun):
  """Return scores of near certainty; an event that has begun is completed even if no candidate is likely enough."""
  decided = jnp.where(enough, _CERTAIN, -_CERTAIN)
  return jnp.where(begun & ~(possible & enough).any(axis=-1, keepdims=True), score, decided)


def _placed(parts, vocab_size):
  """Return an array `[..., vocab]` with each array `[..., size]` at its token ids (first, last), 0 elsewhere."""
  placed, end = [], 0
  shape = next(iter(parts.values())).shape[:-1]
  for first, last in sorted(parts):
    placed += [jnp.zeros((*shape, first - end)), parts[first, last]]
    end = last + 1
  return jnp.concatenate([*placed, jnp.zeros((*shape, vocab_size - end))], axis=-1)
