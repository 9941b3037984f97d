"""Log-mel and log-frequency spectrograms of mono audio at 16 kHz, and the segmentation of pieces.

Two front ends are MT3's and MR-MT3's. Both apply 512 triangular mel filters and the natural logarithm to the magnitude
of a 2048-point FFT (periodic Hann window, hop 128, frames not centered). The triangles are linear in mel for `mt3`
(Magenta's checkpoints) and linear in Hz for `mr_mt3` (MR-MT3 trained from scratch). Scaling is a separate option; a
model needs the scaling that it was trained with.

The third, `semitones`, is not in the papers: filters aligned with semitones over a short and a long window
(`audio.semitones`).

The functions with MT3's names also take and return TensorFlow tensors, as in MT3's tf.data pipelines. For arrays
TensorFlow is not imported.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np

from mrmt3.audio import semitones
from mrmt3.errors import UserError
from mrmt3.utils.tensors import is_tensor

DEFAULT_SAMPLE_RATE = 16000  # Hz
DEFAULT_HOP_WIDTH = 128  # samples
DEFAULT_NUM_MEL_BINS = 512
FFT_SIZE = 2048
MEL_LO_HZ = 20.0

SEMITONES = 'semitones'
FRONT_ENDS = ('mt3', 'mr_mt3', SEMITONES)
SCALINGS = ('none', 'unit')
_MAX_SIZES = {'sample_rate': 1 << 20, 'hop_width': 1 << 20, 'num_mel_bins': 1 << 12, 'fft_size': 1 << 16}

LOG_FLOOR = 1e-5  # replaces magnitudes of 0 before the logarithm
SCALE_RANGE = (-12.0, 5.0)  # range of log-mels that 'unit' scaling maps to 0..1


@dataclasses.dataclass(frozen=True)
class SpectrogramConfig:
  """Log-mel spectrogram config.

  Attributes:
    sample_rate: sample rate, Hz.
    hop_width: hop, samples.
    num_mel_bins: number of mel bins.
    fft_size: FFT size and window length, samples.
    front_end: filterbank, 'mt3', 'mr_mt3' or 'semitones'. The last one has fixed sizes and no mel range.
    scaling: 'none' (raw log-mel) or 'unit' (clipped to [-12, 5], then mapped to [0, 1]).
    mel_lo_hz: lower edge of the lowest filter, Hz.
    mel_hi_hz: upper edge of the highest filter, Hz.

  Raises:
    UserError: a value is out of range or unknown.
  """

  sample_rate: int = DEFAULT_SAMPLE_RATE
  hop_width: int = DEFAULT_HOP_WIDTH
  num_mel_bins: int = DEFAULT_NUM_MEL_BINS
  fft_size: int = FFT_SIZE
  front_end: str = 'mt3'
  scaling: str = 'none'
  mel_lo_hz: float = MEL_LO_HZ
  mel_hi_hz: float = 7600.0

  def __post_init__(self):
    for name, most in _MAX_SIZES.items():
      value = getattr(self, name)
      if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UserError(f'spectrogram: {name} is {value!r:.80}; it must be an integer in 1 .. {most:,}')
    if self.front_end not in FRONT_ENDS:
      raise UserError(f'spectrogram: front_end is {self.front_end!r:.80}; it must be one of {", ".join(FRONT_ENDS)}')
    if self.scaling not in SCALINGS:
      raise UserError(f'spectrogram: scaling is {self.scaling!r:.80}; it must be one of {", ".join(SCALINGS)}')
    if self.front_end == SEMITONES:
      self._check_semitones()
    if not 0 <= self.mel_lo_hz < self.mel_hi_hz <= self.sample_rate / 2:
      raise UserError(
        f'spectrogram: mel_lo_hz is {self.mel_lo_hz!r:.40} and mel_hi_hz {self.mel_hi_hz!r:.40}; they must be '
        f'ascending and in 0 .. {self.sample_rate / 2} Hz'
      )

  def _check_semitones(self):
    sizes = (self.sample_rate, self.num_mel_bins, self.fft_size)
    wanted = (semitones.SAMPLE_RATE, semitones.FILTERS, semitones.WINDOW)
    for name, value, only in zip(('sample_rate', 'num_mel_bins', 'fft_size'), sizes, wanted, strict=True):
      if value != only:
        raise UserError(f"spectrogram: {name} is {value}; with front_end 'semitones' it must be {only}")
    if self.hop_width % (semitones.DECIMATION // semitones.STRIDE):
      raise UserError(f"spectrogram: hop_width is {self.hop_width}; with front_end 'semitones' it must be even")

  @property
  def frame_rate(self) -> Fraction:
    """Frames per second (125 at 16 kHz and hop 128), exact, since segment starts in steps are computed from it."""
    return Fraction(self.sample_rate, self.hop_width)

  @property
  def frames_per_second(self) -> float:
    """Frames per second as a float (as in MT3)."""
    return self.sample_rate / self.hop_width

  @property
  def abbrev_str(self) -> str:
    """Abbreviation of the differences from MT3's defaults, for task names (as in MT3): 'hw256' for hop 256."""
    parts = []
    if self.sample_rate != DEFAULT_SAMPLE_RATE:
      parts.append(f'sr{self.sample_rate}')
    if self.hop_width != DEFAULT_HOP_WIDTH:
      parts.append(f'hw{self.hop_width}')
    if self.num_mel_bins != DEFAULT_NUM_MEL_BINS:
      parts.append(f'mb{self.num_mel_bins}')
    return ''.join(parts)


