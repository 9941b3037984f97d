"""Recordings inside audio files whose headers are wrong, and recordings one after another in one file.

libsndfile trusts the lengths of a wav file, and reads the first of several Ogg or MP3 recordings that were joined. Each
recording found here is a `Part` that it reads as a file of its own.
"""

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO

from mrmt3.audio.libsndfile import UNKNOWN_BYTES

_MAX_PARTS = 10_000
_LEAST_REST = 1 << 13  # bytes behind the samples that are not padding
_REST_SHARE = 200  # the same, as a share of the samples: one in so many
_HEADER = 65_536  # bytes: more chunks or tags than that are not walked byte by byte
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_LARGE = 0xFFFFFFFF  # a length that is in the ds64 chunk


class Part(io.RawIOBase):
  """Bytes of an open file as a file: `prefix`, then those from `start` to `end`."""

  def __init__(self, file: BinaryIO, start: int, end: int, prefix: bytes = b''):
    """Make the part; closing it closes `file`."""
    super().__init__()
    self._file, self._start, self._prefix = file, start, prefix
    self._size, self._at = len(prefix) + end - start, 0

  def readable(self) -> bool:
    """Return True."""
    return True

  def seekable(self) -> bool:
    """Return True."""
    return True

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    """Move to a position, which is returned."""
    base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
    self._at = max(0, base + offset)
    return self._at

  def close(self) -> None:
    """Close the file."""
    self._file.close()
    super().close()

  def readinto(self, buffer) -> int:
    """Read bytes into a buffer; return their number."""
    count = min(len(buffer), self._size - self._at)
    if count <= 0:
      return 0
    if self._at < len(self._prefix):
      data = self._prefix[self._at : self._at + count]
    else:
      self._file.seek(self._start + self._at - len(self._prefix))
      data = self._file.read(count)
    buffer[: len(data)] = data
    self._at += len(data)
    return len(data)


def find_parts(source: Path | io.BytesIO) -> tuple[list[Part], str]:
  """Return (the recordings in a file that must be read one by one, what is odd about it, a clause or '').

  There are none if the file can be read as it is. The parts keep the file open.

  Raises:
    ValueError: the header makes it impossible to read the samples.
  """
  file = open(source, 'rb') if isinstance(source, Path) else io.BytesIO(source.getbuffer())  # noqa: SIM115 - the parts
  parts, note = [], ''
  try:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(12)
    if start[:4] in (b'RIFF', b'RF64', b'BW64') and start[8:] == b'WAVE':
      parts, note = _wav(file, size)
    elif start[:4] == b'OggS':
      parts = _ogg(file, size)
    elif start[:3] == b'ID3' or _is_frame(start):
      parts = _mp3(file, size)
  finally:
    if not parts:
      file.close()
  return parts, note


