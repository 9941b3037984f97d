"""The front end of the frame-level encoder: the first hidden frames, from log-mels of a pitch's harmonics.

Arrays are `[channels, pitches, frames, batch]`, so that what is concatenated are long runs of memory, and each map is
one matrix product. With channels last, concatenating a few numbers of each pitch takes a CPU as long as the arithmetic.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3 import spectrograms
from mrmt3.nn import layers

LOWEST_PITCH, PITCHES = 21, 88  # the piano's; other pitches have no features of their own
MEL_RANGE = (20.0, 7600.0)  # Hz, of the log-mels that HarmonicStacking reads

_PARTS = 3  # of a semitone
# Semitones from a pitch: the octave below, and the first eight harmonics.
HARMONICS = (-12, 0, 12, 19, 24, 28, 31, 34, 36)
# Frames that an encoder frame sees, counted from its first one. A log-mel frame begins at its time and lasts 128 ms at
# 16 kHz, so an onset shows in the eight frames before it (of about 16 ms); the frames before those are without it.
_WINDOW = (-9, -7, -5, -3, -1, 0, 1, 2)


def semitone_weights(mel_bins: int) -> np.ndarray:
  """Return the map from log-mel bins to thirds of semitones, float32 `[mel, semitones * 3]`.

  The semitones run from the one an octave below `LOWEST_PITCH` to the last pitch's eighth harmonic; each third is the
  log-mel at its frequency, taken between the two nearest bins, or 0 beyond `MEL_RANGE`.
  """
  low, high = spectrograms.hz_to_mel(MEL_RANGE)
  first, last = LOWEST_PITCH + HARMONICS[0], LOWEST_PITCH + PITCHES - 1 + HARMONICS[-1]
  pitches = np.arange(first * _PARTS, (last + 1) * _PARTS) / _PARTS - (_PARTS - 1) / (2 * _PARTS)
  hz = 440.0 * 2.0 ** ((pitches - 69.0) / 12.0)
  place = (spectrograms.hz_to_mel(hz) - low) / (high - low) * (mel_bins + 1) - 1
  return np.maximum(0.0, 1.0 - np.abs(place - np.arange(mel_bins)[:, None])).astype(np.float32)


class _NormOfPitches(nn.Module):
  """`nn.layers.LayerNorm` over all pitches and channels of a frame, with the same parameter, without a transpose.

  Transposing the array for `LayerNorm` makes the front end's gradient a fifth slower on a CPU.
  """

  dtype: Any

  @nn.compact
  def __call__(self, local: jax.Array) -> jax.Array:
    """Return `[PITCHES * channels, frames, batch]` for `[channels, PITCHES, frames, batch]`."""
    size = local.shape[0] * local.shape[1]
    scale = layers.partitioning.param_with_axes('scale', nn.initializers.ones, (size,), jnp.float32, axes=('embed',))
    x = local.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=(0, 1)) + 1e-6)
    y = (x * inverse).astype(self.dtype) * scale.reshape(local.shape[1], -1).T[..., None, None].astype(self.dtype)
    return y.swapaxes(0, 1).reshape(size, *local.shape[2:])


class HarmonicStacking(nn.Module):
  """A small network over the harmonics of a pitch in a few frames, with the same parameters for all pitches.

  Not in the papers, where a hidden frame is a linear map of one log-mel frame. So a network that is trained for hours
  need not learn for every pitch anew what a note looks like. Log-mels are not scaled (scaling 'none', `MEL_RANGE`).

  Attributes:
    features: width of the hidden frames.
    channels: four widths: features of a semitone, two layers of features of a pitch, and the layer over whole frames.
    time_stride: log-mel frames that become one hidden frame.
    dtype: dtype of the activations.
  """

  features: int
  channels: tuple[int, int, int, int]
  time_stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute hidden frames and pitch features.

    Args:
      frames: log-mels `[batch, frames, mel]`.

    Returns:
      (`[batch, hidden frames, features]`, one for every `time_stride` log-mel frames;
      `[channels[2], PITCHES, hidden frames, batch]`).
    """
    bins = frames.shape[-1]
    # Unscaled log-mels have a mean of about -4 and a standard deviation of 4.
    x = (frames * self._vector('scale', 0.25, bins) + self._vector('shift', 1.0, bins)).astype(self.dtype)
    x = x.transpose(2, 1, 0)
    partial, wide, narrow, frame = self.channels
    partials = self._map('partials', partial, self.semitones(x)) + self._bias('partials_bias', partial)
    local = self._map('harmonics', wide, self._harmonics(nn.relu(partials)))
    local = nn.relu(local + self._pitch_bias('harmonics_bias', wide))
    local = nn.relu(self._map('notes', narrow, local) + self._pitch_bias('notes_bias', narrow))
    neighbours = self._map('neighbours', narrow, self._neighbours(local)) + self._bias('neighbours_bias', narrow)
    local = self.refine(local + nn.relu(neighbours))
    whole = self.windows(x)
    whole = self._map('frames', frame, whole.reshape(-1, *whole.shape[2:])) + self._bias('frames_bias', frame)[:, 0]
    y = _NormOfPitches(self.dtype, name='layer_norm')(local)
    hidden = self._map('pitches', self.features, y) + self._map('whole', self.features, nn.relu(whole))
    return hidden.transpose(2, 1, 0), local

  def refine(self, local: jax.Array) -> jax.Array:
    """Return pitch features `[channels, PITCHES, frames, batch]`, here as they are; a hook for subclasses."""
    return local

  def windows(self, x: jax.Array) -> jax.Array:
    """Return the window of each hidden frame, `[window, ..., hidden, batch]`, of `[..., frames, batch]`."""
    hidden = -(-x.shape[-2] // self.time_stride)
    span = (hidden - 1) * self.time_stride + 1
    x = jnp.pad(x, (*[(0, 0)] * (x.ndim - 2), (-_WINDOW[0], self.time_stride + _WINDOW[-1]), (0, 0)))
    starts = [frame - _WINDOW[0] for frame in _WINDOW]
    return jnp.stack([x[..., start : start + span : self.time_stride, :] for start in starts])

  def semitones(self, x: jax.Array) -> jax.Array:
    """Return each semitone in the window, `[window * 3, semitones, hidden, batch]`, of `[mel, frames, batch]`."""
    weights = semitone_weights(len(x))
    # From [semitone, third] to [third, semitone].
    weights = weights.reshape(len(x), -1, _PARTS).transpose(2, 1, 0)
    thirds = jnp.tensordot(jnp.asarray(weights, self.dtype), x, axes=1)
    windows = self.windows(thirds)
    return windows.reshape(-1, *windows.shape[2:])

  def _harmonics(self, partials):
    """Return the harmonics of each pitch, `[harmonics * channels, PITCHES, ...]`, of `[channels, semitones, ...]`."""
    first = -HARMONICS[0]
    return jnp.concatenate([partials[:, first + h : first + h + PITCHES] for h in HARMONICS])

  def _neighbours(self, local):
    """Return a pitch, its frames before and after, and its octaves, `[5 * channels, PITCHES, frames, batch]`."""
    padded = jnp.pad(local, ((0, 0), (12, 12), (1, 1), (0, 0)))
    inner, same = slice(1, -1), slice(12, -12)
    views = [
      (inner, same),
      (slice(0, -2), same),
      (slice(2, None), same),
      (inner, slice(0, -24)),
      (inner, slice(24, None)),
    ]
    return jnp.concatenate([padded[:, pitch, time] for time, pitch in views])

  def _map(self, name, features, x):
    initializer = (
      nn.initializers.he_normal() if name not in ('pitches', 'whole') else layers.PROJECTION_INITIALIZERS['mt3']
    )
    axes = ('embed', 'mlp') if x.ndim == 4 else ('mlp', 'embed')
    return layers.ChannelsFirstDense(features, axes, initializer, self.dtype, name=name)(x)

  def _vector(self, name, value, size):
    init = nn.initializers.constant(value)
    return layers.partitioning.param_with_axes(name, init, (size,), jnp.float32, axes=('embed',)).astype(self.dtype)

  def _bias(self, name, size):
    return self._vector(name, 0.0, size)[:, None, None, None]

  def _pitch_bias(self, name, size):
    init = nn.initializers.zeros
    bias = layers.partitioning.param_with_axes(name, init, (PITCHES, size), jnp.float32, axes=(None, 'embed'))
    return bias.astype(self.dtype).T[..., None, None]