def input_depth(spectrogram_config: SpectrogramConfig) -> int:
  """Return the number of values per input frame of the network."""
  return spectrogram_config.num_mel_bins


def num_frames(num_samples: int, config: SpectrogramConfig) -> int:
  """Return the number of frames of a piece of `num_samples`, which is padded by at least one sample (as in MT3)."""
  return num_samples // config.hop_width + 1


def split_audio(samples, spectrogram_config: SpectrogramConfig):
  """Split samples `[n]` into non-overlapping frames `[ceil(n / hop), hop]`; the last one is padded with zeros."""
  hop = spectrogram_config.hop_width
  if is_tensor(samples):
    import tensorflow as tf

    return tf.reshape(tf.pad(samples, [[0, -tf.shape(samples)[0] % hop]]), [-1, hop])
  samples = np.asarray(samples)
  return np.pad(samples, (0, -len(samples) % hop)).reshape(-1, hop)


def flatten_frames(frames):
  """Join frames `[..., frames, hop]` to samples `[..., frames * hop]`, also for JAX; the inverse of `split_audio`."""
  if is_tensor(frames):
    import tensorflow as tf

    return tf.reshape(frames, tf.concat([tf.shape(frames)[:-2], [-1]], axis=0))
  return frames.reshape(*frames.shape[:-2], -1)


