"""What single states say of single notes: which begin, which end, and a list of proposals that the decoder can copy from."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3 import transformer_blocks as layers

NUM_PITCHES = 128
ONSETS, DRUMS, OFFSETS = (slice(k * NUM_PITCHES, (k + 1) * NUM_PITCHES) for k in range(3))
KINDS = 3 * NUM_PITCHES  # of events: a pitch begins, a drum note begins, a pitch ends

_NEVER = -1e9


class NoteReader(nn.Module):
  """Reads events out of states: one of `KINDS` in one state.

  Not in the papers. The frame loss (`frame_losses`) trains the logits; the decoder trains what a proposal carries.

  Attributes:
    features: width of the states and of the proposals.
    hidden: width of what joins a state and a kind.
    positions: which position table proposals get ('mt3' or 'mr_mt3').
  """

  features: int
  hidden: int = 96
  positions: str = 'mt3'

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
    self.carried = layers.Dense(self.features, ('mlp', 'embed'), initializer, jnp.float32)
    self.name_of_kind = layers.partitioning.param_with_axes(
      'name_of_kind', nn.initializers.normal(1.0), (KINDS, self.features), jnp.float32, axes=('vocab', 'embed')
    )
    self.certainty = layers.partitioning.param_with_axes(
      'certainty', nn.initializers.normal(1.0), (self.features,), jnp.float32, axes=('embed',)
    )

  def __call__(self, states: jax.Array) -> jax.Array:
    """Returns logits, float32 `[batch, states, KINDS]`: does this happen in this state?"""
    return self.events(states) + self.events_bias

  def join(self, states: jax.Array, places: jax.Array, kinds: jax.Array) -> jax.Array:
    """Returns what is known of events, float32 `[batch, n, hidden]`.

    Args:
      states: `[batch, states, emb]`.
      places: int `[batch, n]`, the state each lies in.
      kinds: int `[batch, n]`, which of KINDS it is.
    """
    return nn.relu(jnp.take_along_axis(self.seen(states), places[..., None], axis=1) + self.kind[kinds])

  def propose(self, states: jax.Array, number: int) -> jax.Array:
    """Returns the `number` likeliest events as further states, in order of time: float32 `[batch, number, emb]`.

    One that is likelier in a neighbouring state is not proposed.
    """
    logits = self(states)
    padded = jnp.pad(logits, ((0, 0), (1, 1), (0, 0)), constant_values=_NEVER)
    peak = (logits >= padded[:, :-2]) & (logits > padded[:, 2:])
    scores = jnp.where(peak, logits, logits + _NEVER).reshape(len(logits), -1)
    chosen = jnp.sort(jax.lax.top_k(scores, number)[1], axis=-1)
    places, kinds = chosen // KINDS, chosen % KINDS
    certain = jax.nn.sigmoid(jnp.take_along_axis(logits.reshape(len(logits), -1), chosen, axis=-1))
    table = jnp.asarray(layers.sinusoidal_positions(states.shape[1], self.features, self.positions))
    carried = self.carried(self.join(states, places, kinds)) + certain[..., None] * self.certainty
    return carried + self.name_of_kind[kinds] + table[places]