def _wav(file, size):
  """Return a wav file of the samples that are there if its lengths are wrong."""
  at, form, is_misplaced, large = 12, b'', False, None
  for _ in range(_MAX_PARTS):
    name, length = _chunk(file, at)
    if length is None:
      return [], ''
    begin = at + 8
    if name == b'data':
      break
    body = file.read(min(length, _HEADER)) if name in (b'fmt ', b'ds64') else b''
    if name == b'fmt ':
      form = body
    elif name == b'ds64' and len(body) >= 16:
      large = struct.unpack('<Q', body[8:16])[0]
    at = begin + length + length % 2
    # Some programs leave out the byte that pads a chunk of odd length.
    if length % 2 and not _is_chunk(file, at, size) and _is_chunk(file, at - 1, size):
      at, is_misplaced = at - 1, True
  else:
    return [], ''
  if len(form) < 16:
    return [], ''
  code, channels, rate, _, _, bits = struct.unpack('<HHIIHH', form[:16])
  if not channels or not rate:
    raise ValueError(f'its header names {channels} channels at {rate} Hz')
  frame = channels * -(-bits // 8)
  if code not in (_PCM, _FLOAT, _EXTENSIBLE) or not frame:
    return [], ''
  declared = large if length == _LARGE and large is not None else length
  available = size - begin
  if not declared and _is_chunk(file, begin, size):
    raise ValueError('it has no audio samples')
  is_unknown = declared >= UNKNOWN_BYTES or not declared
  end, note = begin + min(declared, available), ''
  rest = available - declared
  if is_unknown:
    end = size
  elif rest > max(_LEAST_REST, declared // _REST_SHARE) and not any(
    _is_chunk(file, end + pad, size) for pad in range(1 + declared % 2)
  ):
    seconds = [count / frame / rate for count in (declared, available)]
    note = f'has a wrong length in its header ({seconds[0]:.1f} s); all {seconds[1]:.1f} s in the file are read'
    end = size
  elif not is_misplaced:
    return [], ''
  return [Part(file, begin, end, _wav_header(form, end - begin))], note


def _wav_header(form, length):
  """Return the header of a wav file up to its samples, `length` bytes."""
  head = b'WAVE'
  is_large = length > UNKNOWN_BYTES
  if is_large:
    head += b'ds64' + struct.pack('<IQQQI', 28, length + 100, length, 0, 0)
  head += b'fmt ' + struct.pack('<I', len(form)) + form + b'\0' * (len(form) % 2)
  head += b'data' + struct.pack('<I', _LARGE if is_large else length)
  total = _LARGE if is_large else len(head) + length
  return (b'RF64' if is_large else b'RIFF') + struct.pack('<I', total) + head


def _chunk(file, at):
  """Return (name, length) of the chunk at a position; the length is None at the end of the file."""
  file.seek(at)
  header = file.read(8)
  return (header[:4], struct.unpack('<I', header[4:])[0]) if len(header) == 8 else (b'', None)


def _is_chunk(file, at, size):
  """Return whether a chunk that fits into the file begins at a position, or the file ends there."""
  if at == size:
    return True
  name, length = _chunk(file, at)
  if length is None or not all(0x20 <= byte < 0x7F for byte in name):
    return False
  return at + 8 + length <= size + 1 or (name == b'data' and length >= UNKNOWN_BYTES)


def _ogg(file, size):
  """Return the links of a chained Ogg file; none if there is only one."""
  starts, at, is_header = [], 0, False
  while at + 27 <= size and len(starts) < _MAX_PARTS:
    file.seek(at)
    page = file.read(27 + 255)
    if page[:4] != b'OggS' or len(page) < 27:
      following = _find(file, b'OggS', at + 1)
      if following < 0:
        break
      at = following
      continue
    # A link starts with the first pages of all its streams.
    is_first = bool(page[5] & 2)
    if is_first and not is_header:
      starts.append(at)
    is_header = is_first
    at += 27 + page[26] + sum(page[27 : 27 + page[26]])
  return _cut(file, starts, size)


def _find(file, what, at):
  """Return where `what` occurs next, within 64 KiB, which no page exceeds; -1 if it does not."""
  file.seek(at)
  place = file.read(_HEADER + 512).find(what)
  return at + place if place >= 0 else -1


def _mp3(file, size):
  """Return the recordings in an MP3 file, each with a Xing or Info header; none if there is only one."""
  starts, at = [], 0
  while len(starts) < _MAX_PARTS:
    start = at
    file.seek(at)
    while (tag := file.read(10))[:3] == b'ID3' and len(tag) == 10:
      at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
      file.seek(at)
    file.seek(at)
    head = file.read(_HEADER)
    at += len(head) - len(head.lstrip(b'\0'))
    head = head.lstrip(b'\0')
    if not _is_frame(head):
      break
    starts.append(start)
    place = next((found for name in (b'Xing', b'Info') if (found := head.find(name, 0, 64)) > 0), 0)
    if not place or not len(head) >= place + 16:
      break
    flags = struct.unpack('>I', head[place + 4 : place + 8])[0]
    if not flags & 2:
      break
    at += struct.unpack('>I', head[place + 8 + 4 * (flags & 1) :][:4])[0]
  return _cut(file, starts, size)


def _is_frame(data):
  """Return whether a frame of MPEG audio begins there."""
  return len(data) >= 3 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and bool(data[1] & 0x06) and data[2] < 0xF0


def _cut(file, starts, size):
  if len(starts) < 2:
    return []
  return [Part(file, start, end) for start, end in zip(starts, [*starts[1:], size], strict=True)]
