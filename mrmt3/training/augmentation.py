"""Random augmentation of log-mel inputs, so that training covers more timbres than the rendered data has."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.errors import UserError
from mrmt3.spectrograms import LOG_FLOOR, SpectrogramConfig, clear_invalid_frames

_NEPERS_PER_DB = np.log(10) / 20  # log-mels are natural logs of magnitudes


@dataclasses.dataclass(frozen=True)
class LogMelAugmentation:
  """Random gain, equalization and noise floor for each example. Needs unscaled log-mels (scaling 'none').

  Attributes:
    gain_db: gain is uniform in [-gain_db, gain_db], dB.
    tone_db: standard deviation at the control points of a random equalization curve over the mel bins, dB.
    tone_points: control points of the curve, which is linear between them.
    noise_db: the white-noise floor is uniform in [0, noise_db] above the log-mel floor, dB.

  Raises:
    UserError: a level is not a number of at least 0, or tone_points is below 2.
  """

  gain_db: float = 6.0
  tone_db: float = 3.0
  tone_points: int = 6
  noise_db: float = 40.0

  def __post_init__(self):
    for name in ('gain_db', 'tone_db', 'noise_db'):
      value = getattr(self, name)
      if not isinstance(value, (int, float)) or value < 0:
        raise UserError(f'LogMelAugmentation.{name} is {value!r}; set it to a number of dB of at least 0')
    if not isinstance(self.tone_points, int) or self.tone_points < 2:
      raise UserError(f'LogMelAugmentation.tone_points is {self.tone_points!r}; set it to an integer of at least 2')

  def __call__(
    self, log_mel: jax.Array, frames: jax.Array | None, rng: jax.Array, config: SpectrogramConfig
  ) -> jax.Array:
    """Return augmented log-mels `[batch, frames, mel]`.

    Args:
      log_mel: float `[batch, frames, mel]`, natural logarithms.
      frames: int `[batch, 1]`, the number of frames before padding; the padding is cleared again. None: no padding.
      rng: key of the random draws.
      config: how the log-mels were computed.

    Raises:
      UserError: the log-mels are scaled.
    """
    if config.scaling != 'none':
      raise UserError(
        f'LogMelAugmentation: spectrograms.SpectrogramConfig.scaling is {config.scaling!r}; '
        "set it to 'none' or leave out the augmentation"
      )
    batch, bins = log_mel.shape[0], log_mel.shape[-1]
    gain_rng, tone_rng, floor_rng, noise_rng = jax.random.split(rng, 4)
    gain = jax.random.uniform(gain_rng, (batch, 1), minval=-self.gain_db, maxval=self.gain_db)
    points = self.tone_db * jax.random.normal(tone_rng, (batch, self.tone_points))
    change = (gain + points @ _interpolation(self.tone_points, bins)) * _NEPERS_PER_DB
    floor = jax.random.uniform(floor_rng, (batch, 1, 1), maxval=self.noise_db) * _NEPERS_PER_DB
    noise = np.log(LOG_FLOOR) + floor + 0.5 * jax.random.normal(noise_rng, log_mel.shape)
    changed = jnp.maximum(log_mel + change[:, None], noise)
    return changed if frames is None else clear_invalid_frames(changed, frames[:, 0])


def _interpolation(points: int, bins: int) -> np.ndarray:
  """Return weights of linear interpolation between equally spaced points, float32 `[points, bins]`."""
  place = np.linspace(0, points - 1, bins)
  return np.maximum(0.0, 1.0 - np.abs(place - np.arange(points)[:, None])).astype(np.float32)
