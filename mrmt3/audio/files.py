"""Audio file reading, resampling and writing.

Any format that libsndfile or FFmpeg decodes becomes float32 mono at the model's sample rate. FFmpeg is tried wherever
libsndfile fails, whatever the suffix; it needs PyAV, the extra `m4a`. What is odd about a file and was handled is an
`DataWarning`: samples in the range of integers, channels that cancel each other, a file that ends early.
"""

import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mrmt3.audio import levels, libsndfile, parts
from mrmt3.audio.ffmpeg import FfmpegFile
from mrmt3.audio.joined import JoinedFile
from mrmt3.audio.libsndfile import SndFile
from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_path

SAMPLE_RATE = 16000  # Hz, as in MT3 and MR-MT3
_BLOCK_FRAMES = 1 << 20  # frames per read; a header with a wrong length cannot exhaust memory
_MIN_COMPLETE = 0.99  # fraction of the declared length; mp3 headers are not exact
_ROUNDING = 0.05  # s: the length in a container may include what an encoder puts before and after the sound
SAMPLE_RATES = 500, 1_000_000  # Hz, accepted range; a damaged header can make one second gigabytes long
_ADVICE = 'get the file again, or convert it to wav, flac, ogg or mp3'


def read_audio(path: str | os.PathLike, sample_rate: int = SAMPLE_RATE, whole: bool = False) -> np.ndarray:
  """Read an audio file as mono float32 samples `[n]`, full scale -1..1.

  Reads any format at any sample rate, with any number of channels. Channels are averaged (`levels.Downmix`), then
  resampled with soxr's high quality, as in MT3 (through librosa). `n` is the file's length times the ratio of the
  sample rates, rounded up. Oddities that were handled are `DataWarning`s.

  Args:
    path: the audio file.
    sample_rate: of the result, Hz.
    whole: reject a file that is damaged or ends before the length in its header; otherwise what is there is returned,
      with a warning.

  Raises:
    UserError: the file is missing, a folder, not audio, empty, or has NaN or infinite samples.
    ValueError: `sample_rate` is not positive.
  """
  if sample_rate <= 0:
    raise ValueError(f'sample_rate must be positive, not {sample_rate}')
  path = Path(path)
  check_readable(path)
  return np.concatenate(list(_blocks(path, str(path), sample_rate, whole)))


