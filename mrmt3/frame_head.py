"""The frame head: what training has the encoder's states tell, besides events and tokens (see `frame_losses`)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3 import transformer_blocks as layers
from mrmt3.instruments import NUM_CLASSES

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
