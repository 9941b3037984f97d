"""Reading and writing of PyTorch files (.pth, .pt, .ckpt) with NumPy, without executing code from them.

    zip (since PyTorch 1.6)    <name>/data.pkl, <name>/data/<key> (uncompressed storage of a tensor), <name>/version
    stream (before)            pickles of magic number, version, system, data, storage keys; then the storages

A pickle is a program that can call any function. `pickled_tensors` interprets the few instructions that weights need.
Storages are memory-mapped, so that an unused optimizer state costs nothing.
"""

import dataclasses
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3.checkpoints.limits import check_expansion
from mrmt3.checkpoints.pickled_tensors import RejectedError, Storage, Tensor, unpickle
from mrmt3.errors import UserError, first_line
from mrmt3.utils.files import atomic_path

STATE_DICT = 'state_dict'  # key of the weights in PyTorch Lightning's checkpoints
SPEC_NAME = 'mrmt3_model.json'  # member of the zip file, ignored by PyTorch

_STREAM_MAGIC, _STREAM_VERSION = 0x1950A86A20F9469CFC6C, 1001
_MAX_PICKLE_BYTES = 1 << 26  # names and shapes only; published files have less than 1 MB
_MAX_TEXT_BYTES = 1 << 20
_ALIGNMENT = 64  # bytes, of a storage in the zip file, as in PyTorch
_DATE = (1980, 1, 1, 0, 0, 0)  # constant, so that the same weights give the same file


@dataclasses.dataclass(frozen=True)
class TorchFile:
  """The weights of a PyTorch file.

  Attributes:
    weights: arrays by name, in the file's order; read-only and memory-mapped.
    is_lightning: whether it is a checkpoint of PyTorch Lightning (weights under 'state_dict').
    step: number of optimizer steps if the file has it, else 0.
    spec_json: `spec_json` of `write_torch`; None for a file of another program.
  """

  weights: dict[str, np.ndarray]
  is_lightning: bool
  step: int
  spec_json: str | None = None


def is_torch_file(path: str | os.PathLike) -> bool:
  """Return whether a file starts like a PyTorch file; False if it cannot be read."""
  try:
    with open(path, 'rb') as file:
      start = file.read(16)
  except OSError:
    return False
  return start.startswith(b'PK\x03\x04') or (start[:1] == b'\x80' and b'\x8a\x0a' in start)


def read_torch(path: str | os.PathLike) -> TorchFile:
  """Read the weights of a PyTorch file: a state dict, or a Lightning checkpoint.

  Raises:
    UserError: it is not a PyTorch file, is broken, has no weights, or its pickle uses anything but tensors.
  """
  path = Path(path)
  try:
    tree, open_storage, spec_json = _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
    tree = tree if isinstance(tree, dict) else {}
    is_lightning = isinstance(tree.get(STATE_DICT), dict)
    tensors = tree[STATE_DICT] if is_lightning else tree
    tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    check_expansion(sum(map(_float32_bytes, tensors.values())), path.stat().st_size, ratio=8)
    weights = {name: _array(tensor, open_storage) for name, tensor in tensors.items()}
  except RejectedError as error:
    raise UserError(
      f'{path}: rejected, because its pickle {error}, which weights do not need; none of its code was run. '
      'Download the file from its publisher'
    ) from error
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or error}') from error
  except Exception as error:  # a broken pickle can raise any exception
    raise UserError(
      f'{path}: not a PyTorch file of weights, or damaged ({first_line(error)}); download it again'
    ) from error
  if not weights:
    raise UserError(f'{path}: no weights found; it must be a state dict, or have one under {STATE_DICT!r}')
  step = tree.get('global_step') if is_lightning else 0
  return TorchFile(weights, is_lightning, step if type(step) is int and step >= 0 else 0, spec_json)


