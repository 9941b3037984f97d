"""What a converter needs of a data set in its original folders."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from mrmt3.errors import UserError

VELOCITY = 100  # of notes whose annotation has none

Features = Mapping[str, bytes | list[bytes] | np.ndarray]


@dataclasses.dataclass(frozen=True)
class Options:
  """What else a data set is made of, where it can be.

  Attributes:
    sample_rate: Hz, of the sound that is written; None: the files' bytes as they are, samples at 16 kHz.
    labels: folder with the MIDI files of MusicNet-EM.
    subsets: random sub-mixes of each training track of Slakh2100, 0: its mix.
  """

  sample_rate: int | None = None
  labels: str | None = None
  subsets: int = 0

  @property
  def rate(self) -> dict[str, int]:
    """The sample rate as a keyword argument, if there is one."""
    return {} if self.sample_rate is None else {'sample_rate': self.sample_rate}


class Original(Protocol):
  """A data set in its original folders; small and picklable, as it goes to worker processes."""

  def splits(self) -> dict[str, list[str]]:
    """Returns split -> names of its pieces, in a fixed order; UserError where the data set is not there."""

  def features(self, name: str) -> Features:
    """Reads a piece and returns the features of its record; UserError where it cannot be read."""


def in_splits(names: list[str], split_of: Mapping[str, str], splits: tuple[str, ...]) -> dict[str, list[str]]:
  """Returns the names by split, as `Original.splits`; names without a split are left out."""
  return {split: [name for name in names if split_of.get(name) == split] for split in splits}


def read_bytes(path) -> bytes:
  """Returns the bytes of a file; UserError where it cannot be read."""
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
