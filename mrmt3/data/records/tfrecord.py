"""TFRecord files by record, read and written without TensorFlow.

A record is its length (uint64), a checksum of the length (uint32), the data, and a checksum of the data (uint32), all
little-endian. Going from length to length finds all records of a file without reading their data.
"""

import dataclasses
import functools
import glob
import os
import re
import struct
from pathlib import Path

import google_crc32c

from mrmt3.errors import UserError

_HEADER = struct.Struct('<QI')
_FOOTER = struct.Struct('<I')
_SHARDS = re.compile(r'@(\d+)$')


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a record is in its file.

  Attributes:
    offset: of its data, bytes.
    length: of its data, bytes.
    problem: what keeps it from being read, '' where nothing was seen to. Nothing can be found after such a record.
  """

  offset: int
  length: int
  problem: str = ''


def find_files(folder: str | os.PathLike, pattern: str) -> list[Path]:
  """Returns the files of a pattern, sorted: 'name@10' (ten files, name-00000-of-00010 and so on), a glob, or a file.

  Raises:
    UserError: there are none, or, of the form with @, not all.
  """
  folder = Path(folder)
  shards = _SHARDS.search(pattern)
  if shards:
    count, stem = int(shards[1]), pattern[: shards.start()]
    files = [folder / f'{stem}-{number:05d}-of-{count:05d}' for number in range(count)]
    missing = [file for file in files if not file.is_file()]
    if missing:
      raise UserError(f'{len(missing)} of the {count} files {folder / pattern} are missing, the first is {missing[0]}')
  else:
    files = sorted(
      Path(path) for path in glob.glob(str(Path(glob.escape(str(folder)), pattern))) if os.path.isfile(path)
    )
  if not files:
    raise UserError(f'no files {folder / pattern}; check the folder and the pattern')
  return files


def find_records(path: Path) -> tuple[Place, ...]:
  """Returns the places of a file's records; UserError where it cannot be opened."""
  try:
    status = path.stat()
    return _find_records(path, status.st_size, status.st_mtime_ns)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error


@functools.lru_cache(maxsize=4096)
def _find_records(path, size, _changed):
  places, at = [], 0
  with open(path, 'rb') as file:
    while at < size:
      file.seek(at)
      place = _place(file.read(_HEADER.size), at, size)
      places.append(place)
      if place.problem:
        break
      at = place.offset + place.length + _FOOTER.size
  return tuple(places)


def _place(header, at, size):
  offset = at + _HEADER.size
  if len(header) < _HEADER.size:
    return Place(offset, 0, 'the file ends within its header')
  length, checksum = _HEADER.unpack(header)
  if masked_crc32c(header[:8]) != checksum:
    return Place(offset, 0, 'its header is damaged, so it and what comes after it cannot be read')
  if offset + length + _FOOTER.size > size:
    return Place(offset, length, 'the file ends within it')
  return Place(offset, length)


def read_record(path: Path, number: int) -> bytes:
  """Returns the data of a file's record, counted from 0; UserError where there is none or it is damaged."""
  places = find_records(path)
  if not 0 <= number < len(places):
    raise UserError(f'{path} has no record {number}, it has {len(places)}')
  place = places[number]
  problem = place.problem
  if not problem:
    try:
      with open(path, 'rb') as file:
        file.seek(place.offset)
        data = file.read(place.length)
        footer = file.read(_FOOTER.size)
    except OSError as error:
      raise UserError(f'cannot read {path}: {error.strerror}') from error
    if len(footer) == _FOOTER.size and masked_crc32c(data) == _FOOTER.unpack(footer)[0]:
      return data
    problem = 'its data is damaged (wrong checksum)'
  raise UserError(f'{path}: record {number}, at byte {place.offset}: {problem}; get the file anew')


def framed(data: bytes) -> bytes:
  """Returns a record as it stands in a file: with its length and checksums."""
  length = struct.pack('<Q', len(data))
  header = length + _FOOTER.pack(masked_crc32c(length))
  return b''.join((header, data, _FOOTER.pack(masked_crc32c(data))))


def masked_crc32c(data: bytes) -> int:
  """Returns the CRC-32C as TFRecord files store it: rotated by 15 bits, plus a constant."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
