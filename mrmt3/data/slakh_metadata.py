"""Parsing of metadata.yaml of a Slakh2100 track.

Files in circulation differ from the published ones: fields are missing, and flags and numbers are quoted. A value that
cannot be understood is an error, because a guess would give wrong labels.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.utils import bounded_files, strict_yaml

_DRUM_PROGRAM_NUM = 128
_DRUM_CLASS = 'drums'
_FLAGS = {
  **dict.fromkeys(('true', 'yes', 'on', 'y', 't', '1', '1.0'), True),
  **dict.fromkeys(('false', 'no', 'off', 'n', 'f', '0', '0.0'), False),
}
_MISSING = ('', 'none', 'null', '~')


@dataclasses.dataclass(frozen=True)
class StemEntry:
  """The fields of a stem.

  Attributes:
    name: e.g. 'S03'.
    program: `program_num`, 0 to 127, or 128 for drums; None if it is missing or invalid.
    is_drum: `is_drum`, or without it whether `inst_class` is Drums; true if `program_num` is 128.
    inst_class: instrument family, e.g. 'Strings'; '' if it is missing.
    audio_rendered: whether there is audio of it; true if the field is missing.
    midi_saved: whether there is a MIDI file of it; true if the field is missing.
    loudness: `integrated_loudness` in LUFS, -inf for silence; None if it is missing.
    given_program: `program_num` as in the file.
  """

  name: str
  program: int | None
  is_drum: bool
  inst_class: str
  audio_rendered: bool
  midi_saved: bool
  loudness: float | None
  given_program: object

  def checked_program(self, path: Path) -> int:
    """Return the program, 0 for drums; UserError naming the file if it is not known."""
    if self.is_drum:
      return 0
    if self.program is None:
      raise UserError(
        f'{path}: stem {self.name} has program_num {self.given_program!r}; it must be 0 to 127, 128 for drums'
      )
    return self.program


def read_metadata_file(path: Path) -> dict:
  """Return the content of a metadata.yaml; UserError if it is missing or has no table of stems."""
  try:
    metadata = strict_yaml.loads(bounded_files.read_bytes(path, strict_yaml.MAX_BYTES))
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except ValueError as error:
    raise UserError(f'{path} is not YAML ({" ".join(str(error).split())[:120]}); replace the file') from error
  stems = metadata.get('stems') if isinstance(metadata, dict) else None
  if not isinstance(stems, dict) or not all(isinstance(stem, dict) for stem in stems.values()):
    raise UserError(f"{path} is not a Slakh track's metadata: it has no table of stems; replace the file")
  for name in metadata['stems']:
    if not re.fullmatch(r'[\w -]{1,80}', str(name)):  # it becomes a part of paths
      raise UserError(f'{path}: {str(name)[:80]!r} is not the name of a stem, such as S00; replace the file')
  return metadata


def parse_stem(path: Path, name: str, fields: Mapping) -> StemEntry:
  """Return the fields of a stem.

  Args:
    path: the metadata file, for error messages.
    name: name of the stem.
    fields: its table in the file. Flags can be booleans, 0 or 1, or words such as 'true' and 'no'; numbers can be
      quoted. Empty values count as missing.

  Raises:
    UserError: a flag or the loudness cannot be understood.
  """
  program = _program(fields.get('program_num'))
  inst_class = '' if _is_missing(fields.get('inst_class')) else str(fields['inst_class'])
  is_drum = _flag(path, name, fields, 'is_drum')
  if is_drum is None:
    is_drum = inst_class.strip().lower() == _DRUM_CLASS
  return StemEntry(
    name=name,
    program=program,
    is_drum=bool(is_drum) or program == _DRUM_PROGRAM_NUM,
    inst_class=inst_class,
    audio_rendered=_flag(path, name, fields, 'audio_rendered') is not False,
    midi_saved=_flag(path, name, fields, 'midi_saved') is not False,
    loudness=_loudness(path, name, fields.get('integrated_loudness')),
    given_program=fields.get('program_num'),
  )


def _is_missing(value):
  return value is None or (isinstance(value, str) and value.strip().lower() in _MISSING)


def _flag(path, name, fields, key) -> bool | None:
  """Return a flag, None if it is missing."""
  value = fields.get(key)
  if _is_missing(value):
    return None
  found = _FLAGS.get(str(value).strip().lower()) if isinstance(value, (bool, int, float, str)) else None
  if found is None:
    raise UserError(f'{path}: stem {name} has {key} {value!r}; it must be true or false')
  return found


def _program(value) -> int | None:
  number = None if isinstance(value, bool) else _number(value)
  is_program = number is not None and number.is_integer() and 0 <= number <= _DRUM_PROGRAM_NUM
  return int(number) if is_program else None


def _loudness(path, name, value) -> float | None:
  if _is_missing(value):
    return None
  number = _number(value)
  if number is None:
    raise UserError(f'{path}: stem {name} has integrated_loudness {value!r}; it must be a number, or left out')
  return -math.inf if math.isnan(number) else number


def _number(value) -> float | None:
  """Return a number or quoted number as a float, None for anything else."""
  if isinstance(value, bool) or not isinstance(value, (int, float, str)):
    return None
  try:
    return float(value)
  except (ValueError, OverflowError):
    return None
