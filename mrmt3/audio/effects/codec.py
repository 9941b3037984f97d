"""Codecs: MP3, Vorbis and Opus at low bit rates, encoded and decoded by libsndfile."""

import io

import numpy as np

from mrmt3.errors import UserError

# Format, subtype and the range of libsndfile's compression level, 0 to 1 (best to smallest).
CODECS = {
  'mp3': ('MP3', 'MPEG_LAYER_III', (0.5, 0.99)),
  'vorbis': ('OGG', 'VORBIS', (0.8, 1.0)),
  'opus': ('OGG', 'OPUS', (0.9, 0.99)),
}
_SHARES = (0.6, 0.3, 0.1)  # Opus takes by far the longest


def recode(samples: np.ndarray, sample_rate: int, codec: str, level: float) -> np.ndarray:
  """Return samples, float32 `[n]`, encoded and decoded; the decoder's delay is compensated.

  Args:
    samples: float32 `[n]`; what exceeds full scale is cut off.
    sample_rate: Hz; for Opus 8, 12, 16, 24 or 48 kHz.
    codec: a key of `CODECS`.
    level: compression level, 0 to 1 (smallest).

  Raises:
    UserError: libsndfile has no such codec.
  """
  import soundfile

  if not samples.any():
    return samples
  name, subtype, _ = CODECS[codec]
  file = io.BytesIO()
  try:
    soundfile.write(
      file, np.clip(samples, -1.0, 1.0), sample_rate, format=name, subtype=subtype, compression_level=level
    )
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype='float32')
  except (RuntimeError, TypeError, ValueError) as error:
    raise UserError(
      f'libsndfile cannot encode {codec} ({error}); install soundfile 0.13 or newer, or set EffectsConfig.codec to 0'
    ) from error
  # Files hold their length, but an encoder may add or drop a few samples.
  return np.pad(decoded[: len(samples)], (0, max(0, len(samples) - len(decoded))))


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, after one of the codecs."""
  del config
  codec = str(rng.choice(list(CODECS), p=_SHARES))
  return recode(samples, sample_rate, codec, float(rng.uniform(*CODECS[codec][2])))
