"""Folders of recorded notes whose file names are pitches: A3.mp3, As4.ogg, C#5.wav."""

import re
from pathlib import Path

import numpy as np

from mrmt3.dataset_builder.sound_sources.source import Preset, RawNote
from mrmt3.errors import UserError

_SEMITONES = {'C': 0, 'D': 2, 'E': 4, 'F': 5, 'G': 7, 'A': 9, 'B': 11}
_NAME = re.compile(r'^([A-G])(s|#|b)?(-?\d)(?:v(\d+))?$')
_SUFFIXES = ('.mp3', '.ogg', '.wav', '.flac')
_MAX_SECONDS = 8.0


def open_samples(folders: Path | list[Path], program: int, velocities: tuple[int, ...] = (90,)) -> 'SampleFolder':
  """Open a folder of recordings, or one folder a velocity. UserError if one has no recordings."""
  return SampleFolder([folders] if isinstance(folders, Path) else list(folders), program, velocities)


def pitch_of_name(stem: str) -> int | None:
  """Return the MIDI pitch of a file name such as 'As3' (A sharp 3 = 58), or None."""
  found = _NAME.match(stem)
  if found is None:
    return None
  letter, accidental, octave = found[1], found[2], int(found[3])
  return 12 * (octave + 1) + _SEMITONES[letter] + {'s': 1, '#': 1, 'b': -1, None: 0}[accidental]


def read_recording(path: Path, max_seconds: float = _MAX_SECONDS) -> tuple[np.ndarray, int]:
  """Read the beginning of an audio file: (mono float32 `[n]`, Hz). UserError if it is broken or empty."""
  import soundfile

  try:
    with soundfile.SoundFile(path) as file:
      audio = file.read(round(max_seconds * file.samplerate), dtype='float32', always_2d=True)
      rate = file.samplerate
  except (soundfile.SoundFileError, OSError) as error:
    raise UserError(f'cannot read the recording {path}: it is truncated or broken; fetch its package again') from error
  if not len(audio) or not np.isfinite(audio).all():
    raise UserError(f'the recording {path} has no usable samples; fetch its package again')
  return audio.mean(axis=1), rate


class SampleFolder:
  """One recorded instrument."""

  def __init__(self, folders: list[Path], program: int, velocities: tuple[int, ...]):
    self._program = program
    self._files = []  # (pitch, velocity, path)
    self._name = folders[0].name
    for folder, velocity in zip(folders, velocities, strict=True):
      files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES) if folder.is_dir() else []
      pitched = [(pitch_of_name(path.stem), velocity, path) for path in files]
      pitched = [entry for entry in pitched if entry[0] is not None]
      if not pitched:
        raise UserError(f'{folder} has no recordings of notes; fetch its package again')
      self._files += pitched

  def presets(self) -> list[Preset]:
    """Return the instrument."""
    return [Preset(self._program, False, self._name)]

  def notes(self, preset: Preset, low: int, high: int) -> list[RawNote]:
    """Read all recordings, whatever the range."""
    return [RawNote(pitch, velocity, *read_recording(path)) for pitch, velocity, path in self._files]

  def waveforms(self, preset: Preset) -> list[tuple[np.ndarray, int]]:
    """Return all recordings."""
    return [read_recording(path) for _, _, path in self._files]
