"""Audio that libsndfile does not read (m4a, aac, wma, the sound of films), through PyAV, which brings FFmpeg along."""

from pathlib import Path

import numpy as np

from mrmt3.errors import UserError


class FfmpegFile:
  """An open file that is read as soundfile.SoundFile is.

  Attributes:
    samplerate: Hz.
    frames: how long the file says that it is; 0 where it does not say.
    extra_info: nothing; soundfile has its log here.
  """

  extra_info = ''

  def __init__(self, path: Path):
    """Opens a file with sound in it; ValueError if there is none, or it cannot be decoded."""
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
      self._container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
      raise ValueError(error.strerror or str(error)) from error
    if not self._container.streams.audio:
      self._container.close()
      raise ValueError('there is no sound in it')
    stream = self._container.streams.audio[0]
    self.samplerate = stream.rate
    self.frames = int(stream.duration * stream.time_base * stream.rate) if stream.duration else 0
    self._blocks = self._decoded(av, stream)
    self._left = np.zeros((0, 1), np.float32)

  def read(self, frames: int, dtype: str = 'float32', always_2d: bool = True) -> np.ndarray:
    """Returns the next `frames` frames, or what is left, float32 `[frames, channels]`; other types are not known."""
    if dtype != 'float32' or not always_2d:
      raise ValueError('FfmpegFile reads float32 [frames, channels] only')
    parts, count = [self._left], len(self._left)
    while count < frames and (block := next(self._blocks, None)) is not None:
      parts.append(block)
      count += len(block)
    # Where the number of channels changes on the way, those of the first block count.
    parts = [part for part in parts if len(part)] or [self._left]
    channels = parts[0].shape[1]
    everything = np.concatenate(
      [p if p.shape[1] == channels else p.mean(1, keepdims=True).repeat(channels, 1) for p in parts]
    )
    self._left = everything[frames:]
    return everything[:frames]

  def _decoded(self, av, stream):
    # One rate and one sample type for the whole file, whatever its packets say.
    resampler = av.AudioResampler(format='fltp', rate=self.samplerate)
    try:
      for frame in self._container.decode(stream):
        yield from (part.to_ndarray().T.astype(np.float32) for part in resampler.resample(frame))
      yield from (part.to_ndarray().T.astype(np.float32) for part in resampler.resample(None))
    except av.FFmpegError as error:
      raise ValueError(error.strerror or str(error)) from error

  def __enter__(self) -> 'FfmpegFile':
    return self

  def __exit__(self, *exception) -> None:
    self._container.close()


def open_file(path: Path) -> FfmpegFile:
  """Opens a file. UserError without PyAV, or if the file holds no sound that can be decoded."""
  try:
    return FfmpegFile(path)
  except ModuleNotFoundError as error:
    raise UserError(
      f'reading {path} needs PyAV; install it with: pip install "mrmt3[m4a]", or convert it to wav'
    ) from error
  except ValueError as error:
    raise UserError(f'cannot read {path} as audio ({error}); convert it to wav, flac, ogg or mp3') from error
