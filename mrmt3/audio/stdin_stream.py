"""Streaming audio from a pipe: wav, or raw samples without a header."""

import struct
from collections.abc import Callable, Iterator

import numpy as np

from mrmt3.audio import levels
from mrmt3.audio.files import check_sample_rate
from mrmt3.audio.libsndfile import UNKNOWN_BYTES
from mrmt3.errors import UserError

NAME = 'standard input'  # in messages
SAMPLE_FORMATS = ('s16le', 's24le', 's32le', 'f32le', 'f64le', 'u8')  # FFmpeg's names
BLOCK_BYTES = 1 << 16
_MAX_CHANNELS = 64
_LEAST_REST = 1 << 13  # bytes behind the samples that are not padding
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_WAV_FORMATS = {
  (_PCM, 8): 'u8',
  (_PCM, 16): 's16le',
  (_PCM, 24): 's24le',
  (_PCM, 32): 's32le',
  (_FLOAT, 32): 'f32le',
  (_FLOAT, 64): 'f64le',
}
_BYTES = {'u8': 1, 's16le': 2, 's24le': 3, 's32le': 4, 'f32le': 4, 'f64le': 8}
# (offset, first bytes): other formats, which raw samples do not begin like
_OTHERS = {
  (0, b'fLaC'): 'flac',
  (0, b'OggS'): 'ogg',
  (0, b'ID3'): 'mp3',
  (0, b'\xff\xfb'): 'mp3',
  (0, b'FORM'): 'aiff',
  (0, b'RIFX'): 'big-endian wav',
  (4, b'ftyp'): 'mp4',
  (0, b'\x1aE\xdf\xa3'): 'matroska or webm',
  (0, b'FLV\x01'): 'flv',
  (0, b'0&\xb2u\x8ef\xcf\x11'): 'wma',
  (0, b'caff'): 'caf',
  (0, b'.snd'): 'au',
}


class _Pipe:
  """A byte stream with lookahead."""

  def __init__(self, read: Callable[[int], bytes]):
    self._read, self._buffer = read, b''

  def exactly(self, count: int) -> bytes:
    """Return the next `count` bytes, or fewer at the end of the stream."""
    while len(self._buffer) < count:
      more = self._read(BLOCK_BYTES)
      if not more:
        break
      self._buffer += more
    data, self._buffer = self._buffer[:count], self._buffer[count:]
    return data

  def put_back(self, data: bytes) -> None:
    """Push `data` back, so that it is read next."""
    self._buffer = data + self._buffer

  def some(self) -> bytes:
    """Return the bytes at hand, waiting if there are none; b'' at the end of the stream."""
    data, self._buffer = self._buffer or self._read(BLOCK_BYTES), b''
    return data


def open_sound(
  read: Callable[[int], bytes], rate: int | None = None, channels: int = 1, sample_format: str = 's16le'
) -> tuple[int, Iterator[np.ndarray]]:
  """Open a stream of wav or raw samples, reading only its header.

  Args:
    read: takes a number and returns at most that many bytes, b'' at the end, like `os.read`.
    rate: sample rate of raw samples, Hz; None for a wav stream.
    channels: of raw samples.
    sample_format: of raw samples, one of `SAMPLE_FORMATS`.

  Returns:
    (sample rate Hz, iterator over blocks of samples, float32 `[n, channels]`, as they arrive).

  Raises:
    UserError: the stream is not wav and no rate is given, or its format is not supported.
  """
  pipe = _Pipe(read)
  start = pipe.exactly(12)
  pipe.put_back(start)
  if start[:4] in (b'RIFF', b'RF64') and start[8:] == b'WAVE':
    return _open_wav(pipe)
  for (place, magic), name in _OTHERS.items():
    if start[place:].startswith(magic):
      raise UserError(f'standard input: {name} cannot be read from a pipe; convert it: ffmpeg -i FILE -f wav - | ...')
  if rate is None:
    raise UserError('standard input is not a wav stream; for raw samples give --rate (and --channels, --format)')
  if rate < 1 or not 1 <= channels <= _MAX_CHANNELS or sample_format not in SAMPLE_FORMATS:
    raise UserError(
      f'standard input: cannot read {channels} channels of {sample_format} at {rate} Hz; give 1 to {_MAX_CHANNELS} '
      f'channels, a rate of at least 1 Hz and a format of {", ".join(SAMPLE_FORMATS)}'
    )
  check_sample_rate(rate, NAME)
  return rate, _samples(pipe, channels, sample_format, None)


