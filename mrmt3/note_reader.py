"""What single states say of single notes: which begin, which end, and a list of proposals that the decoder can copy from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3 import transformer_blocks as layers
from mrmt3.fronts import LOWEST_PITCH, PITCHES
from mrmt3.instruments import NUM_CLASSES

NUM_PITCHES = 128
ONSETS, DRUMS, OFFSETS = (slice(k * NUM_PITCHES, (k + 1) * NUM_PITCHES) for k in range(3))
KINDS = 3 * NUM_PITCHES  # of events: a pitch begins, a drum note begins, a pitch ends
ON, DRUM, OFF = range(3)  # a kind's group: its number // NUM_PITCHES

_NEVER = -1e9
_LOUDNESS = 1.5  # of a proposal, for each unit of certainty
_WAVELENGTHS = (2.0, 256.0)  # states, of `time_code`


class Proposals(NamedTuple):
  """Proposed events, in the order of tokens.

  Attributes:
    states: `[batch, n]`, the state each lies in.
    groups: `[batch, n]`, ON, DRUM or OFF.
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

  Not in the papers. The frame loss (`frame_losses`) trains the logits; the decoder trains what a proposal carries. Besides
  the states it is given what the front knows of single pitches, if the front does (`fronts.HarmonicFront`).

  Attributes:
    features: width of the states and of the proposals.
    hidden: width of what joins a state and a kind.
  """

  features: int
  hidden: int = 96

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
    self.context = layers.Dense(self.hidden // 2, ('embed', 'mlp'), initializer, jnp.float32)
    self.pitch = layers.ChannelsFirstDense(self.hidden // 2, ('embed', 'mlp'), initializer, jnp.float32)
    self.at_pitch = layers.ChannelsFirstDense(3, ('mlp', 'vocab'), initializer, jnp.float32)
    # Logits of the Slakh classes of events, of what `join` says of them.
    self.class_of = layers.Dense(NUM_CLASSES, ('mlp', 'vocab'), initializer, jnp.float32)
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
      notes: what is known of single pitches besides, `[n, PITCHES, states, batch]`, or None; without, the second part is all 0.
    """
    events = self.events(states) + self.events_bias
    if notes is None:
      return events, jnp.zeros((*states.shape[:2], NUM_PITCHES), jnp.float32)
    hidden = nn.relu(self.pitch(notes) + self.context(states).transpose(2, 1, 0)[:, None])
    above = NUM_PITCHES - LOWEST_PITCH - PITCHES
    told = jnp.pad(self.at_pitch(hidden).transpose(0, 3, 2, 1), ((0, 0), (0, 0), (0, 0), (LOWEST_PITCH, above)))
    onsets, offsets, sounding = told
    return events + jnp.concatenate([onsets, jnp.zeros_like(onsets), offsets], axis=-1), sounding

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

  def propose(self, states: jax.Array, number: int, notes: jax.Array | None = None) -> tuple[jax.Array, Proposals]:
    """Returns the `number` likeliest events as further states, float32 `[batch, number, emb]`, and as what they are.

    They come in the order of tokens that are written with `ExampleConfig.rounded_order`, a step being a state: by state; what ends,
    what begins, drums; class; pitch. One that is likelier in a neighbouring
    state is not proposed. Each is the sum of the names of its time, its kind and its likely classes, of how certain it is, of what
    else is known of it, and of a map of the names of the event before it. So whoever has said that one finds this one.
    """
    logits, _ = self(states, notes)
    padded = jnp.pad(logits, ((0, 0), (1, 1), (0, 0)), constant_values=_NEVER)
    peak = (logits >= padded[:, :-2]) & (logits > padded[:, 2:])
    scores = jnp.where(peak, logits, logits + _NEVER).reshape(len(logits), -1)
    chosen = jax.lax.top_k(scores, number)[1]
    places, kinds = chosen // KINDS, chosen % KINDS
    joined = self.join(states, notes, places, kinds)
    class_logits = self.class_of(joined)
    order = jnp.argsort(_token_order(places, kinds, class_logits.argmax(axis=-1)), axis=-1)
    chosen, places, kinds = (jnp.take_along_axis(x, order, axis=-1) for x in (chosen, places, kinds))
    joined, class_logits = (jnp.take_along_axis(x, order[..., None], axis=1) for x in (joined, class_logits))
    # One that lies between two states is half as likely in each.
    likely = jnp.pad(jax.nn.sigmoid(logits), ((0, 0), (1, 1), (0, 0)))
    around = likely[:, :-2] + likely[:, 1:-1] + likely[:, 2:]
    certain = jnp.take_along_axis(around.reshape(len(logits), -1), chosen, axis=-1)
    times = self.time(jnp.asarray(time_code(np.arange(states.shape[1]), self.features)))
    groups, pitches = kinds // NUM_PITCHES, kinds % NUM_PITCHES
    classes = jax.nn.softmax(class_logits) * (groups != DRUM)[..., None]
    names = self.name_of_kind[kinds] + jnp.dot(classes, self.name_of_class) + times[places]
    # What is unlikely is named softly, so that it draws little attention.
    loudness = jnp.minimum(1.0, _LOUDNESS * certain)
    names = loudness[..., None] * names
    # An unlikely one is a soft name here too.
    before = self.before(jnp.einsum('bnm,bmd->bnd', _event_before(loudness), names))
    rows = names + before + self.carried(joined) + certain[..., None] * self.certainty
    # Certainty counts the neighbouring states too, since the tokens say one of them.
    scores = jax.scipy.special.logit(jnp.clip(certain, 1e-6, 1 - 1e-4))
    return rows, Proposals(places, groups, pitches, scores, classes)


def _token_order(places, kinds, classes):
  """Returns a number that sorts events as tokens are, int of the arrays' shape."""
  group, pitch = kinds // NUM_PITCHES, kinds % NUM_PITCHES
  rank = jnp.asarray(np.argsort([OFF, ON, DRUM]))[group]
  classes = jnp.where(group == DRUM, 0, classes)
  return ((places * 3 + rank) * NUM_CLASSES + classes) * NUM_PITCHES + pitch


def _event_before(certain):
  """Returns how likely each event is the last one before each, `[batch, n, n]`, as each happens with chance `certain` `[batch, n]`."""
  number = certain.shape[-1]
  missed = jnp.log1p(-jnp.minimum(certain, 1.0 - 1e-3))
  total = jnp.cumsum(missed, axis=-1)
  # Event m, and none of m + 1 .. n - 1.
  between = (total - missed)[..., :, None] - total[..., None, :]
  earlier = np.tri(number, k=-1, dtype=bool)
  return jnp.exp(jnp.where(earlier, between, _NEVER)) * certain[..., None, :]
