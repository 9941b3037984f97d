"""A log-frequency spectrogram: filters aligned with semitones, three to each, over two windows around one moment.

The short window tells when something happens, the long one, over the signal at a quarter of its rate, which low pitch
it is. Not in the papers. The same computation is here for numpy, JAX and TensorFlow.
"""

import functools

import numpy as np

PER_SEMITONE = 3
LOWEST = 20  # MIDI pitch; its lowest third is the first filter
SHORT_FILTERS = 100 * PER_SEMITONE  # up to 8 kHz
LONG_FILTERS = 60 * PER_SEMITONE  # up to 840 Hz
FILTERS = SHORT_FILTERS + LONG_FILTERS
SAMPLE_RATE = 16000  # Hz
WINDOW = 2048  # samples, of either window
DECIMATION = 4  # of the signal under the long window
STRIDE = 2  # frames that share a long window
_TAPS = 64  # of the low-pass filter, at the signal's rate
_CUTOFF = 1400.0  # Hz; what aliases lies above the highest filter of the long window
_MIN_WIDTH = 1.0  # FFT bins, half width of the narrowest filter


def semitone_pitches(filters: int) -> np.ndarray:
  """Return the centres of the filters, MIDI pitches, float64 `[filters]`: 19 2/3, 20, 20 1/3, ..."""
  return LOWEST + (np.arange(filters) - 1) / PER_SEMITONE


