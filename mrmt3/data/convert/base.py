"""The interface of data sets in their original folders, which `write_records` converts."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from mrmt3.errors import UserError

VELOCITY = 100  # of notes whose annotation has no velocity

Features = Mapping[str, bytes | list[bytes] | np.ndarray]


class Original(Protocol):
  """A data set in its original folders. It must be small and picklable, because worker processes receive it."""

  def splits(self) -> dict[str, list[str]]:
    """Returns split -> names of its pieces, in a fixed order; UserError if the data set is missing."""

  def features(self, name: str) -> Features:
    """Reads a piece and returns the features of its record; UserError if it cannot be read."""


def in_splits(names: list[str], split_of: Mapping[str, str], splits: tuple[str, ...]) -> dict[str, list[str]]:
  """Returns split -> names, as in `Original.splits`. Names without a split are left out."""
  return {split: [name for name in names if split_of.get(name) == split] for split in splits}


def read_bytes(path) -> bytes:
  """Returns the bytes of a file; UserError if it cannot be read."""
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
