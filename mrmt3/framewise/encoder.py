"""The encoder of the frame-level model: MT3's, behind a harmonic front end."""

import jax

from mrmt3.framewise.harmonic_stacking import HarmonicStacking
from mrmt3.network import Encoder


class HarmonicEncoder(Encoder):
  """MT3's encoder with `HarmonicStacking` as its front end.

  `config` needs the fields that `network.Encoder` uses, and `front_channels`, `time_stride` and `output_positions`.
  """

  def setup_inputs(self) -> None:
    """Declare the front end."""
    cfg = self.config
    self.harmonic_front = HarmonicStacking(cfg.emb_dim, cfg.front_channels, cfg.time_stride, cfg.dtype)

  def embed_inputs(self, frames: jax.Array) -> jax.Array:
    """Return the first hidden frames of log-mel frames `[batch, frames, mel]`."""
    return self.harmonic_front(frames)[0]

  def finish(self, x: jax.Array, positions: jax.Array) -> jax.Array:
    """Return the output, the position table added if the config asks for it."""
    return x + positions if self.config.output_positions else x

  def with_pitches(
    self, inputs: jax.Array, mask: jax.Array | None = None, deterministic: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    """Encode log-mel frames, and return the front end's features of single pitches as well.

    Returns:
      (encoder frames `[batch, encoder frames, emb]`, pitch features of `HarmonicStacking`).
    """
    x, pitches = self.harmonic_front(inputs)
    return self.transform(x, mask, deterministic), pitches