@functools.lru_cache(maxsize=4)
def semitone_filterbank(filters: int, sample_rate: float) -> np.ndarray:
  """Return triangular filters over the bins of a window's FFT, float32 `[WINDOW // 2 + 1, filters]`, read-only.

  A filter reaches from the centre of the one below to that of the one above, or a bin to both sides where that is more,
  and its weights have the sum 1. A filter beyond the Nyquist frequency is 0.
  """
  bins = np.arange(WINDOW // 2 + 1)
  centres = 440.0 * 2.0 ** ((semitone_pitches(filters + 1) - 69.0) / 12.0) * WINDOW / sample_rate
  centre = centres[:-1]
  lower = np.minimum(centre * 2.0 ** (-1 / (12 * PER_SEMITONE)), centre - _MIN_WIDTH)
  upper = np.maximum(centres[1:], centre + _MIN_WIDTH)
  rising = (bins[:, None] - lower) / (centre - lower)
  falling = (upper - bins[:, None]) / (upper - centre)
  weights = np.maximum(0.0, np.minimum(rising, falling))
  weights[0] = 0.0
  weights[:, centre >= WINDOW // 2] = 0.0
  weights = (weights / np.maximum(weights.sum(axis=0), 1e-9)).astype(np.float32)
  weights.flags.writeable = False
  return weights


def short_magnitudes(samples, frames: int, hop: int, ops):
  """Return filtered magnitudes `[..., frames, SHORT_FILTERS]`; frame k covers the samples from k * hop.

  Args:
    samples: float32 `[..., n]`.
    frames: number of frames.
    hop: samples from frame to frame.
    ops: `Numpy`, `Jax` or `TensorFlow`.
  """
  tail = max((frames - 1) * hop + WINDOW - samples.shape[-1], 0)
  windows = ops.frame(ops.pad(samples, 0, tail), WINDOW, hop, frames)
  return ops.magnitudes(windows, SHORT_FILTERS, SAMPLE_RATE)


def long_magnitudes(samples, frames: int, hop: int, ops):
  """Return filtered magnitudes `[..., frames, LONG_FILTERS]` of windows with the centres of the short ones.

  `STRIDE` frames share the window of the first one. Arguments are those of `short_magnitudes`.
  """
  count = -(-frames // STRIDE)
  # In samples at the full rate, before the signal's start and after its end.
  before = (DECIMATION - 1) * WINDOW // 2 + _TAPS // 2
  step = STRIDE * hop // DECIMATION  # at the lower rate
  slow = (count - 1) * step + WINDOW
  tail = max((slow - 1) * DECIMATION + _TAPS - before - samples.shape[-1], 0)
  low = ops.filter(ops.pad(samples, before, tail), _low_pass(), DECIMATION, slow)
  windows = ops.frame(low, WINDOW, step, count)
  values = ops.magnitudes(windows, LONG_FILTERS, SAMPLE_RATE / DECIMATION)
  return ops.repeat(values, STRIDE)[..., :frames, :]


@functools.cache
def _low_pass():
  """Return the low-pass filter, float32 `[_TAPS]`, with the sum 1."""
  place = np.arange(_TAPS) - (_TAPS - 1) / 2
  taps = np.sinc(2 * _CUTOFF / SAMPLE_RATE * place) * np.hamming(_TAPS)
  return (taps / taps.sum()).astype(np.float32)


@functools.cache
def _hann():
  return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _sparse(filters, sample_rate):
  # A FFT bin is in few filters, so a sparse product needs a small fraction of the operations.
  import scipy.sparse

  return scipy.sparse.csr_array(semitone_filterbank(filters, sample_rate).T)


class Numpy:
  """Operations on numpy arrays."""

  @staticmethod
  def pad(x, before, after):
    """Return `x` with zeros on its last axis."""
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])

  @staticmethod
  def frame(x, size, step, count):
    """Return windows `[..., count, size]`."""
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=-1)[..., ::step, :][..., :count, :]

  @staticmethod
  def filter(x, taps, step, count):
    """Return `count` products of `taps`, which are symmetric, with every `step`-th window, `[..., count]`."""
    import scipy.signal

    # The first product over all taps comes after len(taps) - 1 samples; skipping one makes that a multiple of `step`.
    late = (len(taps) - 1) // step + 1
    first = late * step - (len(taps) - 1)
    return scipy.signal.upfirdn(taps, np.pad(x, [(0, 0)] * (x.ndim - 1) + [(first, 0)]), down=step)[
      ..., late : late + count
    ]

  @staticmethod
  def magnitudes(windows, filters, sample_rate):
    """Return filtered magnitudes of windows `[..., WINDOW]`, `[..., filters]`."""
    import scipy.fft

    values = np.abs(scipy.fft.rfft(windows * _hann())).reshape(-1, WINDOW // 2 + 1)
    return (_sparse(filters, sample_rate) @ values.T).T.reshape(*windows.shape[:-1], filters)

  @staticmethod
  def repeat(x, times):
    """Repeat each frame of `[..., frames, n]`."""
    return np.repeat(x, times, axis=-2)


class Jax:
  """Operations on JAX arrays."""

  @staticmethod
  def pad(x, before, after):
    """Return `x` with zeros on its last axis."""
    import jax.numpy as jnp

    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])

  @staticmethod
  def frame(x, size, step, count):
    """Return windows `[..., count, size]`."""
    return x[..., np.arange(count)[:, None] * step + np.arange(size)]

  @staticmethod
  def filter(x, taps, step, count):
    """Return `count` products of `taps` with every `step`-th window, `[..., count]`."""
    import jax.numpy as jnp

    return jnp.dot(Jax.frame(x, len(taps), step, count), taps, precision='highest')

  @staticmethod
  def magnitudes(windows, filters, sample_rate):
    """Return filtered magnitudes of windows `[..., WINDOW]`, `[..., filters]`."""
    import jax.numpy as jnp

    values = jnp.abs(jnp.fft.rfft(windows * _hann()))
    return jnp.dot(values, semitone_filterbank(filters, sample_rate), precision='highest')

  @staticmethod
  def repeat(x, times):
    """Repeat each frame of `[..., frames, n]`."""
    import jax.numpy as jnp

    return jnp.repeat(x, times, axis=-2)


class TensorFlow:
  """Operations on tensors of known length."""

  @staticmethod
  def pad(x, before, after):
    """Return `x` with zeros on its last axis."""
    import tensorflow as tf

    return tf.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[before, after]])

  @staticmethod
  def frame(x, size, step, count):
    """Return windows `[..., count, size]`."""
    import tensorflow as tf

    return tf.signal.frame(x, size, step)[..., :count, :]

  @staticmethod
  def filter(x, taps, step, count):
    """Return `count` products of `taps` with every `step`-th window, `[..., count]`."""
    import tensorflow as tf

    return tf.tensordot(TensorFlow.frame(x, len(taps), step, count), taps, 1)

  @staticmethod
  def magnitudes(windows, filters, sample_rate):
    """Return filtered magnitudes of windows `[..., WINDOW]`, `[..., filters]`."""
    import tensorflow as tf

    values = tf.abs(tf.signal.rfft(windows * _hann()))
    return tf.tensordot(values, semitone_filterbank(filters, sample_rate), 1)

  @staticmethod
  def repeat(x, times):
    """Repeat each frame of `[..., frames, n]`."""
    import tensorflow as tf

    return tf.repeat(x, times, axis=-2)
