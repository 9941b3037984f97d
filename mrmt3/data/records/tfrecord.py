"""Random access to the records of TFRecord files, and writing of records, without TensorFlow.

A record consists of its length (uint64), a checksum of the length (uint32), the data, and a checksum of the data
(uint32), all little-endian. Following the lengths finds all records of a file without reading their data.
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
  """Position of a record in its file.

  Attributes:
    offset: of its data, bytes.
    length: of its data, bytes.
    problem: why it cannot be read, '' if no problem is known. No record after it can be found.
  """

  offset: int
  length: int
  problem: str = ''


def find_files(folder: str | os.PathLike, pattern: str) -> list[Path]:
  """Return the sorted files of a pattern: 'name@10' (ten files, name-00000-of-00010 and so on), a glob or a file.

  Raises:
    UserError: there are no such files, or some of the files of 'name@10' are missing.
  """
  folder = Path(folder)
  shards = _SHARDS.search(pattern)
  if shards:
    count, stem = int(shards[1]), pattern[: shards.start()]
    files = [folder / f'{stem}-{number:05d}-of-{count:05d}' for number in range(count)]
    missing = [file for file in files if not file.is_file()]
    if missing:
      raise UserError(
        f'{len(missing)} of the {count} files {folder / pattern} are missing, the first is {missing[0]}; '
        'download them or use a glob'
      )
  else:
    files = sorted(
      Path(path) for path in glob.glob(str(Path(glob.escape(str(folder)), pattern))) if os.path.isfile(path)
    )
  if not files:
    raise UserError(f'no files {folder / pattern}; check the folder and the pattern')
  return files


def find_records(path: Path) -> tuple[Place, ...]:
  """Return the places of a file's records; UserError if the file cannot be opened."""
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
    return Place(offset, 0, 'its header is damaged, so this record and all after it cannot be read')
  if offset + length + _FOOTER.size > size:
    return Place(offset, length, 'the file ends within it')
  return Place(offset, length)


def read_record(path: Path, number: int) -> bytes:
  """Return the data of record `number` of a file, counted from 0; UserError if it is damaged or does not exist."""
  places = find_records(path)
  if not 0 <= number < len(places):
    raise UserError(f'{path} has no record {number}; it has {len(places)} records')
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
  raise UserError(f'{path}: record {number}, at byte {place.offset}: {problem}; get the file again')


def framed(data: bytes) -> bytes:
  """Return the bytes of a record in a file: the data with its length and checksums."""
  length = struct.pack('<Q', len(data))
  header = length + _FOOTER.pack(masked_crc32c(length))
  return b''.join((header, data, _FOOTER.pack(masked_crc32c(data))))


def masked_crc32c(data: bytes) -> int:
  """Return the CRC-32C as TFRecord files store it: rotated by 15 bits, plus a constant."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
