"""What proposals say the next token is.

Not in the papers. The events of a segment are written in a known order, and so are the proposals (`NoteReader.propose`). A decoder that
knows what it has said last thus knows which of them can be next: the first of the later ones that is real. Each is real with some
chance, which makes a probability for each token. What is decoded with `T5Config.copy_threshold` is not the likeliest token, but every
event whose own chance is large enough. The decoder itself writes what comes before, the ties, and says which instruments it expects:
the classes that the reader hears are weighed by that.

Its own logits of the other tokens do not count, since a decoder that is trained for hours is not to be relied on once it reads its own
words instead of the truth: the model in the box had an onset F1 of 0.29 with them and of 0.44 without, the weights being the same.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3 import transformer_blocks as layers
from mrmt3.instruments import CLASS_PROGRAMS, NUM_CLASSES, class_index
from mrmt3.note_reader import DRUM, NUM_PITCHES, OFF, ON, Proposals
from mrmt3.vocabularies import EOS_ID

_ELSE = 0.01  # chance that the next token is any at all
_NEVER = -1e9
_SAME_EVENT = 1  # states that one event may be heard and written apart
MAX_STATES = 256  # whole numbers up to this are exact in bfloat16, which rows may travel in
WIDTH = NUM_CLASSES + 4  # numbers that a proposal has

_CERTAIN = 20.0  # score
_OPEN = 0.03  # of what the decoder expects: any class

# Where `Copier.weights`, which are added to them, start from.
_WEIGHTS = {
  'score': 1.0,  # of a proposal's own score
  'bias': 0.0,  # of all scores
  'passed': -3.0,  # of the score of one that comes before what was said last, in the same state
  'again': -5.0,  # the highest score of one that has been said: another instrument may play it too, but a threshold rules it out
}


class Tokens(NamedTuple):
  """The ids, (first, last), of each type of token that is copied: `T5Config.running_status` and `event_ends`, in their order."""

  time: tuple[int, int]
  velocity: tuple[int, int]
  program: tuple[int, int]
  tie: tuple[int, int]
  pitch: tuple[int, int]
  drum: tuple[int, int]


class _Moment(NamedTuple):
  """Where a position stands, `[batch, length, 1]` each.

  Attributes:
    state: the state that has been reached.
    velocity: the velocity token that holds, 0 for none.
    program: the program token that holds, 0 for none.
    after_ties: bool, whether the ties are complete, as are the following ones.
    after_time: whether the token is a time: an event of it follows.
    after_program: the same of a program.
    after_velocity: the same of a velocity.
  """

  state: jax.Array
  velocity: jax.Array
  program: jax.Array
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
  after = (_within(tokens[..., None], pair) for pair in (ids.time, ids.program, ids.velocity))
  return _Moment(jnp.maximum(time - ids.time[0], 0), velocity, program, tie > 0, *after)


def as_rows(proposals: Proposals, width: int) -> jax.Array:
  """Returns proposals as rows `[batch, n, width]`, which travel behind the states that the decoder is given."""
  numbers = [jnp.asarray(x, jnp.float32)[..., None] for x in proposals[:-1]]
  rows = jnp.concatenate([*numbers, proposals.classes], axis=-1)
  return jnp.pad(rows, ((0, 0), (0, 0), (0, width - WIDTH)))


def of_rows(rows: jax.Array) -> Proposals:
  """Returns the proposals that `as_rows` wrote, whole numbers as float32."""
  rows = rows.astype(jnp.float32)
  return Proposals(*(rows[..., k] for k in range(4)), rows[..., 4:WIDTH])


class Copier(nn.Module):
  """Turns proposals, and what the decoder makes of the context, into logits of tokens.

  Attributes:
    tokens: the ids of the tokens.
  """

  tokens: Tokens

  def setup(self):
    """Declares the parts. With them as they start, proposals are copied as the note reader judges them."""
    self.opinion = layers.Dense(NUM_CLASSES, ('embed', 'vocab'), nn.initializers.zeros, jnp.float32)
    # Differences from `_WEIGHTS`, so that weight decay pulls to where they start.
    self.weights = layers.partitioning.param_with_axes(
      'weights', nn.initializers.zeros, (len(_WEIGHTS),), jnp.float32, axes=(None,)
    )

  def __call__(self, x: jax.Array, own: jax.Array, rows: jax.Array, tokens: jax.Array, status: jax.Array) -> jax.Array:
    """Returns logits, float32 `[batch, length, vocab]`.

    Args:
      x: what the decoder makes of each position, `[batch, length, emb]`.
      own: its own logits, `[batch, length, vocab]`.
      rows: of `as_rows`.
      tokens: int `[batch, length]`, the input tokens.
      status: int `[batch, length, 9]`, of `network.running_status`.
    """
    proposals = of_rows(rows)
    said = jax.lax.cummax(says(self.tokens, proposals, tokens, status).astype(jnp.int8), axis=1) > 0
    return copied_logits(self.tokens, self.weights, proposals, self.opinion(x.astype(jnp.float32)), own, tokens, status, said)

  def step(
    self, x: jax.Array, own: jax.Array, rows: jax.Array, tokens: jax.Array, status: jax.Array, said: jax.Array, threshold: float
  ) -> tuple[jax.Array, jax.Array]:
    """Returns what the module's function `step` does; `x` and `rows` are those of a call, without the axis of positions."""
    opinion = self.opinion(x.astype(jnp.float32))
    return step(self.tokens, self.weights, of_rows(rows), opinion, own, tokens, status, said, threshold)


