"""Audio file reading, resampling and writing.

Any format that libsndfile or FFmpeg decodes becomes float32 mono at the model's sample rate. FFmpeg's formats (m4a,
aac, wma, video soundtracks) need PyAV, the extra `m4a`.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_path

SAMPLE_RATE = 16000  # Hz, as in MT3 and MR-MT3
_BLOCK_FRAMES = 1 << 20  # frames per read; a header with a wrong length cannot exhaust memory
_MIN_COMPLETE = 0.99  # fraction of the declared length; mp3 headers are not exact
_TRUNCATED = re.compile(r'^data : (\d+) \(should be (\d+)\)', re.MULTILINE)  # in libsndfile's log
UNKNOWN_BYTES = 0x7FFFF000  # a wav header written to a pipe declares at least this size
_SAMPLE_RATES = 500, 1_000_000  # Hz, accepted range; a damaged header can make one second gigabytes long
FFMPEG_SUFFIXES = ('.m4a', '.m4b', '.mp4', '.aac', '.wma', '.webm', '.mka', '.mkv', '.mov', '.ac3', '.amr')


def read_audio(path: str | os.PathLike, sample_rate: int = SAMPLE_RATE, whole: bool = False) -> np.ndarray:
  """Read an audio file as mono float32 samples `[n]`, full scale -1..1.

  Reads wav, flac, ogg, opus, mp3 and aiff at any sample rate, with any number of channels. Channels are averaged, then
  resampled with soxr's high quality, as in MT3 (through librosa). `n` is the file's length times the ratio of the
  sample rates, rounded up.

  Args:
    path: the audio file.
    sample_rate: of the result, Hz.
    whole: reject a file that ends before the length in its header; otherwise its samples are returned as they are.

  Raises:
    UserError: the file is missing, a folder, not audio, empty, or has NaN or infinite samples.
    ValueError: `sample_rate` is not positive.
  """
  if sample_rate <= 0:
    raise ValueError(f'sample_rate must be positive, not {sample_rate}')
  path = Path(path)
  _check_regular_file(path)
  return np.concatenate(list(_blocks(path, str(path), sample_rate, whole)))


def audio_blocks(path: str | os.PathLike, sample_rate: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
  """Yield the samples that `read_audio` returns in blocks `[n]`, so that long files need little memory.

  Raises UserError as `read_audio` does; errors inside the file appear when the iteration reaches them.
  """
  path = Path(path)
  _check_regular_file(path)
  yield from _blocks(path, str(path), sample_rate, whole=False)


def promised_seconds(path: str | os.PathLike) -> float | None:
  """Return the length in an audio file's header, s; None if it has none or cannot be read."""
  try:
    with _open(Path(path), str(path)) as file:
      return file.frames / file.samplerate if file.frames > 0 else None
  except UserError:
    return None


