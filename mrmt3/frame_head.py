"""The frame head: what training has the encoder's states tell, besides the tokens (see `frame_losses`)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3 import transformer_blocks as layers
from mrmt3.instruments import NUM_CLASSES

NUM_PITCHES = 128
ROWS = NUM_CLASSES + 1  # the Slakh classes, drums last


class FrameTargets(NamedTuple):
  """Float32 arrays of every state, labels (0 or 1) or logits.

  Attributes:
    onsets: `[batch, states, 128]`, pitches that begin, of whatever instrument; no drums.
    drums: `[batch, states, 128]`, drum notes that begin.
    pitches: `[batch, states, 128]`, pitches that sound; no drums.
    classes: `[batch, states, ROWS]`, classes that sound; no drums.
  """

  onsets: jax.Array
  drums: jax.Array
  pitches: jax.Array
  classes: jax.Array


SIZES = FrameTargets(NUM_PITCHES, NUM_PITCHES, NUM_PITCHES, ROWS)


class FrameHead(nn.Module):
  """Maps of the encoder's states that only training has.

  Which class an onset belongs to is asked for true onsets only: one output for every class and pitch of every frame would
  be several times the work of the rest of a small network, nearly all of it about notes that are not there.

  Attributes:
    hidden: width of what joins a state and a pitch into an answer about classes.
  """

  hidden: int = 96

  @nn.compact
  def __call__(self, states: jax.Array, onset_states: jax.Array, onset_pitches: jax.Array) -> tuple[FrameTargets, jax.Array]:
    """Returns the logits of all states, and those of the class of each onset, float32 `[batch, onsets, NUM_CLASSES]`.

    Args:
      states: `[batch, states, emb]`.
      onset_states: int `[batch, onsets]`, the state in which each onset lies.
      onset_pitches: int `[batch, onsets]`, 0..127.
    """
    outputs = []
    for name, size in SIZES._asdict().items():
      y = layers.Dense(size, ('embed', 'vocab'), nn.initializers.normal(0.02), jnp.float32, name=name)(states)
      # Of the many outputs only a handful is on: starting from 1/2 each, the first gradients would say nothing else.
      start = nn.initializers.constant(-np.log(size))
      bias = layers.partitioning.param_with_axes(f'{name}_bias', start, (size,), jnp.float32, axes=('vocab',))
      outputs.append(y + bias)
    initializer = layers.PROJECTION_INITIALIZERS['mt3']
    seen = layers.Dense(self.hidden, ('embed', 'mlp'), initializer, jnp.float32, name='seen')(states)
    pitch = layers.partitioning.param_with_axes(
      'pitch', nn.initializers.normal(0.3), (NUM_PITCHES, self.hidden), jnp.float32, axes=('vocab', 'mlp')
    )
    joined = nn.relu(jnp.take_along_axis(seen, onset_states[..., None], axis=1) + pitch[onset_pitches])
    classes = layers.Dense(NUM_CLASSES, ('mlp', 'vocab'), initializer, jnp.float32, name='onset_class')(joined)
    return FrameTargets(*outputs), classes
