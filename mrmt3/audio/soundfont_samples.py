"""Crops a soundfont's samples to what its zones play and resamples them to the synthesizer's rate.

symusic 0.5.9 does not validate loops: it reads memory behind the last sample if a loop ends there, and hangs on a loop
that rounding makes empty. Every crop therefore has a loop of at least `GUARD` samples and `GUARD` more samples behind
it.
"""

import io

import numpy as np

from mrmt3.audio.files import resample

GUARD = 4096  # more than rounding loses up to 11 octaves above a sample's own pitch
_MARGIN = 256  # samples behind the end that the resampling filter reads
_MIN_RATE, _MAX_RATE = 400, 384_000  # Hz


def read_sample(chunk: bytes | memoryview, is_vorbis: bool) -> np.ndarray:
  """Decode a sample to int16 `[n]`, from PCM bytes (SF2) or an Ogg Vorbis file (SF3).

  Raises RuntimeError if it cannot be decoded.
  """
  if not is_vorbis:
    return np.frombuffer(chunk, '<i2', len(chunk) // 2)
  import soundfile

  return soundfile.read(io.BytesIO(chunk), dtype='int16', always_2d=True)[0][:, 0]


def cut_sample(
  sample: np.ndarray, loop: tuple[int, int], moves: tuple[int, int, int, int], is_looped: bool, rates: tuple[int, int]
) -> tuple[np.ndarray, int, int]:
  """Return what a zone plays of a sample, and the begin and end of the loop in it.

  Args:
    sample: int16 `[n]`.
    loop: (begin, end) of the sample's loop.
    moves: the zone's offsets of the sample's begin and end and of the loop's; all are clipped to the sample.
    is_looped: whether the loop is played. If not, or if it is empty, silence follows the sample and is looped.
    rates: (the sample's, the result's) sample rate, Hz.
  """
  begin = min(max(moves[0], 0), len(sample))
  end = min(max(len(sample) + moves[1], begin), len(sample))
  first, last = (min(max(at + move, begin), end) - begin for at, move in zip(loop, moves[2:], strict=True))
  sample = sample[begin:end]
  rates = (min(max(rates[0], _MIN_RATE), _MAX_RATE), rates[1])
  if not is_looped or last - first < 2:
    audio = _resampled(sample, *rates)
    return np.pad(audio, (0, 2 * GUARD)), len(audio), len(audio) + GUARD
  ratio, period = rates[1] / rates[0], last - first
  more = period * int((GUARD + 2) / ratio / period)
  audio = _resampled(np.concatenate([sample[:last], np.resize(sample[first:last], more + _MARGIN)]), *rates)
  first, last = round(first * ratio), round((last + more) * ratio)
  return np.concatenate([audio[:last], audio[first : first + GUARD]]), first, last


def _resampled(sample, from_rate, to_rate):
  if not len(sample):
    return sample
  audio = resample(sample.astype(np.float32), from_rate, to_rate)
  return np.clip(np.rint(audio), -(2**15), 2**15 - 1).astype('<i2')