def mono_blocks(blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
  """Yield the mean of the channels of blocks `[n, channels]` at `rate` Hz, float32 `[n]` each.

  Raises UserError for samples that are no numbers or far above full scale, and if there are none.
  """
  downmix, frames = levels.StreamDownmix(NAME, rate), 0
  for block in blocks:
    frames += len(block)
    if not np.isfinite(block).all():
      raise UserError(f'{NAME} has NaN or infinite samples; check --format')
    levels.check_scale(block, NAME)
    yield downmix.block(block)
  if not frames:
    raise UserError(f'{NAME} has no audio samples; check the program that writes them')


def _open_wav(pipe):
  pipe.exactly(12)
  kind = None
  while True:
    header = pipe.exactly(8)
    if len(header) < 8:
      raise UserError('standard input: the wav stream ends before its samples begin; check the program that writes it')
    name, size = header[:4], struct.unpack('<I', header[4:])[0]
    if name == b'data':
      break
    body = pipe.exactly(size + size % 2) if size < UNKNOWN_BYTES else b''
    if len(body) < size:
      raise UserError('standard input: the wav stream ends before its samples begin; check the program that writes it')
    if name == b'fmt ' and size >= 16:
      code, channels, rate, _, _, bits = struct.unpack('<HHIIHH', body[:16])
      if code == _EXTENSIBLE and size >= 26:
        code = struct.unpack('<H', body[24:26])[0]
      kind = _WAV_FORMATS.get((code, bits))
      if kind is None or not 1 <= channels <= _MAX_CHANNELS or not rate:
        raise UserError(
          f'standard input: wav format {code} with {bits} bits, {channels} channels, {rate} Hz is not supported; '
          'convert it: ffmpeg -i FILE -f wav - | ...'
        )
  if kind is None:
    raise UserError(
      'standard input: the wav stream has no fmt chunk before its samples; convert it: ffmpeg -i FILE -f wav - | ...'
    )
  check_sample_rate(rate, NAME)
  return rate, _samples(pipe, channels, kind, size if 0 < size < UNKNOWN_BYTES else None)


def _samples(pipe, channels, kind, size):
  """Yield the samples in the next `size` bytes (None: until the end); an incomplete last frame is dropped.

  Warns if the stream ends earlier.
  """
  frame, remaining, rest = channels * _BYTES[kind], size, b''
  while remaining is None or remaining > 0:
    data = pipe.some()
    if not data:
      if remaining:
        levels.warn(f'{NAME} ends early: {(size - remaining) / size:.0%} of the declared samples were received')
      return
    if remaining is not None:
      data, more = data[:remaining], data[remaining:]
      pipe.put_back(more)
      remaining -= len(data)
    rest += data
    whole = len(rest) // frame * frame
    if whole:
      yield _as_float(rest[:whole], kind).reshape(-1, channels)
      rest = rest[whole:]
    if remaining == 0 and _goes_on(pipe, size):
      levels.warn(f'{NAME} goes on after the length in its header; all of it is read')
      remaining = None


def _goes_on(pipe, size):
  """Return whether samples follow where the header lets them end, instead of other chunks."""
  following = pipe.exactly(_LEAST_REST)
  pipe.put_back(following)
  name = following[size % 2 :][:4]
  return len(following) == _LEAST_REST and not all(0x20 <= byte < 0x7F for byte in name)


def _as_float(data, kind):
  """Convert PCM bytes to float32 `[n]`, full scale -1..1."""
  if kind == 's24le':
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return (wide.view('<i4')[:, 0] / 2**31).astype(np.float32)
  if kind == 'u8':
    return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
  samples = np.frombuffer(data, {'s16le': '<i2', 's32le': '<i4', 'f32le': '<f4', 'f64le': '<f8'}[kind])
  scale = {'s16le': 2**15, 's32le': 2**31}.get(kind, 1)
  return (samples / scale).astype(np.float32)