def piece_segments(
  samples: np.ndarray, config: SpectrogramConfig, segment_frames: int
) -> tuple[np.ndarray, np.ndarray]:
  """Split a piece into non-overlapping segments.

  The piece is padded by at least one sample, so a piece whose length is a multiple of the hop gets one more frame (as
  in MT3).

  Args:
    samples: float32 `[n]`, mono.
    config: the spectrogram config.
    segment_frames: frames per segment.

  Returns:
    (samples `[segments, segment_frames * hop]` of the same dtype, padded with zeros; number of valid frames of each
    segment, int32 `[segments]`, which is below segment_frames only in the last one).
  """
  frames = num_frames(len(samples), config)
  segments = -(-frames // segment_frames)
  padded = np.zeros(segments * segment_frames * config.hop_width, samples.dtype)
  padded[: len(samples)] = samples
  valid = np.minimum(segment_frames, frames - segment_frames * np.arange(segments)).astype(np.int32)
  return padded.reshape(segments, -1), valid


def cut_segments(
  blocks: Iterable[np.ndarray], config: SpectrogramConfig, segment_frames: int, context_frames: int = 0
) -> Iterator[tuple[np.ndarray, int, bool]]:
  """Split a stream of samples into segments, as `piece_segments`.

  Args:
    blocks: the piece's samples in blocks of any length, float32 `[n]`.
    config: the spectrogram config.
    segment_frames: frames of each, with its context.
    context_frames: how many frames before and after a segment are part of it too, so that it overlaps with the segments
      around it; in front of the piece they are silent.

  Yields:
    (samples, float32 `[segment_frames * hop]`; number of samples before padding; whether this is the last segment).
  """
  size, context = segment_frames * config.hop_width, context_frames * config.hop_width
  left, count = [np.zeros(context, np.float32)], context
  for block in blocks:
    block = np.asarray(block, np.float32)
    while count + len(block) >= size:
      rest = size - count
      # A piece is padded by at least one sample, so a full segment is never the last one.
      full = np.concatenate([*left, block[:rest]])
      yield full, size, False
      left, count, block = [full[size - 2 * context :]], 2 * context, block[rest:]
    left.append(block)
    count += len(block)
  rest = np.concatenate(left)
  while True:
    last = len(rest) < size - context  # the frame after the last sample is not in the context
    yield np.pad(rest, (0, size - len(rest))), len(rest), last
    if last:
      return
    rest = rest[size - 2 * context :]


def hz_to_mel(hz):
  """Convert frequencies in Hz (a float, a list or an array) to mel, float64; all front ends share this scale."""
  return 2595.0 * np.log10(1.0 + np.asarray(hz, np.float64) / 700.0)


def _mel_to_hz(mel):
  return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


@functools.lru_cache(maxsize=8)
def mel_filterbank(config: SpectrogramConfig) -> np.ndarray:
  """Return the filter weights, float64 `[fft_size // 2 + 1, num_mel_bins]`, read-only; `mt3` has 0 at DC."""
  bins = np.arange(config.fft_size // 2 + 1) * config.sample_rate / config.fft_size
  edges = np.linspace(*hz_to_mel([config.mel_lo_hz, config.mel_hi_hz]), config.num_mel_bins + 2)
  if config.front_end == 'mt3':
    bins = hz_to_mel(bins)
  else:
    edges = _mel_to_hz(edges)
  lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
  rising = (bins[:, None] - lower) / (centre - lower)
  falling = (upper - bins[:, None]) / (upper - centre)
  weights = np.maximum(0.0, np.minimum(rising, falling))
  if config.front_end == 'mt3':
    weights[0] = 0.0
  weights.flags.writeable = False
  return weights


@functools.lru_cache(maxsize=8)
def _sparse_filterbank(config: SpectrogramConfig):
  # Each FFT bin is in at most two filters, so a sparse product needs a small fraction of the operations.
  import scipy.sparse

  return scipy.sparse.csr_array(mel_filterbank(config).T.astype(np.float32))


@functools.lru_cache(maxsize=8)
def _hann_window(size: int) -> np.ndarray:
  return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)).astype(np.float32)


def _log_and_scale(mel, config: SpectrogramConfig, xp):
  log_mel = xp.log(xp.where(mel > 0, mel, np.float32(LOG_FLOOR)))
  if config.scaling == 'none':
    return log_mel
  low, high = SCALE_RANGE
  return (xp.clip(log_mel, low, high) - low) / (high - low)


