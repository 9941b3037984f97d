"""What single states say of single notes: which begin, end and go on, and lists of them that can be copied."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3.framewise.harmonic_stacking import LOWEST_PITCH, PITCHES
from mrmt3.nn import layers
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.tokens.batched_parsing import NUM_PITCHES

ROWS = NUM_CLASSES + 1  # the Slakh classes, drums last


class FrameTargets(NamedTuple):
  """Float32 arrays of every state, labels (0 or 1) or logits.

  Attributes:
    onsets: `[batch, states, 128]`, pitches that begin, of whatever instrument; no drums.
    drums: `[batch, states, 128]`, drum notes that begin.
    offsets: `[batch, states, 128]`, pitches that end, of whatever instrument.
    pitches: `[batch, states, 128]`, pitches that sound; no drums.
    classes: `[batch, states, ROWS]`, classes that sound; no drums.
  """

  onsets: jax.Array
  drums: jax.Array
  offsets: jax.Array
  pitches: jax.Array
  classes: jax.Array


class FrameHead(nn.Module):
  """The map of states that only training has."""

  @nn.compact
  def __call__(self, states: jax.Array) -> jax.Array:
    """Returns logits of sounding classes, as in `FrameTargets`, for states `[batch, states, emb]`."""
    y = layers.Dense(ROWS, ('embed', 'vocab'), nn.initializers.normal(0.02), jnp.float32, name='classes')(states)
    start = nn.initializers.constant(-np.log(ROWS))
    return y + layers.partitioning.param_with_axes('classes_bias', start, (ROWS,), jnp.float32, axes=('vocab',))


ONSETS, DRUMS, OFFSETS = (slice(k * NUM_PITCHES, (k + 1) * NUM_PITCHES) for k in range(3))
KINDS = 3 * NUM_PITCHES  # of events: a pitch begins, a drum note begins, a pitch ends
ON, DRUM, OFF = range(3)  # a kind's group: its number // NUM_PITCHES
TIE = 3  # the group of what goes on from the segment before
MOST_TIES = 32  # of a segment

_NEVER = -1e9
_LOUDNESS = 1.5  # of a proposal, for each unit of certainty
_WAVELENGTHS = (2.0, 256.0)  # states, of `time_code`
_ROUNDS = 3  # of weighing classes by shares and counting the shares
_SELDOM = 0.01  # of all that plays, shared alike by the classes


class Proposals(NamedTuple):
  """Proposed events, in the order of tokens.

  Attributes:
    states: `[batch, n]`, the state each lies in.
    groups: `[batch, n]`, ON, DRUM, OFF or TIE.
    pitches: `[batch, n]`, 0 .. 127.
    scores: float32 `[batch, n]`, logits of being real.
    classes: float32 `[batch, n, NUM_CLASSES]`, how likely each Slakh class is; 0 for drums.
  """

  states: jax.Array
  groups: jax.Array
  pitches: jax.Array
  scores: jax.Array
  classes: jax.Array


def time_frequencies(features: int) -> np.ndarray:
  """Returns the angles that a state's time advances by in `time_code`, float64 `[features / 2]`."""
  shortest, longest = _WAVELENGTHS
  return 2 * np.pi / np.geomspace(shortest, longest, features // 2)


def time_code(states: np.ndarray, features: int) -> np.ndarray:
  """Returns what stands for times, counted in states (also parts of them), float32 `[n, features]`: sines, then cosines.

  Two codes are as good as orthogonal from some five states on. In the position table that attention otherwise has, half of what
  there is hardly changes within a segment, so that a query finds it hard to tell one moment from the next.
  """
  angles = np.asarray(states)[:, None] * time_frequencies(features)
  return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)


