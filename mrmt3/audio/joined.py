"""Audio files that hold several recordings one after another."""

from collections.abc import Callable

import numpy as np

from mrmt3.audio.libsndfile import SndFile


class JoinedFile:
  """Several open audio files as one; `audio.libsndfile.SndFile` has the same interface.

  All are converted to the sample rate and number of channels of the first.
  """

  is_doubtful = False

  def __init__(self, files: list[SndFile], resampled: Callable):
    """Take the files, at least one; `resampled` is `audio.files.resampled`, for channels in the last axis."""
    self._files, self._resampled = files, resampled
    self.samplerate = files[0].samplerate
    self.is_float = any(file.is_float for file in files)
    self.notes, self.damage = list(files[0].notes), ''
    self.frames = self._total('frames')
    self.declared_frames = self._total('declared_frames')
    self._channels = 0
    self._blocks = self._all_blocks()
    self._buffer = []

  def _total(self, name):
    return sum(getattr(file, name) * self.samplerate // file.samplerate for file in self._files)

  def read(self, frames: int) -> np.ndarray:
    """Return the next frames, at most `frames`, as float32 `[n, channels]`; none at the end."""
    block = self._buffer.pop() if self._buffer else next(self._blocks, np.zeros((0, 1), np.float32))
    if len(block) > frames:
      self._buffer.append(block[frames:])
    return block[:frames]

  def _all_blocks(self):
    for file in self._files:
      blocks = map(self._with_channels, _blocks(file))
      yield from (block for block in self._resampled(blocks, file.samplerate, self.samplerate) if len(block))
      self.damage = self.damage or file.damage

  def _with_channels(self, block):
    self._channels = self._channels or block.shape[1]
    if block.shape[1] == self._channels:
      return block
    return block.mean(axis=1, keepdims=True).repeat(self._channels, axis=1)

  def __enter__(self) -> 'JoinedFile':
    return self

  def __exit__(self, *exception) -> None:
    for file in self._files:
      file.__exit__()


def _blocks(file):
  while len(block := file.read(1 << 20)):
    yield block
