"""Record features that come from audio and velocities."""

import io
from pathlib import Path

import numpy as np

from mrmt3.audio.files import read_audio
from mrmt3.data.convert.base import read_bytes


def as_file(path: Path, sample_rate: int | None) -> bytes:
  """Return the bytes of an audio file, or with a sample rate (Hz) the bytes of a mono 16-bit wav file of its audio.

  Raises:
    UserError: the file cannot be read.
  """
  if sample_rate is None:
    return read_bytes(path)
  import soundfile

  file = io.BytesIO()
  soundfile.write(
    file, np.clip(read_audio(path, sample_rate, whole=True), -1, 1), sample_rate, format='WAV', subtype='PCM_16'
  )
  return file.getvalue()


def velocity_range(velocity: np.ndarray) -> bytes:
  """Return note_seq's VelocityRange, serialized: the minimum (field 1) and maximum (field 2) velocity, at least 1."""
  low, high = (int(max(value, 1)) for value in (velocity.min(initial=127), velocity.max(initial=1)))
  return bytes([0x08, min(low, high), 0x10, high])
