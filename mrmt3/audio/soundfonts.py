"""Soundfont contents: presets, and sample names, which identify soundfonts with common samples.

Soundfonts that share samples (MuseScore's is partly FluidR3) form a family. After training on one of a family, a test
on another does not measure generalization to unseen timbres.
"""

import dataclasses
import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

from mrmt3.errors import UserError

SHARED_SAMPLES = 0.15  # fraction of the smaller font's sample names that makes two fonts a family; up to 0.08 by chance
_DRUM_BANK = 128
_HEADER_RECORD, _SAMPLE_RECORD = 38, 46  # bytes
# Where Debian's packages install common soundfonts; used in messages only.
KNOWN = {
  'fluid-soundfont-gm': '/usr/share/sounds/sf2/FluidR3_GM.sf2',
  'musescore-general-soundfont-small': '/usr/share/sounds/sf3/MuseScore_General_Lite.sf3',
  'minuet-data': '/usr/share/minuet/soundfonts/GeneralUser-v1.47.sf2',
}


@dataclasses.dataclass(frozen=True)
class Soundfont:
  """A soundfont that can be played.

  Attributes:
    path: the file.
    sha256: digest of its bytes.
    programs: General MIDI programs that have a preset.
    has_drums: whether it has drum kits.
    samples: names of its samples.
  """

  path: Path
  sha256: str
  programs: frozenset[int]
  has_drums: bool
  samples: frozenset[str] = dataclasses.field(repr=False)

  def has(self, program: int, is_drum: bool) -> bool:
    """Whether it has a preset for an instrument."""
    return self.has_drums if is_drum else program in self.programs

  def is_related(self, other: 'Soundfont') -> bool:
    """Whether the two fonts belong to one family (see the module's docstring)."""
    smaller = min(len(self.samples), len(other.samples))
    shared = len(self.samples & other.samples)
    return self.sha256 == other.sha256 or (smaller > 0 and shared >= SHARED_SAMPLES * smaller)


def read_soundfont(path: Path) -> Soundfont:
  """Read a .sf2 or .sf3 file; UserError if it is missing, broken, or has no General MIDI presets."""
  if not path.is_file():
    raise UserError(f'no such soundfont: {path}; name a .sf2 or .sf3 file')
  try:
    data = path.read_bytes()
  except OSError as error:
    raise UserError(f'cannot read the soundfont {path}: {error.strerror}') from error
  if data[:4] != b'RIFF' or data[8:12] != b'sfbk':
    raise UserError(f'{path} is not a soundfont; name a .sf2 or .sf3 file')
  try:
    chunks = font_chunks(data)
    presets = [struct.unpack('<HH', record[20:24]) for record in _records(chunks[b'phdr'], _HEADER_RECORD)]
    samples = frozenset(bytes(record[:20]).split(b'\0')[0] for record in _records(chunks[b'shdr'], _SAMPLE_RECORD))
  except (KeyError, struct.error) as error:
    raise UserError(f'cannot load the soundfont {path}: it is truncated or broken; get the file again') from error
  programs = frozenset(program for program, bank in presets if bank == 0 and program < 128)
  if not programs or not samples:
    raise UserError(f'the soundfont {path} has no General MIDI instruments (presets in bank 0); name another one')
  return Soundfont(
    path=path,
    sha256=hashlib.sha256(data).hexdigest(),
    programs=programs,
    has_drums=any(bank == _DRUM_BANK for _, bank in presets),
    samples=frozenset(name.decode('latin-1') for name in samples),
  )


def font_chunks(data: bytes) -> dict[bytes, bytes]:
  """Split a soundfont into its chunks by name: b'ifil', b'smpl', b'phdr', ...; KeyError if the file is truncated."""
  at, found = 12, {}
  while at + 12 <= len(data):
    end = at + 8 + struct.unpack('<I', data[at + 4 : at + 8])[0]
    if end > len(data):
      raise KeyError(data[at + 8 : at + 12])
    if data[at : at + 4] == b'LIST':
      found |= _chunks(data, at + 12, end)
    at = end
    at += data[at : at + 4] != b'LIST'  # chunks begin at even offsets, but not all programs pad them
  return found


def _chunks(data, at, end):
  found = {}
  while at + 8 <= end:
    size = struct.unpack('<I', data[at + 4 : at + 8])[0]
    found[data[at : at + 4]] = data[at + 8 : min(at + 8 + size, end)]
    at += 8 + size + size % 2
  return found


def _records(chunk, size):
  """Return all records but the last, a terminator."""
  return [chunk[at : at + size] for at in range(0, len(chunk) - 2 * size + 1, size)]


def check_held_out(train: Sequence[Soundfont], held_out: Sequence[Soundfont]) -> None:
  """Raise UserError if a held-out font belongs to the family of a training font."""
  for one in held_out:
    for other in train:
      if one.is_related(other):
        raise UserError(
          f'{one.path.name} shares samples with {other.path.name} and cannot be held out from it; '
          'hold out a font of another family'
        )