def decode_audio(data: bytes, name: str, sample_rate: int = SAMPLE_RATE, whole: bool = False) -> np.ndarray:
  """Decode the bytes of an audio file as `read_audio` does; error messages use `name`."""
  return np.concatenate(list(_blocks(io.BytesIO(data), name, sample_rate, whole)))


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
  """Resample float32 `[n]` from `from_rate` to `to_rate` (Hz): float32 `[ceil(n * to_rate / from_rate)]`.

  Equal to librosa.resample with res_type='soxr_hq', without the seconds that importing librosa takes.
  """
  if from_rate == to_rate:
    return samples
  import soxr

  size = -(-len(samples) * to_rate // from_rate)
  converted = soxr.resample(samples, from_rate, to_rate, quality='HQ')[:size]
  return np.pad(converted, (0, size - len(converted)))


def resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
  """Yield the blocks of one signal, float32 `[n]` each, resampled from `from_rate` to `to_rate` (Hz).

  Their concatenation equals `resample` of the whole signal bit for bit, wherever the signal is cut.
  """
  if from_rate == to_rate:
    yield from blocks
    return
  import soxr

  stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype='float32', quality='HQ')
  frames = written = 0
  for block in blocks:
    frames += len(block)
    if len(converted := stream.resample_chunk(np.ascontiguousarray(block, np.float32))):
      written += len(converted)
      yield converted
  remaining = -(-frames * to_rate // from_rate) - written
  converted = stream.resample_chunk(np.zeros(0, np.float32), last=True)[: max(remaining, 0)]
  if remaining > 0:
    yield np.pad(converted, (0, remaining - len(converted)))


def write_audio(path: str | os.PathLike, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
  """Write samples `[n]` or `[n, channels]`, full scale -1..1, to a file that appears complete or not at all.

  The suffix of `path` chooses the format (.wav, .flac, .ogg, .mp3, .aiff) in libsndfile's default encoding (16 bits for
  .wav and .flac). Louder samples are clipped.

  Raises:
    UserError: the format is unknown, or the file cannot be written.
    ValueError: the samples are not finite, or have another shape.
  """
  import soundfile

  samples = np.asarray(samples)
  if samples.ndim not in (1, 2) or not np.isfinite(samples).all():
    raise ValueError(f'samples must be finite, of shape [n] or [n, channels]; got shape {list(samples.shape)}')
  path = Path(path)
  if path.suffix[1:].upper() not in soundfile.available_formats():
    raise UserError(f'cannot write {path}: unknown audio format {path.suffix!r}; use .wav, .flac, .ogg or .mp3')
  with atomic_path(path) as temporary:
    try:
      soundfile.write(temporary, samples, sample_rate)
    except (soundfile.SoundFileError, ValueError) as error:
      raise UserError(f'cannot write {path}: {_reason(error)}') from error


def _check_regular_file(path: Path) -> None:
  """Raise UserError unless `path` is a regular file; opening a pipe could block forever."""
  try:
    if path.is_file():
      return
    exists, folder = path.exists(), path.is_dir()
  except (OSError, ValueError) as error:  # the name is too long or has a NUL byte
    raise UserError(f'cannot read {path}: {error}') from error
  if folder:
    raise UserError(f'{path} is a folder; name an audio file in it')
  if exists:
    raise UserError(f'{path} is not a regular file; save the audio to a file first')
  raise UserError(f'no such file: {path}')


def _open(source: Path | io.BytesIO, name: str):
  """Open audio as an object with soundfile's `samplerate`, `frames`, `extra_info` and `read`.

  Raises UserError if it is not audio.
  """
  import soundfile

  try:
    return soundfile.SoundFile(source)
  # soundfile raises TypeError (missing arguments) for the suffix of headerless audio (.raw).
  except (soundfile.SoundFileError, TypeError, ValueError) as error:
    reason = _reason(error)
  if not isinstance(source, Path) or source.suffix.lower() not in FFMPEG_SUFFIXES:
    raise UserError(f'cannot read {name} as audio ({reason}); convert it to wav, flac, ogg or mp3')
  from mrmt3.audio import ffmpeg

  return ffmpeg.open_file(source)


def _blocks(source: Path | io.BytesIO, name: str, sample_rate: int, whole: bool) -> Iterator[np.ndarray]:
  """Yield the mean of a file's channels at `sample_rate` Hz, float32 `[n]` each; UserError if there are no samples."""
  import soundfile

  total = 0
  try:
    with _open(source, name) as file:
      if not _SAMPLE_RATES[0] <= file.samplerate <= _SAMPLE_RATES[1]:
        raise UserError(
          f'{name}: a sample rate of {file.samplerate} Hz is not supported; '
          f'export the recording at {_SAMPLE_RATES[0]} to {_SAMPLE_RATES[1]} Hz'
        )
      for block in resampled(_mono_blocks(file, name, whole), file.samplerate, sample_rate):
        total += len(block)
        yield block
  except (soundfile.SoundFileError, TypeError, ValueError) as error:
    raise UserError(f'cannot read {name} as audio ({_reason(error)}); convert it to wav, flac, ogg or mp3') from error
  if not total:
    raise UserError(f'{name} has no audio samples; choose a file with a recording')


def _mono_blocks(file, name: str, whole: bool) -> Iterator[np.ndarray]:
  """Yield the mean of a file's channels, float32 `[n]` each; UserError at the first NaN or infinity."""
  frames = 0
  while len(block := file.read(_BLOCK_FRAMES, dtype='float32', always_2d=True)):
    with np.errstate(all='ignore'):  # NaN and infinity are reported below
      mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    if not np.isfinite(mono).all():
      second = (frames + np.argmin(np.isfinite(mono))) / file.samplerate
      raise UserError(f'{name} has NaN or infinite samples (first at {second:.3f} s); export the recording again')
    frames += len(mono)
    yield mono
  declared = _declared_frames(file)
  if whole and frames < _MIN_COMPLETE * declared:
    raise UserError(
      f'{name} is truncated or damaged: {frames / file.samplerate:.1f} of {declared / file.samplerate:.1f} s can be '
      'read; get the file again'
    )


def _declared_frames(file) -> float:
  """Return the length in the file's header, in frames. libsndfile silently shortens truncated wav files."""
  size = _TRUNCATED.search(file.extra_info)
  if not size or int(size[1]) >= UNKNOWN_BYTES or not int(size[2]):
    return file.frames
  return file.frames * int(size[1]) / int(size[2])


def _reason(error: Exception) -> str:
  """Return libsndfile's message on one line, without the path that it starts with."""
  text = getattr(error, 'error_string', None) or str(error)
  return ' '.join(text.split()).rstrip('.')
