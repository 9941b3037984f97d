"""Audio given as arrays instead of files: checked, and mixed to mono."""

from collections.abc import Iterable, Iterator

import numpy as np

from mrmt3.audio import levels
from mrmt3.audio.files import check_sample_rate
from mrmt3.errors import UserError

_NAME = 'audio'  # in messages
_MOST_STREAM_CHANNELS = 8  # of a block with fewer frames than channels


def checked_rate(sample_rate: float | None) -> int:
  """Return the sample rate of arrays, Hz; UserError if it is missing, not a whole number or out of range."""
  if sample_rate is None:
    raise UserError('the sample rate of the samples is not given; add it, such as transcribe(samples, 44100)')
  try:
    rate = int(sample_rate)
  except (TypeError, ValueError, OverflowError):
    rate = None
  if rate is None or isinstance(sample_rate, (str, bool)) or rate != sample_rate:
    raise UserError(f'sample_rate is {sample_rate}; give the samples a second, such as 44100')
  check_sample_rate(rate, f'sample_rate is {rate}')
  return rate


def mono_piece(audio: np.ndarray, sample_rate: int) -> np.ndarray:
  """Return the mean of the channels of a whole piece, float32 `[n]`, full scale -1..1.

  Channels that cancel each other and samples in the range of integers are handled as in audio files, with a warning.

  Args:
    audio: floats `[n]` or `[n, channels]`.
    sample_rate: Hz.

  Raises:
    UserError: the array has another type or shape, more channels than samples, or NaN or infinite samples.
  """
  samples = as_samples(audio)
  if samples.shape[1] > samples.shape[0] > 0:
    raise _transposed(samples)
  scale = levels.Scale([samples], _NAME)
  return _finite(levels.Downmix(_NAME, sample_rate).block(scale.apply(samples)))


def mono_blocks(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
  """Yield the mean of the channels of a live stream, float32 `[n]` each; see `levels.StreamDownmix`.

  Args:
    blocks: floats `[n]` or `[n, channels]` each, full scale -1..1.
    sample_rate: Hz.

  Raises:
    UserError: as for `mono_piece`; the samples are not in the range -1..1, or the number of channels changes.
  """
  downmix, channels = levels.StreamDownmix(_NAME, sample_rate), None
  for block in blocks:
    samples = as_samples(block)
    # A short block of a stream may have fewer frames than channels.
    if samples.shape[1] > max(samples.shape[0], _MOST_STREAM_CHANNELS):
      raise _transposed(samples)
    if samples.shape[1] != (channels := channels or samples.shape[1]):
      raise UserError(
        f'audio: a block has {samples.shape[1]} channels and those before {channels}; give [n, {channels}]'
      )
    levels.check_scale(samples, _NAME)
    yield _finite(downmix.block(samples))


def as_samples(audio) -> np.ndarray:
  """Return float32 `[n, channels]`; UserError for another type or shape."""
  try:
    samples = np.asarray(audio)
  except ValueError as error:  # lists of different lengths
    raise UserError('audio is no array; give floats [n] or [n, channels] with full scale -1..1') from error
  if np.issubdtype(samples.dtype, np.integer):
    bits = samples.dtype.itemsize * 8
    raise UserError(
      f'audio is {samples.dtype} {list(samples.shape)}; give floats with full scale -1..1, '
      f'such as (samples / {2 ** (bits - 1)}).astype("float32") for {bits}-bit samples'
    )
  if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
    raise UserError(
      f'audio is {samples.dtype} {list(samples.shape)}; give floats [n] or [n, channels] with full scale -1..1'
    )
  if samples.ndim == 2 and not samples.shape[1]:
    raise UserError(f'audio has no channels, its shape is {list(samples.shape)}; give floats [n] or [n, channels]')
  with np.errstate(over='ignore'):  # infinities are reported by the caller
    samples = samples.astype(np.float32, copy=False)
  return samples[:, None] if samples.ndim == 1 else samples


def _transposed(samples):
  shape = list(samples.shape)
  return UserError(f'audio is {shape}, more channels than samples; give [n, channels], such as audio.T')


def _finite(samples):
  if not np.isfinite(samples).all():
    raise UserError('the audio holds samples that are no numbers (NaN or infinity)')
  return samples
