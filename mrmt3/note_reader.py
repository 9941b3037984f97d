"""What single states say of single notes: which begin, which end, and a list of proposals that the decoder can copy from."""

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

_NEVER = -1e9
_LOUDNESS = 1.5  # of a proposal, for each unit of certainty
_WAVELENGTHS = (2.0, 256.0)  # states, of `time_code`


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
    self.pitch = layers.Dense(self.hidden // 2, ('embed', 'mlp'), initializer, jnp.float32)
    self.at_pitch = layers.Dense(3, ('mlp', 'vocab'), initializer, jnp.float32)
    # Logits of the Slakh classes of events, of what `join` says of them.
    self.class_of = layers.Dense(NUM_CLASSES, ('mlp', 'vocab'), initializer, jnp.float32)
    self.carried = layers.Dense(self.features, ('mlp', 'embed'), initializer, jnp.float32)
    self.time = layers.Dense(self.features, ('joined_kv', 'embed'), nn.initializers.orthogonal(np.sqrt(2)), jnp.float32)
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
      notes: what is known of single pitches besides, `[batch, states, PITCHES, n]`, or None; without, the second part is all 0.
    """
    events = self.events(states) + self.events_bias
    if notes is None:
      return events, jnp.zeros((*states.shape[:2], NUM_PITCHES), jnp.float32)
    hidden = nn.relu(self.pitch(notes) + self.context(states)[:, :, None])
    above = NUM_PITCHES - LOWEST_PITCH - PITCHES
    told = jnp.pad(jnp.moveaxis(self.at_pitch(hidden), -1, 0), ((0, 0), (0, 0), (0, 0), (LOWEST_PITCH, above)))
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
      index = places * PITCHES + jnp.clip(pitch, 0, PITCHES - 1)
      here = jnp.take_along_axis(notes.reshape(len(notes), -1, notes.shape[-1]), index[..., None], axis=1)
      there = (pitch >= 0) & (pitch < PITCHES) & (kinds // NUM_PITCHES != 1)
      known = known + self.seen_at_pitch(jnp.where(there[..., None], here, 0))
    return nn.relu(known)

  def propose(self, states: jax.Array, number: int, notes: jax.Array | None = None) -> jax.Array:
    """Returns the `number` likeliest events as further states, in order of time: float32 `[batch, number, emb]`.

    One that is likelier in a neighbouring state is not proposed. Each is the sum of the names of its time, its kind and its
    likely classes, of how certain it is, and of what else is known of it.
    """
    logits, _ = self(states, notes)
    padded = jnp.pad(logits, ((0, 0), (1, 1), (0, 0)), constant_values=_NEVER)
    peak = (logits >= padded[:, :-2]) & (logits > padded[:, 2:])
    scores = jnp.where(peak, logits, logits + _NEVER).reshape(len(logits), -1)
    chosen = jnp.sort(jax.lax.top_k(scores, number)[1], axis=-1)
    places, kinds = chosen // KINDS, chosen % KINDS
    # One that lies between two states is half as likely in each.
    likely = jnp.pad(jax.nn.sigmoid(logits), ((0, 0), (1, 1), (0, 0)))
    around = likely[:, :-2] + likely[:, 1:-1] + likely[:, 2:]
    certain = jnp.take_along_axis(around.reshape(len(logits), -1), chosen, axis=-1)
    times = self.time(jnp.asarray(time_code(np.arange(states.shape[1]), self.features)))
    joined = self.join(states, notes, places, kinds)
    pitched = kinds // NUM_PITCHES != 1
    classes = jnp.dot(jax.nn.softmax(self.class_of(joined)) * pitched[..., None], self.name_of_class)
    names = self.name_of_kind[kinds] + classes + times[places]
    # What is unlikely is named softly, so that it draws little attention.
    loudness = jnp.minimum(1.0, _LOUDNESS * certain)[..., None]
    return loudness * names + self.carried(joined) + certain[..., None] * self.certainty
