"""Impulse responses: computed rooms, and recorded ones from a folder of .wav files.

Both kinds are divided into those for training and a quarter that is held out, for tests with unseen rooms.
"""

import functools
import zlib
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.signal

from mrmt3.errors import UserError

ROOMS = 4000  # computed rooms; each fourth is held out
_HELD_OUT = 4
_MAX_SECONDS = 1.2
_SPLIT = 1000.0  # Hz; high frequencies decay faster than low ones


def convolve(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
  """Return the first n samples, float32 `[n]`, of a convolution of float32 `[n]` with float32 `[m]`."""
  if not len(samples):
    return samples
  size = scipy.fft.next_fast_len(len(samples) + len(response) - 1, real=True)
  product = scipy.fft.rfft(samples, size) * scipy.fft.rfft(response, size)
  return scipy.fft.irfft(product, size)[: len(samples)].astype(np.float32, copy=False)


def room_numbers(held_out: bool) -> np.ndarray:
  """Return the numbers of the computed rooms for training, or of those held out."""
  numbers = np.arange(ROOMS)
  return numbers[(numbers % _HELD_OUT == 0) == held_out]


def room(number: int, sample_rate: int) -> np.ndarray:
  """Return the impulse response of a computed room, float32 `[m]`, whose direct sound is 1 at time 0.

  It has early reflections and a diffuse tail. Small rooms are dry, large halls reverberate for up to 2.5 s; of
  responses only the first 1.2 s are kept.
  """
  rng = np.random.default_rng((0x400, number))
  decay = float(np.exp(rng.uniform(np.log(0.15), np.log(2.5))))  # s until -60 dB, low frequencies
  high_decay = decay * rng.uniform(0.3, 0.8)
  wet = 10 ** (rng.uniform(-18.0, 3.0) / 20)  # energy of the reverberation, relative to the direct sound
  seconds = min(decay, _MAX_SECONDS)
  time = np.arange(round(seconds * sample_rate), dtype=np.float32) / sample_rate
  low = rng.standard_normal(len(time), np.float32)
  pole = float(np.exp(-2 * np.pi * _SPLIT / sample_rate))
  smooth = scipy.signal.lfilter([1 - pole], [1, -pole], low).astype(np.float32)
  slope = np.float32(-np.log(1000.0))
  tail = smooth * np.exp(time * (slope / np.float32(decay))) + (low - smooth) * np.exp(
    time * (slope / np.float32(high_decay))
  )
  tail *= np.minimum(time / np.float32(0.03), 1.0)  # diffuse only after the first reflections
  for delay in rng.uniform(0.003, 0.05, 6):
    place = round(delay * sample_rate)
    if place < len(tail):
      tail[place] += rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.0) * 0.03 / delay  # spherical waves
  tail[0] = 0.0
  energy = float(np.sqrt(np.vdot(tail, tail)))
  response = tail * np.float32(wet / max(energy, 1e-9))
  response[0] = 1.0
  return response


@functools.lru_cache(maxsize=8)
def load_folder(folder: str, sample_rate: int, held_out: bool) -> tuple[np.ndarray, ...]:
  """Return the impulse responses of a folder's .wav files, float32 `[m]` each, with the direct sound at time 0.

  A quarter of the files, chosen by their names, is held out.

  Raises:
    UserError: the folder has none, or one cannot be read.
  """
  from mrmt3.audio.files import read_audio

  paths = sorted(Path(folder).expanduser().rglob('*.wav'))
  paths = [path for path in paths if (zlib.crc32(path.name.encode()) % _HELD_OUT == 0) == held_out]
  if not paths:
    raise UserError(
      f"no impulse responses in {folder}; install some, such as those of Debian's guitarix-common in "
      '/usr/share/gx_head/sounds, or set the folder to None'
    )
  responses = []
  for path in paths:
    samples = read_audio(path, sample_rate, whole=True)
    first = int(np.argmax(np.abs(samples)))
    cut = samples[first : first + round(_MAX_SECONDS * sample_rate)].astype(np.float32)
    peak = float(np.abs(cut).max(initial=0.0))
    if not peak:
      raise UserError(f'the impulse response {path} is silent; remove it')
    responses.append(cut / np.float32(peak))
  return tuple(responses)
