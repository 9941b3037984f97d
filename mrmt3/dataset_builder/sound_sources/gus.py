"""Gravis Ultrasound patches (.pat), as the freepats package has them, with a timidity configuration."""

import re
import struct
from pathlib import Path

import numpy as np

from mrmt3.dataset_builder.sound_sources.source import Preset, RawNote
from mrmt3.errors import UserError

_HEADER, _INSTRUMENT, _LAYER, _SAMPLE = 129, 63, 47, 96  # bytes
_LINE = re.compile(r'^\s*(\d+)\s+(\S+\.pat)')
_SIXTEEN_BITS, _UNSIGNED, _LOOPED, _BACKWARDS = 1, 2, 4, 16
_SECONDS = 4.0


def open_patches(folder: Path, config: str) -> 'Patches':
  """Open a folder of patches; `config` is the path of its timidity configuration relative to the package's root."""
  root = Path(*folder.parts[: len(folder.parts) - 4])  # ROOT/usr/share/midi/freepats
  return Patches(folder, root.parent / config if not (root / config).exists() else root / config)


class Patches:
  """A set of patches."""

  def __init__(self, folder: Path, config: Path):
    self._folder = folder
    self._tones, self._drums = {}, {}
    try:
      lines = config.read_text(encoding='latin-1').splitlines()
    except OSError as error:
      raise UserError(f'cannot read {config}: {error.strerror}; fetch its package again') from error
    table = self._tones
    for line in lines:
      table = self._drums if line.startswith('drumset') else self._tones if line.startswith('bank') else table
      found = _LINE.match(line)
      if found and (folder / found[2]).is_file():
        table.setdefault(int(found[1]), folder / found[2])
    if not self._tones:
      raise UserError(f'{config} names no patches that exist in {folder}; fetch its package again')

  def presets(self) -> list[Preset]:
    """Return all programs and the drum kit."""
    found = [Preset(program, False, path.stem) for program, path in sorted(self._tones.items())]
    return found + ([Preset(0, True, 'drums')] if self._drums else [])

  def notes(self, preset: Preset, low: int, high: int) -> list[RawNote]:
    """Return one note for each sample of a patch, at the pitch of its root, and copies where samples are far apart."""
    if preset.is_drum:
      return [
        RawNote(pitch, 100, audio, rate)
        for pitch, path in sorted(self._drums.items())
        for audio, rate, _, _ in read_patch(path)[:1]
      ]
    notes = []
    for audio, rate, root, loop in read_patch(self._tones[preset.program]):
      pitch = round(69 + 12 * np.log2(root / 440))
      # The root is seldom a note of the equal-tempered scale: play it at the speed at which it is one.
      rate = round(rate * 440 * 2 ** ((pitch - 69) / 12) / root)
      notes.append(RawNote(pitch, 100, _unrolled(audio, loop, rate), rate, _SECONDS if loop else None))
    return notes

  def waveforms(self, preset: Preset) -> list[tuple[np.ndarray, int]]:
    """Return the samples of a preset."""
    paths = list(self._drums.values()) if preset.is_drum else [self._tones[preset.program]]
    return [(audio, rate) for path in paths for audio, rate, _, _ in read_patch(path)]


def read_patch(path: Path) -> list[tuple[np.ndarray, int, float, tuple[int, int] | None]]:
  """Return (float32 `[n]`, sample rate, root frequency in Hz, loop or None) of each sample of a patch.

  Raises UserError if the file is broken.
  """
  try:
    data = path.read_bytes()
    if data[:12] not in (b'GF1PATCH110\0', b'GF1PATCH100\0'):
      raise ValueError('it is not a patch')
    count = data[_HEADER + _INSTRUMENT + 6]
    at, found = _HEADER + _INSTRUMENT + _LAYER, []
    for _ in range(count):
      size, begin, end, rate, _, _, root = struct.unpack_from('<3IH3I', data, at + 8)
      modes = data[at + 55]
      at += _SAMPLE
      if at + size > len(data):
        raise ValueError('it is truncated')
      found.append(_sample(data[at : at + size], begin, end, rate, root, modes))
      at += size
  except (OSError, ValueError, IndexError, struct.error) as error:
    raise UserError(f'cannot read the patch {path}: {error}; fetch its package again') from error
  if not found:
    raise UserError(f'the patch {path} has no samples; fetch its package again')
  return found


def _sample(data, begin, end, rate, root, modes):
  width = 2 if modes & _SIXTEEN_BITS else 1
  kind = ('<u2' if modes & _UNSIGNED else '<i2') if width == 2 else ('u1' if modes & _UNSIGNED else 'i1')
  raw = np.frombuffer(data[: len(data) // width * width], kind).astype(np.float32)
  if modes & _UNSIGNED:
    raw -= 2 ** (8 * width - 1)
  audio = raw / 2 ** (8 * width - 1)
  begin, end = begin // width, end // width
  if modes & _BACKWARDS:
    audio = audio[::-1].copy()
  loop = (begin, min(end, len(audio))) if modes & _LOOPED and min(end, len(audio)) - begin > 1 else None
  return audio, rate, root / 1000, loop


def _unrolled(audio, loop, rate):
  """Return a looped sample for `_SECONDS`; other samples as they are."""
  if loop is None:
    return audio
  begin, end = loop
  missing = max(0, round(_SECONDS * rate) - end)
  return np.concatenate([audio[:end], np.resize(audio[begin:end], missing)])
