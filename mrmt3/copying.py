"""What proposals say the next token is, and the decoder says after them.

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

_EOS = 1
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


class _Held(NamedTuple):
  """The tokens that hold at some moment, 0 for none."""

  time: jax.Array
  velocity: jax.Array
  program: jax.Array
  tie: jax.Array


def _read_status(status) -> tuple[_Held, _Held, jax.Array]:
  """Returns what holds now, what held at the last event, and that event's token, of a running status `[..., 9]`."""
  numbers = [status[..., k] for k in range(9)]
  return _Held(*numbers[:4]), _Held(*numbers[4:8]), numbers[8]


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
  held, _, _ = _read_status(status)
  ends_event = _within(tokens, ids.pitch) | _within(tokens, ids.drum)
  group, pitch = _event(ids, tokens, held.velocity)
  kind = jnp.where(ends_event & (held.tie > 0), group * NUM_PITCHES + pitch, -1)[..., None]
  same = kind == (proposals.groups * NUM_PITCHES + proposals.pitches)[:, None]
  return same & (jnp.abs(_state_of(ids, held.time)[..., None] - proposals.states[:, None]) <= _SAME_EVENT)


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
  held = _Held(*(x[..., None] for x in _read_status(status)[0]))
  state, group = proposals.states[:, None], proposals.groups[:, None]
  reached = _state_of(ids, held.time)
  after_time, after_program, after_velocity = (_within(tokens, pair)[..., None] for pair in (ids.time, ids.program, ids.velocity))
  begun = after_time | after_program | after_velocity  # something of the next event is said already
  here, pitched, ends = state == reached, group != DRUM, group == OFF
  soft, loud = ids.velocity
  possible = here | (~begun & (state > reached))
  possible &= ~after_program | pitched
  possible &= ~after_velocity | (ends == (held.velocity == soft))

  expected = (1.0 - _OPEN) * jax.nn.softmax(opinion) + _OPEN / NUM_CLASSES
  own_class = jax.nn.one_hot(jnp.asarray(_class_of(ids))[held.program[..., 0]], NUM_CLASSES)

  def share(of_classes):
    return jnp.where(pitched, jnp.einsum('btc,bnc->btn', of_classes, proposals.classes), 1.0)

  score = weight['score'] * proposals.scores[:, None] + weight['bias']
  score = score + weight['passed'] * (here & _passed(here & said))
  score = jnp.where(said, jnp.minimum(score, weight['again']), score)
  if allowed is not None:
    everything = share(expected)
    expected = expected * allowed[ids.program[0] + CLASS_PROGRAMS]
    kept = jnp.where(pitched, share(expected) / (everything + 1e-9), allowed[ids.drum[0]])
    score = jnp.where(kept > 0, _logit(jax.nn.sigmoid(score) * kept), -2 * _CERTAIN)
  if threshold:
    score = _decided(score, score >= np.log(threshold / (1.0 - threshold)), possible, begun)
  # The first of the possible ones that is real.
  missed = jnp.where(possible, jax.nn.log_sigmoid(-score), 0.0)
  total = jnp.cumsum(missed, axis=-1)
  chance = jnp.exp(jnp.where(possible, jax.nn.log_sigmoid(score) + total - missed, _NEVER))

  of_any = share(expected) + 1e-9
  of_class = jnp.where(pitched, share(expected * own_class) / of_any, 1.0)
  chance = jnp.where(after_program | after_velocity, chance * of_class, chance)
  chance = jnp.where(begun, chance / (chance.sum(axis=-1, keepdims=True) + 1e-9), chance)

  now = jnp.where(here, chance, 0.0)
  class_known = after_program | after_velocity
  same_class = jnp.where(class_known, now, now * of_class)
  velocity_known = after_velocity | (held.velocity == jnp.where(ends, soft, loud))
  event = jnp.where(velocity_known, same_class, 0.0)

  def counted(share, number, size):
    return jnp.einsum('btn,bns->bts', share, jax.nn.one_hot(number, size))

  others = jnp.where(pitched & ~class_known, now, 0.0) / of_any
  programs = jnp.einsum('btn,bnc->btc', others, proposals.classes) * expected * (1.0 - own_class)
  parts = {
    ids.time: counted(jnp.where(here, 0.0, chance), proposals.states, ids.time[1] - ids.time[0] + 1),
    ids.velocity: counted(same_class - event, jnp.where(proposals.groups == OFF, 0, 1), 2),
    ids.program: jnp.einsum('btc,cp->btp', programs, jax.nn.one_hot(CLASS_PROGRAMS, ids.program[1] - ids.program[0] + 1)),
    ids.pitch: counted(jnp.where(pitched, event, 0.0), proposals.pitches, NUM_PITCHES),
    ids.drum: counted(jnp.where(pitched, 0.0, event), proposals.pitches, NUM_PITCHES),
    (_EOS, _EOS): jnp.where(begun, 0.0, jnp.exp(total[..., -1:])),
  }
  placed = (1.0 - _ELSE) * _placed(parts, own.shape[-1]) + _ELSE / own.shape[-1]
  return jnp.where(held.tie > 0, jnp.log(placed), own)


def _within(tokens, pair):
  return (tokens >= pair[0]) & (tokens <= pair[1])


def _state_of(ids, time):
  """Returns the state that a time token, or 0 for none, leads to."""
  return jnp.maximum(time - ids.time[0], 0)


def _event(ids, token, velocity):
  """Returns (group, pitch) of the event that a pitch's or drum's token completes at a velocity's; nonsense for other tokens."""
  is_drum = _within(token, ids.drum)
  group = jnp.where(is_drum, DRUM, jnp.where(velocity > ids.velocity[0], ON, OFF))
  return group, jnp.maximum(token - jnp.where(is_drum, ids.drum[0], ids.pitch[0]), 0)


def _class_of(ids):
  """Returns the number of the Slakh class of each program's token, NUM_CLASSES for other tokens, int `[tokens]`."""
  first, last = ids.program
  classes = np.full(last + 1, NUM_CLASSES)
  classes[first:] = class_index(np.arange(last - first + 1))
  return classes


def _passed(said_here):
  """Returns whether a proposal comes before one of those, bool `[batch, length, n]`."""
  return jnp.flip(jax.lax.cummax(jnp.flip(said_here, -1).astype(jnp.int8), axis=said_here.ndim - 1), -1) > 0


def _decided(score, enough, possible, begun):
  """Returns scores of certainty; what has begun is completed even if nothing is likely enough for that."""
  decided = jnp.where(enough, _CERTAIN, -_CERTAIN)
  return jnp.where(begun & ~(possible & enough).any(axis=-1, keepdims=True), score, decided)


def _logit(chance):
  return jnp.log(chance + 1e-9) - jnp.log1p(1e-6 - chance)


def _placed(parts, vocab_size):
  """Returns arrays `[..., size]`, each of them at its token ids (first, last), in one `[..., vocab]`, else 0."""
  placed, end = [], 0
  shape = next(iter(parts.values())).shape[:-1]
  for first, last in sorted(parts):
    placed += [jnp.zeros((*shape, first - end)), parts[first, last]]
    end = last + 1
  return jnp.concatenate([*placed, jnp.zeros((*shape, vocab_size - end))], axis=-1)
