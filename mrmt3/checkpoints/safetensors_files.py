"""Reading of safetensors files. The header is checked against the size of the file before any array is read.

8 bytes, little-endian     length of the header
header                     JSON: name -> {dtype, shape, data_offsets}, and __metadata__
data                       the arrays, without gaps
"""

import math
import os
import stat
from pathlib import Path

import numpy as np

from mrmt3.utils import strict_json

_MAX_HEADER_BYTES = 1 << 23
_MAX_DIMENSIONS = 8
_METADATA = '__metadata__'


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Return the arrays of a file of float32, float16 or bfloat16 weights by name, float32.

  Raises:
    ValueError: it is not such a file, is damaged, or its header does not fit its size.
    OSError: it cannot be read.
  """
  path = Path(path)
  status = path.stat()
  if not stat.S_ISREG(status.st_mode):
    raise ValueError('it is not a regular file')
  with path.open('rb') as file:
    start = file.read(8)
    length = int.from_bytes(start, 'little')
    begin = 8 + length
    if len(start) < 8 or begin > status.st_size or length > _MAX_HEADER_BYTES:
      raise ValueError('it has no header of safetensors')
    header = strict_json.loads(file.read(length), _MAX_HEADER_BYTES)
  if not isinstance(header, dict):
    raise ValueError('its header is not a table')
  header.pop(_METADATA, None)
  places = {name: _place(name, entry) for name, entry in header.items()}
  _check_places(places, status.st_size - begin)
  return {
    name: np.fromfile(path, dtype, math.prod(shape), offset=begin + first).astype(np.float32).reshape(shape)
    for name, (dtype, shape, first, _) in places.items()
  }


def _place(name: str, entry) -> tuple[np.dtype, tuple[int, ...], int, int]:
  """Return (dtype, shape, first byte, byte after the last) of an entry of the header."""
  import ml_dtypes

  types = {'F32': np.dtype('<f4'), 'F16': np.dtype('<f2'), 'BF16': np.dtype(ml_dtypes.bfloat16)}
  entry = entry if isinstance(entry, dict) else {}
  dtype, shape, offsets = (entry.get(part) for part in ('dtype', 'shape', 'data_offsets'))
  if not isinstance(dtype, str) or dtype not in types:
    raise ValueError(f'{name!r:.80} is of type {dtype!r:.40}')
  if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
    raise ValueError(f'{name!r:.80} has an invalid shape or place')
  size = math.prod(shape) * types[dtype].itemsize
  if offsets[1] - offsets[0] != size:
    raise ValueError(f'{name!r:.80} has {offsets[1] - offsets[0]:,} bytes, its shape needs {size:,}'[:200])
  return types[dtype], tuple(shape), *offsets


def _are_sizes(values) -> bool:
  return (
    isinstance(values, list)
    and len(values) <= _MAX_DIMENSIONS
    and all(type(value) is int and 0 <= value < 1 << 48 for value in values)
  )


def _check_places(places: dict, data_bytes: int) -> None:
  """Raise ValueError unless the arrays follow each other without gaps to the end of the file."""
  end = 0
  for name, (_, _, first, after) in sorted(places.items(), key=lambda item: item[1][2:]):
    if first != end:
      raise ValueError(f'{name!r:.80} overlaps another array, or leaves a gap')
    end = after
  if end != data_bytes:
    raise ValueError(f'its arrays have {end:,} bytes, and {data_bytes:,} are there')