def audio_blocks(path: str | os.PathLike, sample_rate: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
  """Yield the samples that `read_audio` returns in blocks `[n]`, so that long files need little memory.

  Raises UserError as `read_audio` does; errors and warnings about the inside of the file appear when the iteration
  reaches them. Recordings that are silent or nearly so are warned of as well.
  """
  path = Path(path)
  check_readable(path)
  yield from levels.watched(_blocks(path, str(path), sample_rate, whole=False), str(path))


def promised_seconds(path: str | os.PathLike) -> float | None:
  """Return the length in an audio file's header, or an estimate of it, s; None if it has none or cannot be read."""
  try:
    check_readable(Path(path))
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
  """Yield the blocks of a signal, float32 `[n]` or `[n, channels]` each, resampled from `from_rate` to `to_rate` Hz.

  Their concatenation equals `resample` of the whole signal bit for bit, wherever the signal is cut.
  """
  if from_rate == to_rate:
    yield from blocks
    return
  import soxr

  stream, shape = None, (0,)
  frames = written = 0
  for block in blocks:
    if stream is None:
      shape = (0, *block.shape[1:])
      stream = soxr.ResampleStream(from_rate, to_rate, max(1, *block.shape[1:], 1), dtype='float32', quality='HQ')
    frames += len(block)
    if len(converted := stream.resample_chunk(np.ascontiguousarray(block, np.float32))):
      written += len(converted)
      yield converted
  if stream is None:
    return
  remaining = -(-frames * to_rate // from_rate) - written
  converted = stream.resample_chunk(np.zeros(shape, np.float32), last=True)[: max(remaining, 0)]
  if remaining > 0:
    yield np.pad(converted, [(0, remaining - len(converted))] + [(0, 0)] * (converted.ndim - 1))


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
      soundfile.write(os.fsencode(temporary), samples, sample_rate)
    except (soundfile.SoundFileError, ValueError) as error:
      raise UserError(f'cannot write {path}: {libsndfile.reason_of(error)}') from error


def check_readable(path: Path) -> None:
  """Raise UserError unless `path` is a regular file that can be opened; opening a pipe could block forever."""
  try:
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
      with open(path, 'rb'):
        return
  except (FileNotFoundError, NotADirectoryError) as error:
    if path.is_symlink():
      raise UserError(f'{path} is a link to {os.readlink(path)}, which does not exist; mend the link') from error
    raise UserError(f'no such file: {path}') from error
  except (OSError, ValueError) as error:  # no permission, too long a name, a NUL byte
    raise UserError(f'cannot read {path}: {getattr(error, "strerror", None) or error}') from error
  if stat.S_ISDIR(mode):
    raise UserError(f'{path} is a folder; name an audio file in it')
  raise UserError(f'{path} is not a regular file; save the audio to a file first')


def check_sample_rate(rate: float, name: str) -> None:
  """Raise UserError if a recording's sample rate (Hz) is out of the supported range."""
  if not SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]:
    raise UserError(
      f'{name}: a sample rate of {rate} Hz is not supported; export the recording at {SAMPLE_RATES[0]} to '
      f'{SAMPLE_RATES[1]} Hz'
    )


def _open(source: Path | io.BytesIO, name: str) -> SndFile | JoinedFile | FfmpegFile:
  """Open audio with libsndfile, or else with FFmpeg; UserError if neither reads it."""
  sound, reason = None, 'libsndfile finds no samples'
  try:
    if (joined := _open_parts(source)) is not None:
      return joined
  except ValueError as error:
    raise UserError(f'cannot read {name} as audio ({error}); {_ADVICE}') from error
  try:
    if isinstance(source, io.BytesIO):
      source.seek(0)
    sound = SndFile(source)
    if sound.frames and not sound.is_doubtful:
      return sound
  except ValueError as error:
    reason = str(error)
  try:
    # The header may lack the length: a stream saved to a file, a recording that was aborted.
    other = FfmpegFile(source)
    worse = sound if sound is None or not (sound.frames and other.container == 'mp3') else other
    if worse is not None:
      worse.__exit__()
    return sound if worse is other else other
  except ModuleNotFoundError as error:
    if sound is not None:
      return sound
    advice = f'{_ADVICE}, or install PyAV, which reads more formats: pip install "mrmt3[m4a]"'
    raise UserError(f'cannot read {name} as audio ({reason}); {advice}') from error
  except ValueError as error:
    if sound is not None:
      return sound
    # FFmpeg says no more than "invalid data" of most files.
    reason = reason if 'Invalid data' in str(error) else str(error)
    if isinstance(source, Path) and not source.stat().st_size:
      reason = 'it is empty'
    raise UserError(f'cannot read {name} as audio ({reason}); {_ADVICE}') from error


def _open_parts(source):
  """Open the recordings in a file that libsndfile must be given one by one; None if it can read the file as it is."""
  found, note = parts.find_parts(source)
  files = []
  try:
    files += (SndFile(part) for part in found)
  except ValueError:
    for part in found:
      part.close()
    return None  # FFmpeg may read it
  if not files:
    return None
  files[0].notes += [note] if note else []
  return files[0] if len(files) == 1 else JoinedFile(files, resampled)


def _blocks(source: Path | io.BytesIO, name: str, sample_rate: int, whole: bool) -> Iterator[np.ndarray]:
  """Yield the mean of a file's channels at `sample_rate` Hz, float32 `[n]` each; UserError if there are no samples."""
  file, scale, total = _open(source, name), None, 0
  if file.is_float:
    with file:
      scale = levels.Scale(_read_all(file, source, []), name)
    file = _open(source, name)
  with file:
    check_sample_rate(file.samplerate, name)
    damage = []
    mono = _mono_blocks(file, source, name, scale, whole, damage)
    for block in resampled(mono, file.samplerate, sample_rate):
      total += len(block)
      yield block
  if not total:
    if damage:
      raise UserError(f'cannot read {name} as audio ({damage[0]}); {_ADVICE}')
    raise UserError(f'{name} has no audio samples; choose a file with a recording')


def _mono_blocks(file, source, name, scale, whole, damage) -> Iterator[np.ndarray]:
  """Yield the mean of a file's channels, float32 `[n]` each; UserError at the first NaN or infinity."""
  frames, downmix = 0, levels.Downmix(name, file.samplerate)
  for note in file.notes:
    levels.warn(f'{name} {note}')
  for block in _read_all(file, source, damage):
    mono = downmix.block(block if scale is None else scale.apply(block))
    if not np.isfinite(mono).all():
      second = (frames + np.argmin(np.isfinite(mono))) / file.samplerate
      raise UserError(f'{name} has NaN or infinite samples (first at {second:.3f} s); export the recording again')
    frames += len(mono)
    yield mono
  seconds, declared = frames / file.samplerate, file.declared_frames / file.samplerate
  if seconds < _MIN_COMPLETE * declared - _ROUNDING:
    problem = f'{name} is truncated or damaged: {seconds:.1f} of {declared:.1f} s can be read'
  elif damage:
    problem = f'{name} is damaged ({damage[0]}): {seconds:.1f} s can be read'
  else:
    return
  if whole:
    raise UserError(f'{problem}; get the file again')
  if frames:
    levels.warn(problem)


def _read_all(file, source, damage) -> Iterator[np.ndarray]:
  """Yield the samples of an open file, `[n, channels]` each, and append what is damaged in it to the list `damage`.

  Where libsndfile gives up, or ends early without a word, FFmpeg goes on.
  """
  frames = 0
  while len(block := file.read(_BLOCK_FRAMES)):
    frames += len(block)
    yield block
  if file.damage:
    damage.append(file.damage)
  elif frames >= _MIN_COMPLETE * file.declared_frames - _ROUNDING * file.samplerate:
    return
  if not isinstance(file, SndFile):
    return
  try:
    with FfmpegFile(source) as other:
      while other.samplerate == file.samplerate and len(block := other.read(_BLOCK_FRAMES)):
        if len(block) > frames:
          if not damage:
            damage.append(other.damage or 'a part of it cannot be decoded')
          yield block[frames:]
        frames = max(0, frames - len(block))
  except (ValueError, ModuleNotFoundError):
    return
