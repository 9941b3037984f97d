"""Audio as records hold it: a file's bytes, or samples."""

import io
from pathlib import Path

import numpy as np

from mrmt3.audio.files import read_audio
from mrmt3.data.convert.base import read_bytes


def as_file(path: Path, sample_rate: int | None) -> bytes:
  """Returns an audio file: its own bytes, or with a sample rate (Hz) those of a mono 16-bit wav file of its sound.

  UserError where it cannot be read.
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
  """Returns a serialized VelocityRange of note_seq: the least (field 1) and greatest (field 2) velocity, 1 at least."""
  low, high = (int(max(one, 1)) for one in (velocity.min(initial=127), velocity.max(initial=1)))
  return bytes([0x08, min(low, high), 0x10, high])