def _read_zip(path: Path):
  """Read a zip file: (tree, function that opens a Storage as an array, text of SPEC_NAME or None)."""
  with zipfile.ZipFile(path) as archive:
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise ValueError('it has no data.pkl')
    folder = pickles[0].removesuffix('data.pkl')
    tree, _, _ = unpickle(_member(archive, members[pickles[0]], _MAX_PICKLE_BYTES))

    def text(name, default):
      info = members.get(f'{folder}{name}')
      return default if info is None else _member(archive, info, _MAX_TEXT_BYTES).decode()

    order, spec_json = text('byteorder', 'little').strip(), text(SPEC_NAME, None)

  def open_storage(storage: Storage) -> np.ndarray:
    info = members.get(f'{folder}data/{storage.key}')
    if info is None:
      raise ValueError(f'storage {storage.key} is missing')
    if info.compress_type != zipfile.ZIP_STORED or info.file_size < storage.size * storage.dtype.itemsize:
      raise ValueError(f'storage {storage.key} is compressed or truncated')
    with path.open('rb') as file:
      file.seek(info.header_offset)
      header = file.read(30)
      name_size, extra_size = struct.unpack('<HH', header[26:30])
    return _map(path, info.header_offset + 30 + name_size + extra_size, storage, order == 'big')

  return tree, open_storage, spec_json


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
  """Return the content of a member; ValueError if it is larger than `most` bytes, or unusually compressed."""
  if info.file_size > most or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(f'its {info.filename.rpartition("/")[2]!r:.80} is too large, or compressed in an unknown way')
  return archive.read(info)


def _read_stream(path: Path):
  """Read a file of before PyTorch 1.6: (tree, function that opens a Storage as an array, None)."""
  with path.open('rb') as file:

    def read_pickle(most=1 << 16):
      start = file.tell()
      value, found, size = unpickle(file.read(most))
      file.seek(start + size)
      return value, found

    if read_pickle()[0] != _STREAM_MAGIC or read_pickle()[0] != _STREAM_VERSION:
      raise ValueError('it has no magic number')
    system, _ = read_pickle()
    tree, storages = read_pickle(_MAX_PICKLE_BYTES)
    keys, _ = read_pickle(_MAX_PICKLE_BYTES)
    begin = file.tell()
  is_big = isinstance(system, dict) and system.get('little_endian') is False
  offsets = {}

  def open_storage(storage: Storage) -> np.ndarray:
    if not offsets:
      offsets.update(_stream_offsets(path, begin, keys, storages, is_big))
    if storage.key not in offsets:
      raise ValueError(f'storage {storage.key} is missing')
    return _map(path, offsets[storage.key], storage, is_big)

  return tree, open_storage, None


def _stream_offsets(path, begin, keys, storages, is_big) -> dict[str, int]:
  """Return the byte offset of each storage in a stream; an 8-byte element count precedes each."""
  if not isinstance(keys, list):
    raise ValueError('it has no list of storages')
  offsets, offset = {}, begin
  with path.open('rb') as file:
    for key in keys:
      file.seek(offset)
      (count,) = struct.unpack('>q' if is_big else '<q', file.read(8))
      if not isinstance(key, str) or key not in storages or count < 0:
        raise ValueError('a storage belongs to no tensor')
      offsets[key] = offset + 8
      offset += 8 + count * storages[key].dtype.itemsize
  return offsets


def _map(path: Path, offset: int, storage: Storage, is_big: bool) -> np.ndarray:
  """Memory-map a storage as an array `[size]`; ValueError if the file is too short."""
  if not storage.size:
    return np.zeros(0, storage.dtype)
  if offset + storage.size * storage.dtype.itemsize > path.stat().st_size:
    raise ValueError('the file is truncated; it may not have been copied completely')
  dtype = storage.dtype.newbyteorder('>') if is_big and storage.dtype.itemsize > 1 else storage.dtype
  return np.memmap(path, dtype, 'r', offset, (storage.size,))


def _float32_bytes(tensor: Tensor) -> int:
  return 4 * math.prod(tensor.shape)


