"""Reading of .npz files of weights. What a file declares is checked before anything is allocated.

A file of a few bytes can declare an array of 128 TiB, and a compressed one can hold 10 GB of zeros. Both are rejected
by their headers: the arrays of a file of weights take about as many bytes as the file.
"""

import math
import os
import zipfile
from pathlib import Path

import numpy as np

from mrmt3.checkpoints.limits import check_expansion
from mrmt3.errors import UserError, first_line

_MAX_ARRAYS = 20_000
_MAX_HEADER_CHARACTERS = 10_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the two that NumPy writes
_KINDS = 'biuf'  # of dtypes: real numbers
_SUFFIX = '.npy'


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Read the arrays of a .npz file by name.

  Raises:
    UserError: it is not a .npz file, is damaged, declares more than it can hold, or has other contents than arrays of
      real numbers.
  """
  path = Path(path)
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
      _check_members(members, path.stat().st_size)
      arrays = {}
      for info in members:
        name = info.filename.removesuffix(_SUFFIX)
        if name in arrays:
          raise ValueError(f'two arrays are named {name!r:.80}')
        arrays[name] = _read_array(archive, info)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or first_line(error)}') from error
  except Exception as error:  # zipfile, zlib and numpy raise their own exceptions
    raise UserError(f'{path}: not a .npz file of weights, or damaged ({first_line(error)}); copy it again') from error
  if not arrays:
    raise UserError(f'{path}: no arrays found; give a .npz file of weights')
  return arrays


def _check_members(members: list[zipfile.ZipInfo], file_bytes: int) -> None:
  """Raise ValueError for members that NumPy does not write, or that are larger together than the file can hold."""
  if len(members) > _MAX_ARRAYS:
    raise ValueError(f'it has {len(members):,} members')
  for info in members:
    if not info.filename.endswith(_SUFFIX) or info.compress_type not in _METHODS:
      raise ValueError(f'{info.filename!r:.80} is not an array')
  check_expansion(sum(info.file_size for info in members), file_bytes)


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
  with archive.open(info) as file:
    version = np.lib.format.read_magic(file)
    read_header = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
      raise ValueError(f'{info.filename!r:.80} is of an unknown version of the format')
    shape, fortran_order, dtype = read_header(file, max_header_size=_MAX_HEADER_CHARACTERS)
    if dtype.kind not in _KINDS or dtype.shape:
      raise ValueError(f'{info.filename!r:.80} does not hold real numbers')
    declared, there = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
    if declared != there or min(shape, default=0) < 0:
      raise ValueError(f'{info.filename!r:.80} declares {declared:,} bytes and has {there:,}')
    content = bytearray(file.read(declared))
    if len(content) != declared:
      raise ValueError(f'{info.filename!r:.80} is cut off')
    if file.read(1):  # compares the checksum as well
      raise ValueError(f'{info.filename!r:.80} is longer than declared')
  return np.frombuffer(content, dtype).reshape(shape, order='F' if fortran_order else 'C')
