"""The frame head: what training has the encoder's states tell, besides events and tokens (see `frame_losses`)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3 import transformer_blocks as layers
from mrmt3.instruments import NUM_CLASSES
from mrmt3.note_reader import NUM_PITCHES

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
  """Maps that only training has, of states and of what is known of onsets."""

  @nn.compact
  def __call__(self, states: jax.Array, onsets: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns logits: of sounding pitches and classes, as in `FrameTargets`, and `[batch, n, NUM_CLASSES]`, onsets' classes.

    Which class an onset belongs to is asked for true onsets only: one output for every class and pitch of every frame would
    be several times the work of the rest of a small network, nearly all of it about notes that are not there.

    Args:
      states: `[batch, states, emb]`.
      onsets: `[batch, n, hidden]`, what `NoteReader.join` says of onsets.
    """
    outputs = []
    for name, size in (('pitches', NUM_PITCHES), ('classes', ROWS)):
      y = layers.Dense(size, ('embed', 'vocab'), nn.initializers.normal(0.02), jnp.float32, name=name)(states)
      start = nn.initializers.constant(-np.log(size))
      outputs.append(y + layers.partitioning.param_with_axes(f'{name}_bias', start, (size,), jnp.float32, axes=('vocab',)))
    classes = layers.Dense(
      NUM_CLASSES, ('mlp', 'vocab'), layers.PROJECTION_INITIALIZERS['mt3'], jnp.float32, name='onset_class'
    )(onsets)
    return *outputs, classes
