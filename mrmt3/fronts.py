"""The encoder's front: what makes the first hidden states of log-mel frames."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3 import transformer_blocks as layers

LINEAR, HARMONIC = 'linear', 'harmonic'
FRONTS = (LINEAR, HARMONIC)

LOWEST_PITCH, PITCHES = 21, 88  # the piano's; others are left to the states
MEL_RANGE = (20.0, 7600.0)  # Hz, of the log-mels that HarmonicFront reads

_PARTS = 3  # of a semitone
_HARMONICS = (-12, 0, 12, 19, 24, 28, 31, 34, 36)  # semitones from a pitch: the octave below, and the first eight harmonics
# That a state sees besides its first one. A frame begins at its time and lasts 128 ms at 16 kHz, so a note that begins is heard
# in the eight frames before (of 16 ms); what was there without it is seen in those before them.
_WINDOW = (-9, -7, -5, -3, -1, 0, 1, 2)


def semitone_weights(mel_bins: int) -> np.ndarray:
  """Returns the map from log-mel bins to thirds of semitones, float32 `[mel, semitones * 3]`.

  The semitones run from the one an octave below `LOWEST_PITCH` to the last pitch's eighth harmonic; each third is the log-mel
  at its frequency, taken between the two nearest bins, or 0 beyond `MEL_RANGE`.
  """
  low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in MEL_RANGE)
  first, last = LOWEST_PITCH + _HARMONICS[0], LOWEST_PITCH + PITCHES - 1 + _HARMONICS[-1]
  pitches = np.arange(first * _PARTS, (last + 1) * _PARTS) / _PARTS - (_PARTS - 1) / (2 * _PARTS)
  hz = 440.0 * 2.0 ** ((pitches - 69.0) / 12.0)
  place = (2595.0 * np.log10(1.0 + hz / 700.0) - low) / (high - low) * (mel_bins + 1) - 1
  return np.maximum(0.0, 1.0 - np.abs(place - np.arange(mel_bins)[:, None])).astype(np.float32)


class HarmonicFront(nn.Module):
  """Looks at every pitch alike: at its harmonics in a few frames, by one small network that all pitches share.

  Not in the papers, where a state is one linear map of one frame. A small network that is trained for hours, not weeks,
  need not learn anew for each pitch what a note looks like. Log-mels come as they are (scaling 'none', `MEL_RANGE`).

  Attributes:
    features: width of the states.
    channels: how many numbers tell of each semitone, then two widths of what is known of a pitch, the second of them in the end,
      and the width of the layer beside that, which reads whole frames.
    time_stride: frames that are made one state.
    dtype: dtype of the activations.
  """

  features: int
  channels: tuple[int, int, int, int]
  time_stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns `[batch, states, features]`, a state for every `time_stride` frames, and `[batch, states, PITCHES, channels[2]]`.

    Args:
      frames: log-mels `[batch, frames, mel]`.
    """
    bins = frames.shape[-1]
    # Raw log-mels lie about -4 and spread by 4: every band starts from nearly 0 and 1.
    x = (frames * self._vector('scale', 0.25, bins) + self._vector('shift', 1.0, bins)).astype(self.dtype)
    partial, wide, narrow, frame = self.channels
    partials = self._map('partials', partial, self._semitones(x)) + self._vector('partials_bias', 0.0, partial)
    local = self._map('harmonics', wide, self._harmonics(nn.relu(partials)))
    local = nn.relu(local + self._pitch_bias('harmonics_bias', wide))
    local = nn.relu(self._map('notes', narrow, local) + self._pitch_bias('notes_bias', narrow))
    local = local + nn.relu(self._map('neighbours', narrow, self._neighbours(local)) + self._vector('neighbours_bias', 0.0, narrow))
    whole = nn.relu(self._map('frames', frame, self._windows(x)) + self._vector('frames_bias', 0.0, frame))
    y = layers.LayerNorm(self.dtype, name='layer_norm')(local.reshape(*local.shape[:2], -1))
    return self._map('pitches', self.features, y) + self._map('whole', self.features, whole), local

  def _windows(self, x):
    """Returns the frames that a state sees, joined: `[batch, states, window * values]` of `[batch, frames, values]`."""
    span = (-(-x.shape[1] // self.time_stride) - 1) * self.time_stride + 1
    x = jnp.pad(x, ((0, 0), (-_WINDOW[0], self.time_stride + _WINDOW[-1]), (0, 0)))
    starts = [frame - _WINDOW[0] for frame in _WINDOW]
    return jnp.concatenate([x[:, start : start + span : self.time_stride] for start in starts], axis=-1)

  def _semitones(self, x):
    """Returns what a state sees of each semitone, `[batch, states, semitones, window * 3]`."""
    thirds = jnp.dot(x, jnp.asarray(semitone_weights(x.shape[-1]), self.dtype))
    windows = self._windows(thirds)
    batch, states, _ = windows.shape
    parted = windows.reshape(batch, states, -1, thirds.shape[-1] // _PARTS, _PARTS)
    return parted.swapaxes(2, 3).reshape(batch, states, thirds.shape[-1] // _PARTS, -1)

  def _harmonics(self, partials):
    """Returns what lies at each pitch's harmonics, `[batch, states, PITCHES, harmonics * values]`."""
    first = -_HARMONICS[0]
    return jnp.concatenate([partials[:, :, first + h : first + h + PITCHES] for h in _HARMONICS], axis=-1)

  def _neighbours(self, local):
    """Returns what is known of a pitch, before and after it, and of its octaves, `[batch, states, PITCHES, 5 * channels]`."""
    padded = jnp.pad(local, ((0, 0), (1, 1), (12, 12), (0, 0)))
    inner, same = slice(1, -1), slice(12, -12)
    views = [(inner, same), (slice(0, -2), same), (slice(2, None), same), (inner, slice(0, -24)), (inner, slice(24, None))]
    return jnp.concatenate([padded[:, time, pitch] for time, pitch in views], axis=-1)

  def _map(self, name, features, x):
    initializer = nn.initializers.he_normal() if name not in ('pitches', 'whole') else layers.PROJECTION_INITIALIZERS['mt3']
    return layers.Dense(features, ('embed', 'mlp') if x.ndim == 4 else ('mlp', 'embed'), initializer, self.dtype, name=name)(x)

  def _vector(self, name, value, size):
    init = nn.initializers.constant(value)
    return layers.partitioning.param_with_axes(name, init, (size,), jnp.float32, axes=('embed',)).astype(self.dtype)

  def _pitch_bias(self, name, size):
    init = nn.initializers.zeros
    bias = layers.partitioning.param_with_axes(name, init, (PITCHES, size), jnp.float32, axes=(None, 'embed'))
    return bias.astype(self.dtype)
