"""The encoder's front: what makes the first hidden states of log-mel frames."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mrmt3 import transformer_blocks as layers

LINEAR, CONVOLUTION = 'linear', 'convolution'
FRONTS = (LINEAR, CONVOLUTION)


class ConvolutionFront(nn.Module):
  """Three 3 x 3 convolutions over time and mel bins, the last two halving the bins, then a map to the states' width.

  Not in the papers, where a state is one linear map of one frame. A small network trained for hours, not weeks, learns
  onsets and harmonics much sooner from neighbouring frames and bins. Log-mels come as they are (scaling 'none').

  Attributes:
    features: width of the states.
    channels: channels of the three convolutions.
    time_stride: frames that the second convolution makes one of.
    dtype: dtype of the activations.
  """

  features: int
  channels: tuple[int, int, int]
  time_stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """Returns `[batch, states, features]` for log-mels `[batch, frames, mel]`, a state for every `time_stride` frames."""
    bins = frames.shape[-1:]
    # Raw log-mels lie about -4 and spread by 4: every band starts from nearly 0 and 1.
    scale = layers.partitioning.param_with_axes('scale', nn.initializers.constant(0.25), bins, jnp.float32, axes=('embed',))
    shift = layers.partitioning.param_with_axes('shift', nn.initializers.ones, bins, jnp.float32, axes=('embed',))
    x = (frames * scale + shift).astype(self.dtype)[..., None]
    for index, channels in enumerate(self.channels):
      strides = (self.time_stride if index == 1 else 1, 1 if index == 0 else 2)
      x = nn.relu(self._convolve(x, channels, strides, index))
    x = layers.LayerNorm(self.dtype, name='layer_norm')(x.reshape(*x.shape[:2], -1))
    initializer = layers.PROJECTION_INITIALIZERS['mt3']
    return layers.Dense(self.features, ('mlp', 'embed'), initializer, self.dtype, name='projection')(x)

  def _convolve(self, x, channels, strides, index):
    kernel = layers.partitioning.param_with_axes(
        f'kernel_{index}', nn.initializers.he_normal(), (3, 3, x.shape[-1], channels), jnp.float32,
        axes=(None, None, None, None),  # small: on every device
    )  # fmt: skip
    bias = layers.partitioning.param_with_axes(
        f'bias_{index}', nn.initializers.zeros, (channels,), jnp.float32, axes=(None,)
    )
    y = jax.lax.conv_general_dilated(
        x, kernel.astype(self.dtype), window_strides=strides, padding='SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return y + bias.astype(self.dtype)
