"""What proposals say the next token is.

Not in the papers. The events of a segment are written in a known order, and so are the proposals (`NoteReader.propose` and, for what goes
on from the segment before, `NoteReader.ties`). Who knows what has been said last thus knows which of them can be next: the
first of the later ones that is real. Each is real with some chance, which makes a probability for each token. What is decoded with
`T5Config.copy_threshold` is not the likeliest token, but every event whose own chance is large enough.

No decoder has a say. One that is trained for hours is not to be relied on once it reads its own words instead of the truth: with its
logits beside these the model in the box had an onset F1 of 0.29, without them 0.44; with its opinion on classes an onset + program F1
of 0.31, without it 0.35, the weights being the same.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3.framewise.note_heads import DRUM, OFF, ON, TIE, Proposals
from mrmt3.notes.instruments import CLASS_PROGRAMS, NUM_CLASSES, class_index
from mrmt3.tokens.batched_parsing import NUM_PITCHES, Tokens
from mrmt3.tokens.event_state import next_status, running_status
from mrmt3.vocabularies import EOS_ID

_ELSE = 0.01  # chance that the next token is any at all
_NEVER = -1e9
_SAME_EVENT = 1  # states that one event may be heard and written apart
WIDTH = NUM_CLASSES + 4  # numbers that a proposal has

_CERTAIN = 20.0  # score
_PASSED = -3.0  # added to the score of one that comes before what was said last, in the same state
_ENDS = 0.7  # added to the score of what ends: a note that ends too early is a lesser evil than one that goes on
_AGAIN = (
  -5.0
)  # the highest score of one that has been said: another instrument may play it too, but a threshold rules it out


class _Moment(NamedTuple):
  """Where a position stands, `[batch, length, 1]` each but one.

  Attributes:
    state: the state that has been reached.
    velocity: the velocity token that holds, 0 for none.
    own_class: float32 `[batch, length, NUM_CLASSES]`, 1 for the Slakh class of the program that holds; all 0 for none.
    after_ties: bool, whether the ties are complete, as are the following ones.
    after_time: whether the token is a time: an event of it follows.
    after_program: the same of a program.
    after_velocity: the same of a velocity.
  """

  state: jax.Array
  velocity: jax.Array
  own_class: jax.Array
  after_ties: jax.Array
  after_time: jax.Array
  after_program: jax.Array
  after_velocity: jax.Array

  @property
  def begun(self):
    """Whether something of the next event has been said."""
    return self.after_time | self.class_known

  @property
  def class_known(self):
    """Whether the next event is of the program that holds."""
    return self.after_program | self.after_velocity


def _moment(ids, tokens, status) -> _Moment:
  time, velocity, program, tie = (status[..., k, None] for k in range(4))
  own_class = jax.nn.one_hot(jnp.asarray(_class_of(ids))[program[..., 0]], NUM_CLASSES)
  after = (_within(tokens[..., None], pair) for pair in (ids.time, ids.program, ids.velocity))
  return _Moment(jnp.maximum(time - ids.time[0], 0), velocity, own_class, tie > 0, *after)


def as_rows(proposals: Proposals) -> jax.Array:
  """Returns proposals as rows, float32 `[batch, n, WIDTH]`: what an encoder hands on."""
  numbers = [jnp.asarray(x, jnp.float32)[..., None] for x in proposals[:-1]]
  return jnp.concatenate([*numbers, proposals.classes], axis=-1)


def of_rows(rows: jax.Array) -> Proposals:
  """Returns the proposals that `as_rows` wrote, whole numbers as float32."""
  return Proposals(*(rows[..., k] for k in range(4)), rows[..., 4:])


class CopyingDecoder(nn.Module):
  """Stands where `network.Decoder` does, and has no parameters.

  Attributes:
    config: the network's `T5Config`.
  """

  config: Any

  def __call__(
    self, encoded: jax.Array, decoder_input_tokens: jax.Array, *, decode: bool = False, **unused
  ) -> jax.Array:
    """Returns logits, float32 `[batch, length, vocab]`, for rows of proposals `[batch, n, WIDTH]`; arguments are `network.Decoder`'s.

    With `decode` a proposal is said if `T5Config.copy_threshold` lets it. What else a decoder takes does not matter here.
    """
    del unused
    tokens, config = decoder_input_tokens, self.config
    ids = Tokens(*config.copied_tokens)
    if not decode:
      proposals, status = of_rows(encoded), running_status(tokens, ids[:4])
      said = jax.lax.cummax(says(ids, proposals, tokens, status).astype(jnp.int8), axis=1) > 0
      return copied_logits(ids, proposals, tokens, status, said, config.vocab_size)
    names = ('status', 'said')
    if not self.has_variable('cache', 'status'):
      for name, value in init_cache(encoded).items():
        if name in names:
          self.put_variable('cache', name, value)
      return jnp.zeros((*tokens.shape, config.vocab_size), jnp.float32)
    cache = {'proposals': of_rows(encoded), **{name: self.get_variable('cache', name) for name in names}}
    logits, cache = step(config, tokens[:, 0], cache)
    for name in names:
      self.put_variable('cache', name, cache[name])
    return logits[:, None]


def init_cache(rows: jax.Array) -> dict:
  """Returns what the first `step` needs, of `as_rows`: the proposals, the running status, and what of them has been said."""
  batch, number, _ = rows.shape
  status = jnp.zeros((batch, 4), jnp.int32)
  return {'proposals': of_rows(rows), 'status': status, 'said': jnp.zeros((batch, number), bool)}


def step(config, tokens: jax.Array, cache: dict, allowed: jax.Array | None = None) -> tuple[jax.Array, dict]:
  """Does one position.

  Args:
    config: the network's `T5Config`.
    tokens: int `[batch]`, the input tokens.
    cache: of `init_cache` or the step before.
    allowed: bool `[vocab]`, the tokens that may be said, or None: all.

  Returns:
    (logits after them, float32 `[batch, vocab]`, the new cache).
  """
  ids, proposals = Tokens(*config.copied_tokens), cache['proposals']
  status = next_status(cache['status'], tokens, ids[:4])
  said = cache['said'] | says(ids, proposals, tokens[:, None], status[:, None])[:, 0]
  args = (x[:, None] for x in (tokens, status, said))
  logits = copied_logits(ids, proposals, *args, config.vocab_size, config.copy_threshold, allowed)
  return logits[:, 0], {**cache, 'status': status, 'said': said}


def says(ids: Tokens, proposals: Proposals, tokens: jax.Array, status: jax.Array) -> jax.Array:
  """Returns whether a token completes the event that a proposal is, or the same one a state beside; bool `[batch, length, n]`.

  Arguments are those of `copied_logits`. Instruments are told apart in ties only, where they are remembered, not heard.
  """
  moment, token = _moment(ids, tokens, status), tokens[..., None]
  is_drum = _within(token, ids.drum)
  group = jnp.where(is_drum, DRUM, jnp.where(moment.velocity > ids.velocity[0], ON, OFF))
  group = jnp.where(moment.after_ties, group, TIE)
  pitch = token - jnp.where(is_drum, ids.drum[0], ids.pitch[0])
  ends_event = is_drum | _within(token, ids.pitch)
  same = ends_event & (group == proposals.groups[:, None]) & (pitch == proposals.pitches[:, None])
  could_be = jnp.einsum('btc,bnc->btn', moment.own_class, proposals.classes) > 0
  same = same & (could_be | moment.after_ties)
  return same & (jnp.abs(moment.state - proposals.states[:, None]) <= _SAME_EVENT)


def copied_logits(
  ids: Tokens,
  proposals: Proposals,
  tokens: jax.Array,
  status: jax.Array,
  said: jax.Array,
  vocab_size: int,
  threshold: float = 0.0,
  allowed: jax.Array | None = None,
) -> jax.Array:
  """Returns logits, float32 `[batch, length, vocab_size]`.

  Args:
    ids: the ids of the tokens.
    proposals: what can be copied, in the order of tokens.
    tokens: int `[batch, length]`, the input tokens.
    status: int `[batch, length, 4]`, of `running_status` for the first four of `ids`.
    said: bool `[batch, length, n]`, what has been said up to there.
    vocab_size: how many tokens there are.
    threshold: 0, or what a proposal's chance must be for it to be taken for certain; others are taken for impossible.
    allowed: bool `[vocab]`, the tokens that may be said, or None: all. Of an event that others may play too, its share remains.
  """
  moment = _moment(ids, tokens, status)
  here, pitched = proposals.states[:, None] == moment.state, proposals.groups[:, None] != DRUM
  classes, score = proposals.classes, (proposals.scores + _ENDS * (proposals.groups == OFF))[:, None]
  passed = jax.lax.cummax((here & said).astype(jnp.int8), axis=2, reverse=True) > 0
  score = score + _PASSED * (here & passed)
  score = jnp.where(said, jnp.minimum(score, _AGAIN), score)
  if allowed is not None:
    classes = classes * allowed[ids.program[0] + CLASS_PROGRAMS]
    kept = jnp.where(pitched, classes.sum(axis=-1)[:, None], allowed[ids.drum[0]])
    score = jax.scipy.special.logit(jnp.clip(jax.nn.sigmoid(score) * kept, 1e-9, 1 - 1e-6))
    classes = classes / (classes.sum(axis=-1, keepdims=True) + 1e-9)
  possible = _possible(ids, proposals, moment)
  if threshold:
    score = _decided(score, score >= np.log(threshold / (1.0 - threshold)), possible, moment.begun)
  # The first of the possible ones that is real.
  missed = jnp.where(possible, jax.nn.log_sigmoid(-score), 0.0)
  total = jnp.cumsum(missed, axis=-1)
  chance = jnp.exp(jnp.where(possible, jax.nn.log_sigmoid(score) + total - missed, _NEVER))

  of_class = jnp.where(pitched, jnp.einsum('btc,bnc->btn', moment.own_class, classes), 1.0)
  chance = jnp.where(moment.class_known, chance * of_class, chance)
  chance = jnp.where(moment.begun, chance / (chance.sum(axis=-1, keepdims=True) + 1e-9), chance)
  # What is of this state and of another class than holds is named first.
  now = jnp.where(here, chance, 0.0)
  others = jnp.where(pitched & ~moment.class_known, now, 0.0)
  programs = jnp.einsum('btn,bnc->btc', others, classes) * (1.0 - moment.own_class)
  nothing = jnp.where(moment.begun, 0.0, jnp.exp(total[..., -1:]))
  said_next = {
    **_event_tokens(ids, proposals, moment, jnp.where(moment.class_known, now, now * of_class)),
    ids.time: _counted(jnp.where(here, 0.0, chance), proposals.states, ids.time[1] - ids.time[0] + 1),
    ids.program: jnp.einsum(
      'btc,cp->btp', programs, jax.nn.one_hot(CLASS_PROGRAMS, ids.program[1] - ids.program[0] + 1)
    ),
    (EOS_ID, EOS_ID): jnp.where(moment.after_ties, nothing, 0.0),
    ids.tie: jnp.where(moment.after_ties, 0.0, nothing),
  }
  return jnp.log((1.0 - _ELSE) * _placed(said_next, vocab_size) + _ELSE / vocab_size)


def _possible(ids, proposals, moment):
  """Returns whether a proposal can be next, given what of the next event has been said; bool `[batch, length, n]`."""
  state, group = proposals.states[:, None], proposals.groups[:, None]
  timely = (state == moment.state) | (~moment.begun & (state > moment.state))
  timely = timely & ((group == TIE) != moment.after_ties)
  as_said = ~moment.after_velocity | ((group == OFF) == (moment.velocity == ids.velocity[0]))
  return timely & as_said & (~moment.after_program | (group != DRUM))


def _event_tokens(ids, proposals, moment, chance):
  """Returns the chances of velocities, pitches and drums, as `_placed` takes them, of events whose time and class are said.

  Args:
    ids: the ids of the tokens.
    proposals: what can be copied.
    moment: where each position stands.
    chance: `[batch, length, n]`, of each proposal.
  """
  soft, loud = ids.velocity
  group = proposals.groups[:, None]
  known = moment.after_velocity | (moment.velocity == jnp.where(group == OFF, soft, loud)) | (group == TIE)
  event = jnp.where(known, chance, 0.0)
  return {
    ids.velocity: _counted(chance - event, jnp.where(proposals.groups == OFF, 0, 1), 2),
    ids.pitch: _counted(jnp.where(group == DRUM, 0.0, event), proposals.pitches, NUM_PITCHES),
    ids.drum: _counted(jnp.where(group == DRUM, event, 0.0), proposals.pitches, NUM_PITCHES),
  }


def _counted(chance, number, size):
  """Returns the chance of each number, `[batch, length, size]`, of that of each proposal and its number `[batch, n]`."""
  return jnp.einsum('btn,bns->bts', chance, jax.nn.one_hot(number, size))


def _within(tokens, pair):
  return (tokens >= pair[0]) & (tokens <= pair[1])


def _class_of(ids):
  """Returns the number of the Slakh class of each program's token, NUM_CLASSES for other tokens, int `[tokens]`."""
  first, last = ids.program
  classes = np.full(last + 1, NUM_CLASSES)
  classes[first:] = class_index(np.arange(last - first + 1))
  return classes


def _decided(score, enough, possible, begun):
  """Returns scores of certainty; what has begun is completed even if nothing is likely enough for that."""
  decided = jnp.where(enough, _CERTAIN, -_CERTAIN)
  return jnp.where(begun & ~(possible & enough).any(axis=-1, keepdims=True), score, decided)


def _placed(parts, vocab_size):
  """Returns arrays `[..., size]`, each of them at its token ids (first, last), in one `[..., vocab]`, else 0."""
  placed, end = [], 0
  shape = next(iter(parts.values())).shape[:-1]
  for first, last in sorted(parts):
    placed += [jnp.zeros((*shape, first - end)), parts[first, last]]
    end = last + 1
  return jnp.concatenate([*placed, jnp.zeros((*shape, vocab_size - end))], axis=-1)
