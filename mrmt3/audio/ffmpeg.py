"""Audio formats that libsndfile does not read (m4a, aac, wma, video soundtracks), decoded with PyAV's FFmpeg."""

from pathlib import Path

import numpy as np

from mrmt3.errors import UserError


class FfmpegFile:
  """An open audio file with the part of soundfile.SoundFile's interface that `audio.files` uses.

  Attributes:
    samplerate: Hz.
    frames: length in the file's header; 0 if it has none.
    extra_info: empty; soundfile's log.
  """

  extra_info = ''

  def __init__(self, path: Path):
    """Open an audio file; ValueError if it has no audio stream or cannot be decoded."""
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
      self._container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
      raise ValueError(error.strerror or str(error)) from error
    if not self._container.streams.audio:
      self._container.close()
      raise ValueError('it has no audio stream')
    stream = self._container.streams.audio[0]
    self.samplerate = stream.rate
    self.frames = int(stream.duration * stream.time_base * stream.rate) if stream.duration else 0
    self._blocks = self._decoded_blocks(av, stream)
    self._buffer = np.zeros((0, 1), np.float32)

  def read(self, frames: int, dtype: str = 'float32', always_2d: bool = True) -> np.ndarray:
    """Return the next `frames` frames, or fewer at the end, as float32 `[frames, channels]`."""
    if dtype != 'float32' or not always_2d:
      raise ValueError('FfmpegFile reads float32 [frames, channels] only; leave dtype and always_2d at their defaults')
    parts, count = [self._buffer], len(self._buffer)
    while count < frames and (block := next(self._blocks, None)) is not None:
      parts.append(block)
      count += len(block)
    # If the number of channels changes within the file, keep the first block's.
    parts = [part for part in parts if len(part)] or [self._buffer]
    channels = parts[0].shape[1]
    samples = np.concatenate(
      [p if p.shape[1] == channels else p.mean(1, keepdims=True).repeat(channels, 1) for p in parts]
    )
    self._buffer = samples[frames:]
    return samples[:frames]

  def _decoded_blocks(self, av, stream):
    # Packets may differ in sample rate and type; convert all of them to one.
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
  """Open an audio file with PyAV; UserError if PyAV is missing or the file has no audio that FFmpeg decodes."""
  try:
    return FfmpegFile(path)
  except ModuleNotFoundError as error:
    raise UserError(
      f'cannot read {path} without PyAV; install it with: pip install "mrmt3[m4a]", or convert the file to wav'
    ) from error
  except ValueError as error:
    raise UserError(f'cannot read {path} as audio ({error}); convert it to wav, flac, ogg or mp3') from error
