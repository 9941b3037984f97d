"""The encoder: harmonics stacked in a log-frequency spectrogram, harmonic convolutions, and MT3's layers above."""

import jax
import jax.numpy as jnp

from mrmt3.audio import semitones
from mrmt3.framewise.encoder import HarmonicEncoder
from mrmt3.framewise.harmonic_stacking import HARMONICS, LOWEST_PITCH, PITCHES, HarmonicStacking
from mrmt3.harmonic_conv.blocks import HarmonicConvolution


class SemitoneStacking(HarmonicStacking):
  """`HarmonicStacking` of the spectrogram of `audio.semitones`, followed by harmonic convolutions.

  Attributes:
    narrow: see `HarmonicConvolution`.
    dilations: of each convolution, encoder frames.
  """

  narrow: int = 8
  dilations: tuple[int, ...] = (1, 2, 4, 8)

  def refine(self, local: jax.Array) -> jax.Array:
    """Return the pitch features after the convolutions."""
    for number, dilation in enumerate(self.dilations):
      local = HarmonicConvolution(self.narrow, dilation, self.dtype, name=f'block{number}')(local)
    return local

  def semitones(self, x: jax.Array) -> jax.Array:
    """Return each semitone in the window, `[window * windows * 3, semitones, hidden, batch]`, of `[bins, ...]`."""
    first, last = LOWEST_PITCH + HARMONICS[0], LOWEST_PITCH + PITCHES - 1 + HARMONICS[-1]
    parts = []
    for bins in (x[: semitones.SHORT_FILTERS], x[semitones.SHORT_FILTERS :]):
      by_pitch = bins.reshape(-1, semitones.PER_SEMITONE, *bins.shape[1:])
      above = last + 1 - semitones.LOWEST - len(by_pitch)
      parts.append(jnp.pad(by_pitch, ((semitones.LOWEST - first, above), (0, 0), (0, 0), (0, 0))))
    short, long = (part.swapaxes(0, 1) for part in parts)
    windows = self.windows(short)
    # Long windows change slowly: one of them is enough.
    now = long[..., :: self.time_stride, :]
    return jnp.concatenate([windows.reshape(-1, *windows.shape[2:]), now])


class HarmonicConvEncoder(HarmonicEncoder):
  """MT3's encoder behind `SemitoneStacking`; `config` is a `config.HarmonicConvConfig`."""

  def setup_inputs(self) -> None:
    """Declare the front end."""
    cfg = self.config
    self.harmonic_front = SemitoneStacking(
      cfg.emb_dim, cfg.front_channels, cfg.time_stride, cfg.dtype, cfg.narrow, cfg.dilations
    )