def step(
  ids: Tokens, weights, proposals: Proposals, opinion, own, tokens, status, said, threshold: float, allowed=None
) -> tuple[jax.Array, jax.Array]:
  """Returns `copied_logits` of one more position `[batch, ...]`, and `said` `[batch, n]` after it.

  `said` is all False at first; `threshold` is `T5Config.copy_threshold`, `allowed` that of `decoding.greedy_decode`.
  """
  said = said | says(ids, proposals, tokens[:, None], status[:, None])[:, 0]
  args = (x[:, None] for x in (opinion, own, tokens, status, said))
  return copied_logits(ids, weights, proposals, *args, threshold, allowed)[:, 0], said


def says(ids: Tokens, proposals: Proposals, tokens: jax.Array, status: jax.Array) -> jax.Array:
  """Returns whether a token completes the event that a proposal is, or the same one a state beside; bool `[batch, length, n]`.

  Arguments are those of `copied_logits`. Instruments are not told apart.
  """
  moment, token = _moment(ids, tokens, status), tokens[..., None]
  is_drum = _within(token, ids.drum)
  group = jnp.where(is_drum, DRUM, jnp.where(moment.velocity > ids.velocity[0], ON, OFF))
  pitch = token - jnp.where(is_drum, ids.drum[0], ids.pitch[0])
  ends_event = moment.after_ties & (is_drum | _within(token, ids.pitch))
  same = ends_event & (group == proposals.groups[:, None]) & (pitch == proposals.pitches[:, None])
  return same & (jnp.abs(moment.state - proposals.states[:, None]) <= _SAME_EVENT)


