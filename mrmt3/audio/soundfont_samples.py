"""Cuts the samples of a soundfont to what its zones play, at the sample rate that they are played at.

symusic 0.5.9 trusts a font: where a loop ends behind the last sample it plays what happens to be in memory, on a loop that
rounding leaves empty it hangs. So every cut has a loop of at least `GUARD` samples, and `GUARD` more behind it.
"""

import io

import numpy as np

from mrmt3.audio.files import resample

GUARD = 4096  # more than what rounding loses, up to 11 octaves above a sample's own pitch
_MARGIN = 256  # samples that the filter of the conversion sees behind the end
_SLOWEST, _FASTEST = 400, 384_000  # Hz


def read_sample(chunk: bytes | memoryview, is_vorbis: bool) -> np.ndarray:
  """Returns a sample's int16 `[n]` from its bytes (SF2), or from its Ogg Vorbis file (SF3).

  Raises RuntimeError where that cannot be decoded.
  """
  if not is_vorbis:
    return np.frombuffer(chunk, '<i2', len(chunk) // 2)
  import soundfile

  return soundfile.read(io.BytesIO(chunk), dtype='int16', always_2d=True)[0][:, 0]


def cut_sample(
  sample: np.ndarray, loop: tuple[int, int], moves: tuple[int, int, int, int], is_looped: bool, rates: tuple[int, int]
) -> tuple[np.ndarray, int, int]:
  """Returns what a zone plays of a sample, and where the loop in it begins and ends.

  Args:
    sample: int16 `[n]`.
    loop: begin and end of its loop.
    moves: how far the zone moves the sample's begin and end and the loop's; all are kept inside the sample.
    is_looped: whether the loop is played. Where it is not, or is none, silence comes after the sample, and is the loop.
    rates: the sample's rate and that of the result, Hz.
  """
  begin = min(max(moves[0], 0), len(sample))
  end = min(max(len(sample) + moves[1], begin), len(sample))
  first, last = (min(max(at + move, begin), end) - begin for at, move in zip(loop, moves[2:], strict=True))
  sample = sample[begin:end]
  rates = (min(max(rates[0], _SLOWEST), _FASTEST), rates[1])
  if not is_looped or last - first < 2:
    audio = _converted(sample, *rates)
    return np.pad(audio, (0, 2 * GUARD)), len(audio), len(audio) + GUARD
  ratio, period = rates[1] / rates[0], last - first
  more = period * int((GUARD + 2) / ratio / period)
  audio = _converted(np.concatenate([sample[:last], np.resize(sample[first:last], more + _MARGIN)]), *rates)
  first, last = round(first * ratio), round((last + more) * ratio)
  return np.concatenate([audio[:last], audio[first : first + GUARD]]), first, last


def _converted(sample, from_rate, to_rate):
  if not len(sample):
    return sample
  audio = resample(sample.astype(np.float32), from_rate, to_rate)
  return np.clip(np.rint(audio), -(2**15), 2**15 - 1).astype('<i2')
