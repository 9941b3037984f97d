"""The interface of data sets in their original folders, which `write_records` converts."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from mrmt3.errors import UserError

VELOCITY = 100  # of notes whose annotation has no velocity

Features = Mapping[str, bytes | list[bytes] | np.ndarray]


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of a conversion. Each applies to some data sets only.

  Attributes:
    sample_rate: Hz, of the audio written. None copies audio files and writes samples at 16 kHz.
    labels: folder with the MIDI files of MusicNet-EM.
    subsets: number of random sub-mixes per training track of Slakh2100; 0 writes the mix.
  """

  sample_rate: int | None = None
  labels: str | None = None
  subsets: int = 0

  @property
  def rate(self) -> dict[str, int]:
    """The sample rate as a keyword argument, if it is set."""
    return {} if self.sample_rate is None else {'sample_rate': self.sample_rate}


class Original(Protocol):
  """A data set in its original folders. It must be small and picklable, because worker processes receive it."""

  def splits(self) -> dict[str, list[str]]:
    """Return split -> names of its pieces, in a fixed order; UserError if the data set is missing."""

  def features(self, name: str) -> Features:
    """Read a piece and return the features of its record; UserError if it cannot be read."""


def in_splits(names: list[str], split_of: Mapping[str, str], splits: tuple[str, ...]) -> dict[str, list[str]]:
  """Return split -> names, as in `Original.splits`. Names without a split are left out."""
  return {split: [name for name in names if split_of.get(name) == split] for split in splits}


def read_bytes(path) -> bytes:
  """Return the bytes of a file; UserError if it cannot be read."""
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