class NoteReader(nn.Module):
  """Reads events out of states: one of `KINDS` in one state.

  Not in the papers. The frame loss (`frame_losses`) trains the logits; a decoder that is shown proposals trains what they carry. Besides
  the states it is given what the front knows of single pitches, if the front does (`fronts.HarmonicFront`).

  Attributes:
    features: width of the states and of the proposals.
    shown: whether a decoder is shown proposals (`as_states`), which takes parameters.
    hidden: width of what joins a state and a kind.
    of_pitch: width of what joins a state and what the front knows of a pitch.
  """

  features: int
  shown: bool = True
  hidden: int = 256
  of_pitch: int = 48

  def setup(self):
    """Declares the parts."""
    initializer = layers.PROJECTION_INITIALIZERS['mt3']
    self.events = layers.Dense(KINDS, ('embed', 'vocab'), nn.initializers.normal(0.02), jnp.float32)
    # Of the many only a handful happens: starting from 1/2 each, the first gradients would say nothing else.
    start = nn.initializers.constant(-np.log(NUM_PITCHES))
    self.events_bias = layers.partitioning.param_with_axes('events_bias', start, (KINDS,), jnp.float32, axes=('vocab',))
    self.seen = layers.Dense(self.hidden, ('embed', 'mlp'), initializer, jnp.float32)
    self.kind = layers.partitioning.param_with_axes(
      'kind', nn.initializers.normal(0.3), (KINDS, self.hidden), jnp.float32, axes=('vocab', 'mlp')
    )
    self.seen_at_pitch = layers.Dense(self.hidden, ('embed', 'mlp'), initializer, jnp.float32)
    self.context = layers.Dense(self.of_pitch, ('embed', 'mlp'), initializer, jnp.float32)
    self.pitch = layers.ChannelsFirstDense(self.of_pitch, ('embed', 'mlp'), initializer, jnp.float32)
    self.at_pitch = layers.ChannelsFirstDense(3, ('mlp', 'vocab'), initializer, jnp.float32)
    self.sounds = layers.Dense(NUM_PITCHES, ('embed', 'vocab'), nn.initializers.normal(0.02), jnp.float32)
    self.sounds_bias = layers.partitioning.param_with_axes(
      'sounds_bias', start, (NUM_PITCHES,), jnp.float32, axes=('vocab',)
    )
    # Logits of the Slakh classes of events, of what `join` says of them.
    self.class_of = layers.Dense(NUM_CLASSES, ('mlp', 'vocab'), initializer, jnp.float32)
    if self.shown:
      self._declare_names(initializer)

  def _declare_names(self, initializer):
    self.carried = layers.Dense(self.features, ('mlp', 'embed'), initializer, jnp.float32)
    self.time = layers.Dense(self.features, ('joined_kv', 'embed'), nn.initializers.orthogonal(np.sqrt(2)), jnp.float32)
    self.before = layers.Dense(self.features, ('joined_kv', 'embed'), nn.initializers.orthogonal(), jnp.float32)
    self.name_of_kind, self.name_of_class = (
      layers.partitioning.param_with_axes(
        name, nn.initializers.normal(1.0), (size, self.features), jnp.float32, axes=('vocab', 'embed')
      )
      for name, size in (('name_of_kind', KINDS), ('name_of_class', NUM_CLASSES))
    )
    self.certainty = layers.partitioning.param_with_axes(
      'certainty', nn.initializers.normal(1.0), (self.features,), jnp.float32, axes=('embed',)
    )

  def __call__(self, states: jax.Array, notes: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Returns logits, float32: `[batch, states, KINDS]`, what happens in each state; `[batch, states, NUM_PITCHES]`, what sounds.

    Args:
      states: `[batch, states, emb]`.
      notes: what is known of single pitches besides, `[n, PITCHES, states, batch]`, or None.
    """
    events, sounding = self.events(states) + self.events_bias, self.sounds(states) + self.sounds_bias
    if notes is None:
      return events, sounding
    hidden = nn.relu(self.pitch(notes) + self.context(states).transpose(2, 1, 0)[:, None])
    above = NUM_PITCHES - LOWEST_PITCH - PITCHES
    told = jnp.pad(self.at_pitch(hidden).transpose(0, 3, 2, 1), ((0, 0), (0, 0), (0, 0), (LOWEST_PITCH, above)))
    onsets, offsets, goes_on = told
    return events + jnp.concatenate([onsets, jnp.zeros_like(onsets), offsets], axis=-1), sounding + goes_on

  def join(self, states: jax.Array, notes: jax.Array | None, places: jax.Array, kinds: jax.Array) -> jax.Array:
    """Returns what is known of events, float32 `[batch, n, hidden]`.

    Args:
      states: `[batch, states, emb]`.
      notes: as in a call.
      places: int `[batch, n]`, the state each lies in.
      kinds: int `[batch, n]`, which of KINDS it is.
    """
    known = jnp.take_along_axis(self.seen(states), places[..., None], axis=1) + self.kind[kinds]
    if notes is not None:
      pitch = kinds % NUM_PITCHES - LOWEST_PITCH
      here = notes[:, jnp.clip(pitch, 0, PITCHES - 1), places, jnp.arange(len(states))[:, None]]
      here = jnp.moveaxis(here, 0, -1)
      there = (pitch >= 0) & (pitch < PITCHES) & (kinds // NUM_PITCHES != DRUM)
      known = known + self.seen_at_pitch(jnp.where(there[..., None], here, 0))
    return nn.relu(known)

  def propose(self, states: jax.Array, number: int, notes: jax.Array | None = None) -> Proposals:
    """Returns the `number` likeliest events.

    They come in the order of tokens that are written with `ExampleConfig.rounded_order`, a step being a state: by state; what ends,
    what begins, drums; class; pitch. One that is likelier in a neighbouring state is not proposed.

    Args:
      states: `[batch, states, emb]`.
      number: how many.
      notes: as in a call.
    """
    logits, _ = self(states, notes)
    padded = jnp.pad(logits, ((0, 0), (1, 1), (0, 0)), constant_values=_NEVER)
    peak = (logits >= padded[:, :-2]) & (logits > padded[:, 2:])
    scores = jnp.where(peak, logits, logits + _NEVER).reshape(len(logits), -1)
    chosen = jax.lax.top_k(scores, number)[1]
    places, kinds = chosen // KINDS, chosen % KINDS
    # One that lies between two states is half as likely in each, and the tokens say one of them.
    likely = jnp.pad(jax.nn.sigmoid(logits), ((0, 0), (1, 1), (0, 0)))
    around = likely[:, :-2] + likely[:, 1:-1] + likely[:, 2:]
    certain = jnp.take_along_axis(around.reshape(len(logits), -1), chosen, axis=-1)
    groups, pitches = kinds // NUM_PITCHES, kinds % NUM_PITCHES
    classes = jax.nn.softmax(self.class_of(self.join(states, notes, places, kinds))) * (groups != DRUM)[..., None]
    return in_token_order(Proposals(places, groups, pitches, _logit(certain), classes))

  def as_states(self, states: jax.Array, proposals: Proposals, notes: jax.Array | None = None) -> jax.Array:
    """Returns proposals as further states, float32 `[batch, number, emb]`.

    Each is the sum of the names of its time, its kind and its likely classes, of how certain it is, of what
    else is known of it, and of a map of the names of the event before it. So whoever has said that one finds this one.

    Args:
      states: `[batch, states, emb]`.
      proposals: of `propose`.
      notes: as in a call.
    """
    places, kinds = proposals.states, proposals.groups * NUM_PITCHES + proposals.pitches
    certain = jax.nn.sigmoid(proposals.scores)
    times = self.time(jnp.asarray(time_code(np.arange(states.shape[1]), self.features)))
    names = self.name_of_kind[kinds] + jnp.dot(proposals.classes, self.name_of_class) + times[places]
    # What is unlikely is named softly, so that it draws little attention.
    loudness = jnp.minimum(1.0, _LOUDNESS * certain)
    names = loudness[..., None] * names
    # An unlikely one is a soft name here too.
    before = self.before(jnp.einsum('bnm,bmd->bnd', _event_before(loudness), names))
    return names + before + self.carried(self.join(states, notes, places, kinds)) + certain[..., None] * self.certainty

  def ties(
    self, states: jax.Array, notes: jax.Array | None, held: jax.Array, adjacent: jax.Array | None = None
  ) -> Proposals:
    """Returns what may go on from the segment before, MOST_TIES of group TIE, in the order of tokens: by class, by pitch.

    The first state says which pitches sound. Of which class, and what can go on at all, says the segment right before; where that is not
    known, the reader tells a class as it does where a note ends.

    Args:
      states: `[batch, states, emb]`.
      notes: as in a call.
      held: bool `[batch, NUM_CLASSES, NUM_PITCHES]`, what sounded when the segment right before ended.
      adjacent: bool `[batch]`, in which rows that is known; None: in all.
    """
    sounding = self(states, notes)[1][:, 0]
    known = jnp.ones(len(states), bool) if adjacent is None else adjacent
    scores = jnp.where(held & known[:, None, None], sounding[:, None], _NEVER)
    scores = jnp.concatenate([scores, jnp.where(known[:, None], _NEVER, sounding)[:, None]], axis=1)
    scores, chosen = jax.lax.top_k(scores.reshape(len(states), -1), MOST_TIES)
    rows, pitches = chosen // NUM_PITCHES, chosen % NUM_PITCHES
    heard = self.class_of(self.join(states, notes, jnp.zeros_like(pitches), OFFSETS.start + pitches))
    classes = jnp.where((rows < NUM_CLASSES)[..., None], jax.nn.one_hot(rows, NUM_CLASSES), jax.nn.softmax(heard))
    return in_token_order(
      Proposals(jnp.zeros_like(pitches), jnp.full_like(pitches, TIE), pitches, _logit(jax.nn.sigmoid(scores)), classes)
    )


def weighed_events(events: Proposals, heard: jax.Array | None, strength: float, threshold: float) -> Proposals:
  """Returns proposals with their classes weighed by what has been heard, see `weigh_classes`, in the order of tokens.

  An onset counts as heard if its chance is at least `threshold`; with 0, as much as it is likely.
  """
  certain = jax.nn.sigmoid(events.scores)
  counted = jnp.where(certain >= threshold, 1.0, 0.0) if threshold else certain
  counted = jnp.where(events.groups == ON, counted, 0.0)
  return in_token_order(events._replace(classes=weigh_classes(events.classes, counted, heard, strength)))


def weigh_classes(classes: jax.Array, counted: jax.Array, heard: jax.Array | None, strength: float) -> jax.Array:
  """Returns the chances of classes, weighed by how much of all that has been heard each class plays; of `classes`' shape.

  An instrument that has played for long is the likelier one to play a note than one that has not: what is heard of a note is
  multiplied by the `strength`-th power of the class's share of the notes. Shares count the segment's own notes too, as they are weighed.

  Args:
    classes: float `[batch, n, NUM_CLASSES]`, of single notes; those of drums are 0, and stay it.
    counted: float `[batch, n]`, how much each note counts.
    heard: `[batch, NUM_CLASSES]`, how many notes of each class have been heard before; None: none.
    strength: 1 is Bayes' rule, if all classes are equally frequent in what the reader learnt from.
  """
  before = 0.0 if heard is None else heard.astype(jnp.float32)
  weighed = classes
  for _ in range(_ROUNDS):
    shares = before + jnp.einsum('bn,bnc->bc', counted, weighed)
    shares = shares / (shares.sum(axis=-1, keepdims=True) + 1e-6)
    shares = (shares + _SELDOM / NUM_CLASSES) / (1.0 + _SELDOM)
    weighed = classes * jax.lax.stop_gradient(shares**strength)[:, None]
    weighed = weighed / (weighed.sum(axis=-1, keepdims=True) + 1e-9)
  return weighed


def _logit(chance):
  return jax.scipy.special.logit(jnp.clip(chance, 1e-6, 1 - 1e-4))


def in_token_order(proposals: Proposals) -> Proposals:
  """Returns proposals in the order in which tokens of them are written."""
  rank = jnp.asarray(np.argsort([TIE, OFF, ON, DRUM]))[proposals.groups]
  classes = jnp.where(proposals.groups == DRUM, 0, proposals.classes.argmax(axis=-1))
  order = jnp.argsort(
    ((proposals.states * 4 + rank) * NUM_CLASSES + classes) * NUM_PITCHES + proposals.pitches, axis=-1
  )
  return Proposals(
    *(jnp.take_along_axis(x, order, axis=-1) for x in proposals[:-1]),
    jnp.take_along_axis(proposals.classes, order[..., None], axis=1),
  )


def _event_before(certain):
  """Returns how likely each event is the last one before each, `[batch, n, n]`, as each happens with chance `certain` `[batch, n]`."""
  number = certain.shape[-1]
  missed = jnp.log1p(-jnp.minimum(certain, 1.0 - 1e-3))
  total = jnp.cumsum(missed, axis=-1)
  # Event m, and none of m + 1 .. n - 1.
  between = (total - missed)[..., :, None] - total[..., None, :]
  earlier = np.tri(number, k=-1, dtype=bool)
  return jnp.exp(jnp.where(earlier, between, _NEVER)) * certain[..., None, :]
