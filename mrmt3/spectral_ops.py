"""Differentiable, batched spectral operations on TensorFlow tensors (as in MT3; imports TensorFlow).

The models' front end, `spectrograms`, does not use this module. It is here for programs written for MT3.
"""

import tensorflow as tf

import gin


def tf_float32(x) -> tf.Tensor:
  """Return a tensor or array as a float32 tensor."""
  return tf.cast(x, tf.float32) if tf.is_tensor(x) else tf.convert_to_tensor(x, tf.float32)


def safe_log(x, eps: float = 1e-5) -> tf.Tensor:
  """Return the natural logarithm of `x`, or of `eps` where `x` is not positive."""
  return tf.math.log(tf.where(x > 0.0, x, eps))


def stft(audio, frame_size: int = 2048, overlap: float = 0.75, pad_end: bool = True) -> tf.Tensor:
  """Return the short-time Fourier transform (periodic Hann window), complex64 `[..., frames, bins]`.

  Args:
    audio: samples `[n]`, `[batch, n]` or `[batch, n, 1]`.
    frame_size: window length in samples; the FFT size is the next power of two.
    overlap: overlap of successive windows, as a share of the window.
    pad_end: whether to pad the end with zeros, so that a frame starts at every hop within the audio.
  """
  audio = tf_float32(audio)
  if audio.shape.rank == 3:
    audio = audio[..., 0]
  hop = int(frame_size * (1.0 - overlap))
  return tf.signal.stft(audio, int(frame_size), hop, pad_end=pad_end)


@gin.register(module='mrmt3.spectral_ops')
def compute_mag(audio, size: int = 2048, overlap: float = 0.75, pad_end: bool = True) -> tf.Tensor:
  """Return magnitudes, float32 `[..., frames, bins]`; see `stft` for the arguments."""
  return tf.abs(stft(audio, size, overlap, pad_end))


@gin.register(module='mrmt3.spectral_ops')
def compute_mel(
  audio,
  lo_hz: float = 0.0,
  hi_hz: float = 8000.0,
  bins: int = 64,
  fft_size: int = 2048,
  overlap: float = 0.75,
  pad_end: bool = True,
  sample_rate: int = 16000,
) -> tf.Tensor:
  """Return mel magnitudes, float32 `[..., frames, bins]`, of triangular filters from `lo_hz` to `hi_hz` in mel."""
  magnitude = compute_mag(audio, fft_size, overlap, pad_end)
  filters = tf.signal.linear_to_mel_weight_matrix(bins, magnitude.shape[-1], sample_rate, lo_hz, hi_hz)
  return tf.tensordot(magnitude, filters, 1)


@gin.register(module='mrmt3.spectral_ops')
def compute_logmel(
  audio,
  lo_hz: float = 80.0,
  hi_hz: float = 7600.0,
  bins: int = 64,
  fft_size: int = 2048,
  overlap: float = 0.75,
  pad_end: bool = True,
  sample_rate: int = 16000,
) -> tf.Tensor:
  """Return the natural logarithm of `compute_mel`, with 0 replaced by 1e-5."""
  return safe_log(compute_mel(audio, lo_hz, hi_hz, bins, fft_size, overlap, pad_end, sample_rate))
