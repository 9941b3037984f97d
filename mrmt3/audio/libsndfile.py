"""Audio files opened with libsndfile: wav, flac, ogg, opus, mp3, aiff and others."""

import contextlib
import io
import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mrmt3.utils.native_stderr import without_lines

UNKNOWN_BYTES = 0x7FFFF000  # a wav header written to a pipe declares at least this size
_UNKNOWN_FRAMES = 1 << 62
_TRUNCATED = re.compile(r'^data : (\d+) \(should be (\d+)\)', re.MULTILINE)  # in libsndfile's log
_MPG123 = re.compile(rb'\[src/libmpg123/|Note: |Warning: |\s*$')  # what its MP3 decoder writes to stderr
_UNKNOWN = 'unknown format'
_FLOATS = ('FLOAT', 'DOUBLE')


class SndFile:
  """An open audio file; `audio.ffmpeg.FfmpegFile` has the same interface.

  Attributes:
    samplerate: Hz.
    frames: length in the file's header, in frames; 0 if it is not known.
    declared_frames: the length before the file was cut off, where that is known; otherwise `frames`.
    is_doubtful: whether it was taken for MP3 although it does not begin like MP3. The MP3 decoder searches for frames
      in anything, and finds some.
    is_float: whether samples are stored as floats, so that they can exceed full scale by far.
    notes: oddities of the file, each a clause.
    damage: what could not be decoded, a clause; '' until it is met.
  """

  def __init__(self, source: Path | BinaryIO):
    """Open audio; ValueError with the reason if libsndfile does not read it."""
    import soundfile

    self._error, self._source = soundfile.SoundFileError, source
    self.notes, self.damage = [], ''
    try:
      with without_lines(_MPG123):
        # Bytes: soundfile encodes text strictly, and a name need not be UTF-8.
        self._file = soundfile.SoundFile(os.fsencode(source) if isinstance(source, Path) else source)
    # soundfile raises TypeError (missing arguments) for the suffix of headerless audio (.raw).
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
      raise ValueError(reason_of(error)) from error
    self.samplerate = self._file.samplerate
    self.frames = self._file.frames if self._file.frames < _UNKNOWN_FRAMES else 0
    self.is_float = self._file.subtype in _FLOATS
    self._is_mpeg = self._file.subtype.startswith('MPEG')
    self.is_doubtful = self._is_mpeg and isinstance(source, Path | io.BytesIO) and not _begins_like_mpeg(source)

  @property
  def declared_frames(self) -> float:
    """The length in the header; libsndfile silently shortens truncated wav files."""
    size = _TRUNCATED.search(self._file.extra_info)
    if not size or int(size[1]) >= UNKNOWN_BYTES or not int(size[2]):
      return self.frames
    return self.frames * int(size[1]) / int(size[2])

  def read(self, frames: int) -> np.ndarray:
    """Return the next `frames` frames, or fewer at the end, as float32 `[frames, channels]`; damage is an end."""
    if self.damage:
      return np.zeros((0, self._file.channels), np.float32)
    file = self._file
    frames = max(1, min(frames, frames * 2 // file.channels))  # many channels need no more memory than stereo
    if file.seekable():
      frames = min(frames, max(0, file.frames - file.tell()))
    # An error loses what soundfile.read has read; in our own buffer the samples before it stay.
    buffer = np.full((frames, file.channels), np.nan, np.float32)
    try:
      with without_lines(_MPG123) if self._is_mpeg else contextlib.nullcontext():
        return file.read(frames, dtype='float32', always_2d=True, out=buffer)
    except (self._error, TypeError, ValueError) as error:
      self.damage = reason_of(error).replace(_UNKNOWN, '') or 'it cannot be decoded'
      unread = np.isnan(buffer).any(axis=1)
      return buffer[: unread.argmax()] if unread.any() else buffer

  def __enter__(self) -> 'SndFile':
    return self

  def __exit__(self, *exception) -> None:
    self._file.close()
    if not isinstance(self._source, Path | io.BytesIO):
      self._source.close()


def _begins_like_mpeg(source: Path | BinaryIO) -> bool:
  """Return whether a file begins with a frame of MPEG audio, layers I to III, after any ID3 tag."""
  with open(source, 'rb') if isinstance(source, Path) else io.BytesIO(source.getbuffer()) as file:
    start = file.read(10)
    if start[:3] == b'ID3' and len(start) == 10:
      file.seek(10 + sum((byte & 0x7F) << shift for byte, shift in zip(start[6:], (21, 14, 7, 0), strict=True)))
      start = file.read(2)
  return len(start) >= 2 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0 and bool(start[1] & 0x06)


def reason_of(error: Exception) -> str:
  """Return libsndfile's message on one line, without the path that it starts with."""
  text = ' '.join((getattr(error, 'error_string', None) or str(error)).split()).rstrip('.')
  # libsndfile says so of empty files, and of others that it cannot make out; the caller has checked that they exist.
  return _UNKNOWN if 'does not exist' in text or 'unspecified internal error' in text.lower() else text