def copied_logits(
  ids: Tokens,
  weights: jax.Array,
  proposals: Proposals,
  opinion: jax.Array,
  own: jax.Array,
  tokens: jax.Array,
  status: jax.Array,
  said: jax.Array,
  threshold: float = 0.0,
  allowed: jax.Array | None = None,
) -> jax.Array:
  """Returns logits, float32 `[batch, length, vocab]`: `own` before the tie token, since proposals are no ties.

  Args:
    ids: the ids of the tokens.
    weights: `[4]`, of `Copier`.
    proposals: what can be copied.
    opinion: `[batch, length, NUM_CLASSES]`, logits that classes are weighed with.
    own: the decoder's logits, `[batch, length, vocab]`.
    tokens: int `[batch, length]`, the input tokens.
    status: int `[batch, length, 9]`, of `network.running_status`.
    said: bool `[batch, length, n]`, what has been said up to there.
    threshold: 0, or what a proposal's chance must be for it to be taken for certain; others are taken for impossible.
    allowed: bool `[vocab]`, the tokens that may be said, or None: all. Of an event that others may play too, its share remains.
  """
  weight = {name: start + weights[k] for k, (name, start) in enumerate(_WEIGHTS.items())}
  moment = _moment(ids, tokens, status)
  here, pitched = proposals.states[:, None] == moment.state, proposals.groups[:, None] != DRUM
  expected = (1.0 - _OPEN) * jax.nn.softmax(opinion) + _OPEN / NUM_CLASSES

  def share(of_classes):
    return jnp.where(pitched, jnp.einsum('btc,bnc->btn', of_classes, proposals.classes), 1.0)

  score = weight['score'] * proposals.scores[:, None] + weight['bias']
  passed = jax.lax.cummax((here & said).astype(jnp.int8), axis=2, reverse=True) > 0
  score = score + weight['passed'] * (here & passed)
  score = jnp.where(said, jnp.minimum(score, weight['again']), score)
  if allowed is not None:
    everything = share(expected)
    expected = expected * allowed[ids.program[0] + CLASS_PROGRAMS]
    kept = jnp.where(pitched, share(expected) / (everything + 1e-9), allowed[ids.drum[0]])
    score = jax.scipy.special.logit(jnp.clip(jax.nn.sigmoid(score) * kept, 1e-9, 1 - 1e-6))
  possible = _possible(ids, proposals, moment)
  if threshold:
    score = _decided(score, score >= np.log(threshold / (1.0 - threshold)), possible, moment.begun)
  # The first of the possible ones that is real.
  missed = jnp.where(possible, jax.nn.log_sigmoid(-score), 0.0)
  total = jnp.cumsum(missed, axis=-1)
  chance = jnp.exp(jnp.where(possible, jax.nn.log_sigmoid(score) + total - missed, _NEVER))

  own_class = jax.nn.one_hot(jnp.asarray(_class_of(ids))[moment.program[..., 0]], NUM_CLASSES)
  of_any = share(expected) + 1e-9
  of_class = jnp.where(pitched, share(expected * own_class) / of_any, 1.0)
  chance = jnp.where(moment.class_known, chance * of_class, chance)
  chance = jnp.where(moment.begun, chance / (chance.sum(axis=-1, keepdims=True) + 1e-9), chance)
  # What is of this state and of another class than holds is named first.
  now = jnp.where(here, chance, 0.0)
  others = jnp.where(pitched & ~moment.class_known, now, 0.0)
  programs = jnp.einsum('btn,bnc->btc', others / of_any, proposals.classes) * expected * (1.0 - own_class)
  said_next = {
    **_event_tokens(ids, proposals, moment, jnp.where(moment.class_known, now, now * of_class)),
    ids.time: _counted(jnp.where(here, 0.0, chance), proposals.states, ids.time[1] - ids.time[0] + 1),
    ids.program: jnp.einsum('btc,cp->btp', programs, jax.nn.one_hot(CLASS_PROGRAMS, ids.program[1] - ids.program[0] + 1)),
    (EOS_ID, EOS_ID): jnp.where(moment.begun, 0.0, jnp.exp(total[..., -1:])),
  }
  placed = (1.0 - _ELSE) * _placed(said_next, own.shape[-1]) + _ELSE / own.shape[-1]
  return jnp.where(moment.after_ties, jnp.log(placed), own)


def _possible(ids, proposals, moment):
  """Returns whether a proposal can be next, given what of the next event has been said; bool `[batch, length, n]`."""
  state, group = proposals.states[:, None], proposals.groups[:, None]
  timely = (state == moment.state) | (~moment.begun & (state > moment.state))
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
  known = moment.after_velocity | (moment.velocity == jnp.where(group == OFF, soft, loud))
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
