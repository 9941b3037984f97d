"""Audio files in and out: any file that libsndfile knows becomes float32 mono at the model's sample rate."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.files import atomic_path

SAMPLE_RATE = 16000  # Hz, what MT3 and MR-MT3 listen at
_BLOCK_FRAMES = 1 << 20  # read at a time, so that a header that lies about the length cannot exhaust memory
_WHOLE_SHARE = 0.99  # of its length must be there; the headers of mp3 files are not exact
_SHORTENED = re.compile(r'^data : (\d+) \(should be (\d+)\)', re.MULTILINE)  # in libsndfile's log
_UNKNOWN_BYTES = 0x7FFFF000  # programs that write to a pipe put a size like this into a wav file's header
_WHOLE_FRAMES = 1 << 24  # 6 minutes at 44.1 kHz; longer files are converted while they are read, to spare memory


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
  return _read_mono(path, str(path), sample_rate, whole)


def decode_audio(data: bytes, name: str, sample_rate: int = SAMPLE_RATE, whole: bool = False) -> np.ndarray:
  """Returns the sound of an audio file's bytes, as `read_audio`; errors call it `name`."""
  return _read_mono(io.BytesIO(data), name, sample_rate, whole)


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


def _read_mono(source: Path | io.BytesIO, name: str, sample_rate: int, whole: bool) -> np.ndarray:
  """Returns the mean of the file's channels at `sample_rate` Hz, float32 `[n]`; UserError where it holds none."""
  import soundfile

  try:
    with soundfile.SoundFile(source) as file:
      samples = _converted(_mono_blocks(file, name, whole), file.samplerate, sample_rate)
  # soundfile asks for a TypeError's missing arguments where the suffix says headerless (.raw)
  except (soundfile.SoundFileError, TypeError, ValueError) as error:
    raise UserError(f'cannot read {name} as audio ({_reason(error)}); convert it to wav, flac, ogg or mp3') from error
  if not samples.size:
    raise UserError(f'{name} holds no sound (0 samples); give a recording')
  return samples


def _mono_blocks(file, name: str, whole: bool) -> Iterator[np.ndarray]:
  """Yields the file's sound block by block, float32 `[n]` each; UserError at the first sample that is no number."""
  done = 0
  while len(block := file.read(_BLOCK_FRAMES, dtype='float32', always_2d=True)):
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
  if not size or int(size[1]) >= _UNKNOWN_BYTES or not int(size[2]):
    return file.frames
  return file.frames * int(size[1]) / int(size[2])


def _converted(blocks: Iterator[np.ndarray], from_rate: int, to_rate: int) -> np.ndarray:
  """Returns all blocks as one signal at `to_rate` Hz; the same as `resample` up to rounding, however long."""
  kept, frames, stream = [], 0, None
  for block in blocks:
    frames += len(block)
    kept.append(block if stream is None else stream.resample_chunk(block))
    if stream is None and frames > _WHOLE_FRAMES and from_rate != to_rate:
      import soxr

      stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype='float32', quality='HQ')
      kept = [stream.resample_chunk(np.concatenate(kept))]
  if stream is None:
    return resample(np.concatenate(kept) if kept else np.zeros(0, np.float32), from_rate, to_rate)
  kept.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
  size = -(-frames * to_rate // from_rate)
  converted = np.concatenate(kept)[:size]
  return np.pad(converted, (0, size - len(converted)))


def _reason(error: Exception) -> str:
  """Returns what libsndfile says, on one line, without the path that it puts in front."""
  text = getattr(error, 'error_string', None) or str(error)
  return ' '.join(text.split()).rstrip('.')
