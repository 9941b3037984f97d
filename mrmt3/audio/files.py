"""Audio files in and out: any file that libsndfile or FFmpeg knows becomes float32 mono at the model's sample rate.

FFmpeg's formats (m4a, aac, wma, the sound of films) need PyAV, the extra `m4a`.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_path

SAMPLE_RATE = 16000  # Hz, what MT3 and MR-MT3 listen at
_BLOCK_FRAMES = 1 << 20  # read at a time, so that a header that lies about the length cannot exhaust memory
_WHOLE_SHARE = 0.99  # of its length must be there; the headers of mp3 files are not exact
_SHORTENED = re.compile(r'^data : (\d+) \(should be (\d+)\)', re.MULTILINE)  # in libsndfile's log
UNKNOWN_BYTES = 0x7FFFF000  # programs that write to a pipe put a size like this into a wav file's header
_RATES = 500, 1_000_000  # Hz; what damaged files claim can make gigabytes of a second
FFMPEG_SUFFIXES = ('.m4a', '.m4b', '.mp4', '.aac', '.wma', '.webm', '.mka', '.mkv', '.mov', '.ac3', '.amr')


def read_audio(path: str | os.PathLike, sample_rate: int = SAMPLE_RATE, whole: bool = False) -> np.ndarray:
  """Returns the sound of a file as mono float32 samples `[n]` at `sample_rate` Hz, full scale being -1..1.

  Reads wav, flac, ogg, opus, mp3 and aiff with any sample rate and number of channels. Channels are averaged, then
  the rate is converted with soxr's high quality, as MT3 does by librosa. `n` is the length in the file times the
  ratio of the rates, rounded up. With `whole`, a file that ends before its header says is an error; else its sound is
  what there is.

  Raises UserError if there is no such file, it is a folder or not audio, or it holds no samples or a NaN or infinity.
  """
  if sample_rate <= 0:
    raise ValueError(f'sample_rate must be positive, not {sample_rate}')
  path = Path(path)
  _check_regular_file(path)
  return np.concatenate(list(_blocks(path, str(path), sample_rate, whole)))


def audio_blocks(path: str | os.PathLike, sample_rate: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
  """Yields the sound of a file, as `read_audio` returns it, a block `[n]` at a time: long files need little memory.

  Raises UserError as `read_audio`, some of it only when the place has been reached.
  """
  path = Path(path)
  _check_regular_file(path)
  yield from _blocks(path, str(path), sample_rate, whole=False)


def promised_seconds(path: str | os.PathLike) -> float | None:
  """Returns how long an audio file says that it is, s; None where it does not say, or cannot be read."""
  try:
    with _open(Path(path), str(path)) as file:
      return file.frames / file.samplerate if file.frames > 0 else None
  except UserError:
    return None


def decode_audio(data: bytes, name: str, sample_rate: int = SAMPLE_RATE, whole: bool = False) -> np.ndarray:
  """Returns the sound of an audio file's bytes, as `read_audio`; errors call it `name`."""
  return np.concatenate(list(_blocks(io.BytesIO(data), name, sample_rate, whole)))


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
  """Returns float32 samples `[n]` converted from `from_rate` to `to_rate` (Hz), `[ceil(n * to_rate / from_rate)]`.

  The result is librosa.resample's with res_type 'soxr_hq', without the seconds that importing librosa takes.
  """
  if from_rate == to_rate:
    return samples
  import soxr

  size = -(-len(samples) * to_rate // from_rate)
  converted = soxr.resample(samples, from_rate, to_rate, quality='HQ')[:size]
  return np.pad(converted, (0, size - len(converted)))


def resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
  """Yields blocks of one signal, float32 `[n]` each, at `to_rate` instead of `from_rate` (Hz).

  Together they are, bit for bit, what `resample` makes of the whole signal, however it is cut.
  """
  if from_rate == to_rate:
    yield from blocks
    return
  import soxr

  stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype='float32', quality='HQ')
  frames = done = 0
  for block in blocks:
    frames += len(block)
    if len(converted := stream.resample_chunk(np.ascontiguousarray(block, np.float32))):
      done += len(converted)
      yield converted
  left = -(-frames * to_rate // from_rate) - done
  converted = stream.resample_chunk(np.zeros(0, np.float32), last=True)[: max(left, 0)]
  if left > 0:
    yield np.pad(converted, (0, left - len(converted)))


def write_audio(path: str | os.PathLike, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
  """Writes samples `[n]` or `[n, channels]` (full scale -1..1, louder ones are clipped), whole or not at all.

  The suffix of `path` chooses the format (.wav, .flac, .ogg, .mp3, .aiff), with libsndfile's usual encoding for it
  (16 bit for .wav and .flac).

  Raises UserError if the format is unknown or the file cannot be written, ValueError if the samples are not finite.
  """
  import soundfile

  samples = np.asarray(samples)
  if samples.ndim not in (1, 2) or not np.isfinite(samples).all():
    raise ValueError('samples must be finite numbers of shape [n] or [n, channels]')
  path = Path(path)
  if path.suffix[1:].upper() not in soundfile.available_formats():
    raise UserError(f'cannot write {path}: unknown audio format {path.suffix!r}; use .wav, .flac, .ogg or .mp3')
  with atomic_path(path) as temporary:
    try:
      soundfile.write(temporary, samples, sample_rate)
    except (soundfile.SoundFileError, ValueError) as error:
      raise UserError(f'cannot write {path}: {_reason(error)}') from error


def _check_regular_file(path: Path) -> None:
  """Raises UserError unless `path` is an ordinary file; opening a pipe could wait for ever."""
  try:
    if path.is_file():
      return
    exists, folder = path.exists(), path.is_dir()
  except (OSError, ValueError) as error:  # a name too long, or with a zero byte
    raise UserError(f'cannot read {path}: {error}') from error
  if folder:
    raise UserError(f'{path} is a folder; name an audio file in it')
  if exists:
    raise UserError(f'{path} is not an ordinary file; save the audio to a file first')
  raise UserError(f'no such file: {path}')


def _open(source: Path | io.BytesIO, name: str):
  """Returns an open file with soundfile's `samplerate`, `frames`, `extra_info` and `read`; UserError if it is not audio."""
  import soundfile

  try:
    return soundfile.SoundFile(source)
  # soundfile asks for a TypeError's missing arguments where the suffix says headerless (.raw)
  except (soundfile.SoundFileError, TypeError, ValueError) as error:
    reason = _reason(error)
  if not isinstance(source, Path) or source.suffix.lower() not in FFMPEG_SUFFIXES:
    raise UserError(f'cannot read {name} as audio ({reason}); convert it to wav, flac, ogg or mp3')
  from mrmt3.audio import ffmpeg

  return ffmpeg.open_file(source)


def _blocks(source: Path | io.BytesIO, name: str, sample_rate: int, whole: bool) -> Iterator[np.ndarray]:
  """Yields the mean of the file's channels at `sample_rate` Hz, float32 `[n]` each; UserError where it holds none."""
  import soundfile

  total = 0
  try:
    with _open(source, name) as file:
      if not _RATES[0] <= file.samplerate <= _RATES[1]:
        raise UserError(f'{name} says that its sample rate is {file.samplerate} Hz; export the recording again')
      for block in resampled(_mono_blocks(file, name, whole), file.samplerate, sample_rate):
        total += len(block)
        yield block
  except (soundfile.SoundFileError, TypeError, ValueError) as error:
    raise UserError(f'cannot read {name} as audio ({_reason(error)}); convert it to wav, flac, ogg or mp3') from error
  if not total:
    raise UserError(f'{name} holds no sound (0 samples); give a recording')


def _mono_blocks(file, name: str, whole: bool) -> Iterator[np.ndarray]:
  """Yields the file's sound block by block, float32 `[n]` each; UserError at the first sample that is no number."""
  done = 0
  while len(block := file.read(_BLOCK_FRAMES, dtype='float32', always_2d=True)):
    with np.errstate(all='ignore'):  # what is no number is named below
      mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    if not np.isfinite(mono).all():
      second = (done + np.argmin(np.isfinite(mono))) / file.samplerate
      raise UserError(f'{name} holds samples that are no numbers (first at {second:.3f} s); export the recording again')
    done += len(mono)
    yield mono
  promised = _promised_frames(file)
  if whole and done < _WHOLE_SHARE * promised:
    raise UserError(
      f'{name} is cut off or damaged: {done / file.samplerate:.1f} of {promised / file.samplerate:.1f} s can be read'
    )


def _promised_frames(file) -> float:
  """Returns how long the file says it is, in frames; libsndfile quietly shortens wav files that are cut off."""
  size = _SHORTENED.search(file.extra_info)
  if not size or int(size[1]) >= UNKNOWN_BYTES or not int(size[2]):
    return file.frames
  return file.frames * int(size[1]) / int(size[2])


def _reason(error: Exception) -> str:
  """Returns what libsndfile says, on one line, without the path that it puts in front."""
  text = getattr(error, 'error_string', None) or str(error)
  return ' '.join(text.split()).rstrip('.')