def compute_spectrogram(samples, spectrogram_config: SpectrogramConfig):
  """Compute the (scaled) log-mel of samples `[..., n]`, float32 `[..., ceil(n / hop), mel]`.

  Frame k covers the `fft_size` samples from k * hop; the end is padded with zeros.
  """
  config = spectrogram_config
  if is_tensor(samples):
    return _tensor_log_mel(samples, config)
  import scipy.fft

  samples = np.asarray(samples, np.float32)
  lead, length = samples.shape[:-1], samples.shape[-1]
  frames = -(-length // config.hop_width)
  if frames == 0:
    return np.zeros((*lead, 0, config.num_mel_bins), np.float32)
  if config.front_end == SEMITONES:
    return _semitones(samples, frames, config, semitones.Numpy, np)
  tail = (frames - 1) * config.hop_width + config.fft_size - length
  padded = np.pad(samples, [(0, 0)] * len(lead) + [(0, max(tail, 0))])
  windows = np.lib.stride_tricks.sliding_window_view(padded, config.fft_size, axis=-1)[..., :: config.hop_width, :]
  spectrum = scipy.fft.rfft(windows[..., :frames, :] * _hann_window(config.fft_size))
  magnitude = np.abs(spectrum).reshape(-1, spectrum.shape[-1])  # [all frames, bins]
  mel = (_sparse_filterbank(config) @ magnitude.T).T.reshape(*lead, frames, config.num_mel_bins)
  return np.ascontiguousarray(_log_and_scale(mel, config, np), np.float32)


def _semitones(samples, frames, config, ops, xp):
  """Return the log-frequency spectrogram, float32 `[..., frames, bins]`."""
  arguments = samples, frames, config.hop_width, ops
  parts = [semitones.short_magnitudes(*arguments), semitones.long_magnitudes(*arguments)]
  return _log_and_scale(xp.maximum(xp.concatenate(parts, axis=-1), LOG_FLOOR), config, xp)


def _tensor_log_mel(samples, config: SpectrogramConfig):
  import tensorflow as tf

  samples = tf.cast(samples, tf.float32)
  if config.front_end == SEMITONES:
    frames = -(-samples.shape[-1] // config.hop_width)
    return _semitones(samples, frames, config, semitones.TensorFlow, tf.experimental.numpy)
  spectrum = tf.signal.stft(samples, config.fft_size, config.hop_width, config.fft_size, pad_end=True)
  mel = tf.tensordot(tf.abs(spectrum), mel_filterbank(config).astype(np.float32), 1)
  mel = tf.math.log(tf.where(mel > 0, mel, LOG_FLOOR))
  if config.scaling == 'none':
    return mel
  low, high = SCALE_RANGE
  return (tf.clip_by_value(mel, low, high) - low) / (high - low)


def log_mel(samples, config: SpectrogramConfig):
  """Same as `compute_spectrogram` in JAX, for samples `[..., n]` inside jitted functions."""
  import jax.numpy as jnp

  samples = jnp.asarray(samples, jnp.float32)
  frames = -(-samples.shape[-1] // config.hop_width)
  if config.front_end == SEMITONES:
    return _semitones(samples, frames, config, semitones.Jax, jnp)
  tail = max((frames - 1) * config.hop_width + config.fft_size - samples.shape[-1], 0)
  padded = jnp.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(0, tail)])
  starts = np.arange(frames)[:, None] * config.hop_width
  windows = padded[..., starts + np.arange(config.fft_size)] * _hann_window(config.fft_size)
  magnitude = jnp.abs(jnp.fft.rfft(windows))
  mel = jnp.dot(magnitude, mel_filterbank(config).astype(np.float32), precision='highest')
  return _log_and_scale(mel, config, jnp)


def clear_invalid_frames(spectrogram, valid_frames):
  """Set the frames after the end of the audio to 0 (numpy or JAX arrays).

  Args:
    spectrogram: `[..., frames, mel]`, after the logarithm and the scaling.
    valid_frames: int `[...]`, number of frames of each segment within the audio.

  Returns:
    `[..., frames, mel]` of the same kind of array and dtype.
  """
  beyond = np.arange(spectrogram.shape[-2]) >= valid_frames[..., None]
  return spectrogram * (1 - beyond[..., None].astype(spectrogram.dtype))


def segment_inputs(samples: np.ndarray, config: SpectrogramConfig, segment_frames: int) -> np.ndarray:
  """Compute a piece's network inputs, float32 `[segments, segment_frames, mel]`, from its samples `[n]` with numpy.

  The log-mel of a segment depends only on the samples of this segment, as in training.
  """
  segments, valid = piece_segments(samples, config, segment_frames)
  return clear_invalid_frames(compute_spectrogram(segments, config), valid)
