"""Random changes to log-mel inputs in training, so that a network knows more sounds than its soundfonts'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.errors import UserError
from mrmt3.spectrograms import LOG_FLOOR, SpectrogramConfig, clear_invalid_frames

_NEPERS_PER_DB = np.log(10) / 20  # log-mels are natural logs of magnitudes


@dataclasses.dataclass(frozen=True)
class LogMelAugmentation:
  """Another gain, another tone and some noise floor for every example; raw log-mels only (scaling 'none').

  Raises UserError for numbers below 0.

  Attributes:
    gain_db: the level changes by up to so much either way, dB.
    tone_db: standard deviation of a smooth random curve over the mel bins that is added, dB.
    tone_points: points that the curve runs through.
    noise_db: the floor of white noise lies up to so far above the quietest level that a log-mel shows, dB; drawn
      uniformly from 0 on.
  """

  gain_db: float = 6.0
  tone_db: float = 3.0
  tone_points: int = 6
  noise_db: float = 40.0

  def __post_init__(self):
    for name in ('gain_db', 'tone_db', 'noise_db'):
      value = getattr(self, name)
      if not isinstance(value, (int, float)) or value < 0:
        raise UserError(f'LogMelAugmentation.{name} is {value!r}; it is a number of dB, 0 or more')
    if not isinstance(self.tone_points, int) or self.tone_points < 2:
      raise UserError(f'LogMelAugmentation.tone_points is {self.tone_points!r}; it is a whole number of at least 2')

  def __call__(
    self, log_mel: jax.Array, frames: jax.Array | None, rng: jax.Array, config: SpectrogramConfig
  ) -> jax.Array:
    """Returns log-mels `[batch, frames, mel]` changed; `frames` `[batch, 1]`, those before padding (None: all), keep theirs.

    Raises UserError for log-mels that are scaled.
    """
    if config.scaling != 'none':
      raise UserError("LogMelAugmentation: needs spectrograms.SpectrogramConfig.scaling = 'none'")
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
  """Returns float32 `[points, bins]`: weights of the points that lie at equal distances, linear between two of them."""
  place = np.linspace(0, points - 1, bins)
  return np.maximum(0.0, 1.0 - np.abs(place - np.arange(points)[:, None])).astype(np.float32)
