"""Convolutions over a pitch's harmonics and its past and future, with the same parameters for all pitches.

Arrays are `[channels, pitches, frames, batch]`, see `framewise.harmonic_stacking`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mrmt3.nn import layers

# Semitones to the fundamentals that a pitch may be a harmonic of, to its own harmonics, and to its neighbours.
SHIFTS = (-19, -12, -1, 1, 12, 19, 24, 28)
_HIGHEST = max(map(abs, SHIFTS))
_AXES = {'narrow': ('embed', 'mlp'), 'wide': ('mlp', 'embed'), 'out': ('embed', 'mlp')}


class HarmonicConvolution(nn.Module):
  """A residual block: each pitch and frame sees its harmonics, its neighbours, and four frames around it.

  Attributes:
    narrow: width of what a pitch shows the others.
    dilation: distance of the frames that it sees, encoder frames.
    dtype: dtype of the activations.
  """

  narrow: int
  dilation: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return `[channels, pitches, frames, batch]`, of the shape of `x`."""
    channels = len(x)
    y = nn.relu(self._map('narrow', self.narrow, _normalized(x)) + self._bias('narrow_bias', self.narrow))
    y = nn.relu(self._map('wide', channels, self._views(y)) + self._bias('wide_bias', channels))
    return x + self._map('out', channels, y)

  def _views(self, y):
    """Return what a pitch sees, `[views * narrow, ...]`."""
    far = 2 * self.dilation
    padded = jnp.pad(y, ((0, 0), (_HIGHEST, _HIGHEST), (far, far), (0, 0)))
    pitches, frames = y.shape[1:3]

    def view(semitones, steps):
      first, start = _HIGHEST + semitones, far + steps
      return padded[:, first : first + pitches, start : start + frames]

    around = [view(0, steps * self.dilation) for steps in (-2, -1, 1, 2)]
    return jnp.concatenate([y, *(view(semitones, 0) for semitones in SHIFTS), *around])

  def _map(self, name, features, x):
    initializer = nn.initializers.zeros if name == 'out' else nn.initializers.he_normal()
    return layers.ChannelsFirstDense(features, _AXES[name], initializer, self.dtype, name=name)(x)

  def _bias(self, name, size):
    bias = layers.partitioning.param_with_axes(name, nn.initializers.zeros, (size,), jnp.float32, axes=('embed',))
    return bias.astype(self.dtype)[:, None, None, None]


def _normalized(x):
  """Return `x` with a mean square of 1 over its channels."""
  square = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=0)
  return (x * jax.lax.rsqrt(square + 1e-6)).astype(x.dtype)