def _array(tensor: Tensor, open_storage) -> np.ndarray:
  numbers = open_storage(tensor.storage)
  if 0 in tensor.shape:
    return np.zeros(tensor.shape, numbers.dtype)
  if math.prod(tensor.shape) > tensor.storage.size:
    raise ValueError('a tensor that repeats the numbers of its storage')
  strides = [stride * numbers.itemsize for stride in tensor.strides]
  # `pickled_tensors` has checked that the view stays within the storage.
  return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)


def write_torch(
  path: str | os.PathLike,
  weights: Mapping[str, np.ndarray],
  copies: Mapping[str, str] | None = None,
  lightning_step: int | None = None,
  spec_json: str | None = None,
) -> None:
  """Write float32 weights as a file that `torch.load(..., weights_only=True)` reads, atomically.

  Args:
    path: the file.
    weights: arrays by name, written one at a time.
    copies: further name -> name of the weight that it shares.
    lightning_step: number of steps of a PyTorch Lightning checkpoint to wrap the weights in; None: a bare state dict.
    spec_json: a text that PyTorch ignores and `read_torch` returns.

  Raises:
    UserError: the file cannot be written.
  """
  keys = {name: str(index) for index, name in enumerate(weights)}
  tensors = {name: (keys[name], np.shape(array)) for name, array in weights.items()}
  tensors |= {name: tensors[original] for name, original in (copies or {}).items()}
  folder = 'archive'
  with atomic_path(path) as temporary, temporary.open('wb') as file, zipfile.ZipFile(file, 'w') as archive:

    def add(name, data):
      info = zipfile.ZipInfo(f'{folder}/{name}', _DATE)
      # PyTorch's padding field, which aligns the data to 64 bytes.
      start = file.tell() + 30 + len(info.filename.encode()) + 4
      info.extra = struct.pack('<HH', 0x4246, -start % _ALIGNMENT) + b'Z' * (-start % _ALIGNMENT)
      with archive.open(info, 'w') as member:
        member.write(data)

    add('data.pkl', _pickle_tensors(tensors, lightning_step))
    add('byteorder', b'little')
    for name, array in weights.items():
      add(f'data/{keys[name]}', memoryview(np.ascontiguousarray(array, '<f4').reshape(-1)).cast('B'))
    if spec_json is not None:
      add(SPEC_NAME, spec_json.encode())
    add('version', b'3\n')


def _pickle_tensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]], lightning_step: int | None) -> bytes:
  """Return a pickle (protocol 2) of `{name: (storage key, shape)}`; Python's pickle module would need torch."""

  def text(value):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data

  def number(value):
    return b'J' + struct.pack('<i', value) if -(1 << 31) <= value < 1 << 31 else b'\x8a\x08' + struct.pack('<q', value)

  def items(values):
    return b'(' + b''.join(values) + b't'

  ordered_dict = b'ccollections\nOrderedDict\n)R'

  def tensor(key, shape):
    strides = [int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape))]
    storage = items([text('storage'), b'ctorch\nFloatStorage\n', text(key), text('cpu'), number(int(np.prod(shape)))])
    arguments = [
      storage + b'Q',
      number(0),
      items(map(number, shape)),
      items(map(number, strides)),
      b'\x89',
      ordered_dict,
    ]
    return b'ctorch._utils\n_rebuild_tensor_v2\n' + items(arguments) + b'R'

  weights = ordered_dict + b'(' + b''.join(text(name) + tensor(*entry) for name, entry in tensors.items()) + b'u'
  if lightning_step is not None:
    entries = {
      'epoch': number(0),
      'global_step': number(lightning_step),
      'pytorch-lightning_version': text('2.0.0'),
      STATE_DICT: weights,
    }
    weights = b'}(' + b''.join(text(name) + value for name, value in entries.items()) + b'u'
  return b'\x80\x02' + weights + b'.'
