"""Reading and writing of PyTorch files (.pth, .pt, .ckpt) with NumPy, without executing code from them.

    zip (since PyTorch 1.6)    <name>/data.pkl, <name>/data/<key> (uncompressed storage of a tensor), <name>/version
    stream (before)            pickles of magic number, version, system, data, storage keys; then the storages

A pickle is a program that can call any function. Its instructions are therefore checked before it is read:

- Names that tensors consist of are mapped to classes of this module.
- Names that training programs store next to their weights are mapped to a class that does nothing.
- A file with any other name is rejected.

Storages are memory-mapped, so that an unused optimizer state costs nothing.
"""

import collections
import dataclasses
import io
import os
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError, first_line
from mrmt3.utils.files import atomic_path

STATE_DICT = 'state_dict'  # key of the weights in PyTorch Lightning's checkpoints
SPEC_NAME = 'mrmt3_model.json'  # member of the zip file, ignored by PyTorch

_DTYPES = {
  'FloatStorage': 'f4',
  'DoubleStorage': 'f8',
  'HalfStorage': 'f2',
  'BFloat16Storage': 'bfloat16',
  'LongStorage': 'i8',
  'IntStorage': 'i4',
  'ShortStorage': 'i2',
  'CharStorage': 'i1',
  'ByteStorage': 'u1',
  'BoolStorage': '?',
}
_STREAM_MAGIC, _STREAM_VERSION = 0x1950A86A20F9469CFC6C, 1001
_MAX_PICKLE_BYTES = 1 << 28  # names and shapes only; published files have less than 1 MB
_MAX_TEXT_BYTES = 1 << 20
_ALIGNMENT = 64  # bytes, of a storage in the zip file, as in PyTorch
_DATE = (1980, 1, 1, 0, 0, 0)  # constant, so that the same weights give the same file

# Opcodes for containers, numbers, strings and global calls; no INST, OBJ, EXT*, BUFFER.
_OPCODES = {
  'PROTO',
  'FRAME',
  'STOP',
  'MARK',
  'POP',
  'POP_MARK',
  'DUP',
  'NONE',
  'NEWTRUE',
  'NEWFALSE',
  'INT',
  'BININT',
  'BININT1',
  'BININT2',
  'LONG',
  'LONG1',
  'LONG4',
  'FLOAT',
  'BINFLOAT',
  'UNICODE',
  'BINUNICODE',
  'SHORT_BINUNICODE',
  'BINUNICODE8',
  'SHORT_BINSTRING',
  'BINSTRING',
  'SHORT_BINBYTES',
  'BINBYTES',
  'EMPTY_LIST',
  'LIST',
  'APPEND',
  'APPENDS',
  'EMPTY_TUPLE',
  'TUPLE',
  'TUPLE1',
  'TUPLE2',
  'TUPLE3',
  'EMPTY_DICT',
  'DICT',
  'SETITEM',
  'SETITEMS',
  'EMPTY_SET',
  'ADDITEMS',
  'FROZENSET',
  'GET',
  'BINGET',
  'LONG_BINGET',
  'PUT',
  'BINPUT',
  'LONG_BINPUT',
  'MEMOIZE',
  'GLOBAL',
  'STACK_GLOBAL',
  'REDUCE',
  'NEWOBJ',
  'NEWOBJ_EX',
  'BUILD',
  'BINPERSID',
}

# Packages of objects that training programs store next to the weights; these objects are ignored.
_IGNORED_PACKAGES = {'numpy', 'omegaconf', 'pytorch_lightning', 'lightning', 'lightning_fabric', 'pathlib', 'argparse'}
_IGNORED = {
  ('_codecs', 'encode'),
  ('torch', 'device'),
  ('torch.serialization', '_get_layout'),
  ('typing', 'Any'),
  ('collections', 'defaultdict'),
  ('collections', 'Counter'),
  *(('builtins', name) for name in ('set', 'dict', 'list', 'int', 'float', 'str', 'bool', 'tuple', 'bytearray')),
  *(
    ('torch', name)
    for name in ('float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8')
  ),
}


class _RejectedError(Exception):
  """The pickle uses something that no checkpoint needs."""


class _Ignored:
  """Placeholder for an ignored object; accepts every operation."""

  __slots__ = ()

  def __new__(cls, *args, **kwargs):
    return object.__new__(cls)

  def __call__(self, *args, **kwargs):
    return self

  def __setstate__(self, state):
    pass

  def __setitem__(self, key, value):
    pass

  def append(self, value):
    pass

  def extend(self, values):
    pass

  def add(self, value):
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class _StorageType:
  dtype: str

  def __setstate__(self, state):
    raise _RejectedError('modifies the reader')


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
  """A buffer of `size` elements in the file."""

  key: str
  dtype: np.dtype
  size: int

  def __setstate__(self, state):
    raise _RejectedError('modifies the reader')


@dataclasses.dataclass(frozen=True, slots=True)
class _Tensor:
  """A view of a storage; offset and strides in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def __setstate__(self, state):
    # Python attributes of nn.Parameter and others, which are not needed.
    pass


class _Function:
  """Replacement of a PyTorch function that a pickle may call. Has a slot, so that a pickle cannot modify it."""

  __slots__ = ('_function',)

  def __init__(self, function):
    self._function = function

  def __call__(self, *args):
    return self._function(*args)

  def __setstate__(self, state):
    raise _RejectedError('modifies the reader')


def _tensor(storage, offset, shape, strides, *_):
  if not isinstance(storage, _Storage):
    raise ValueError('a tensor without a storage')
  shape, strides = tuple(shape), tuple(strides)
  numbers = (offset, *shape, *strides)
  if len(shape) != len(strides) or len(shape) > 8 or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
    raise ValueError('a tensor with an invalid shape')
  last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
  if 0 not in shape and last >= storage.size:
    raise ValueError(f'a tensor that exceeds its storage of {storage.size} elements')
  return _Tensor(storage, offset, shape, strides)


_GLOBALS = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch', 'Size'): _Function(tuple),
  ('torch._utils', '_rebuild_tensor_v2'): _Function(_tensor),
  ('torch._utils', '_rebuild_tensor'): _Function(_tensor),
  ('torch._utils', '_rebuild_parameter'): _Function(lambda tensor, *_: tensor),
  ('torch._utils', '_rebuild_parameter_with_state'): _Function(lambda tensor, *_: tensor),
  ('torch._tensor', '_rebuild_from_type_v2'): _Function(lambda make, _, args, *__: make(*args)),
  **{('torch', name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
}


def _global(module: str, name: str):
  if (module, name) in _GLOBALS:
    return _GLOBALS[module, name]
  if (module, name) in _IGNORED or module.split('.')[0] in _IGNORED_PACKAGES or module.startswith('torch.optim.'):
    return _Ignored
  raise _RejectedError(f'uses {module}.{name}')


class _Unpickler(pickle.Unpickler):
  """Unpickler of a checked pickle; tensors become `_Tensor`."""

  def find_class(self, module, name):
    return _global(module, name)

  def persistent_load(self, reference):
    kind, storage_type, key, _, size, *view = reference
    if kind != 'storage' or not isinstance(storage_type, _StorageType) or type(key) is not str or any(view):
      raise ValueError(f'a reference to {str(kind)[:40]!r}')
    if type(size) is not int or not 0 <= size < 1 << 48:
      raise ValueError('a storage without a size')
    return _Storage(key, _dtype(storage_type.dtype), size)


def _dtype(name: str) -> np.dtype:
  if name == 'bfloat16':
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)
  return np.dtype(name)


def _unpickle(data: bytes):
  """Load a pickle whose instructions are all allowed; raises _RejectedError, or any exception if it is broken."""
  for opcode, argument, _ in pickletools.genops(data):
    if opcode.name not in _OPCODES:
      raise _RejectedError(f'has the instruction {opcode.name}')
    if opcode.name == 'GLOBAL':
      _global(*argument.split(' ', 1))
    elif opcode.name.endswith('PUT') and int(argument) > len(data):
      raise _RejectedError('would exhaust the memory')
  return _Unpickler(io.BytesIO(data)).load()


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
    weights = {k: _array(v, open_storage) for k, v in tensors.items() if isinstance(k, str) and isinstance(v, _Tensor)}
  except _RejectedError as error:
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
  """Read a zip file: (tree, function that opens a _Storage as an array, text of SPEC_NAME or None)."""
  with zipfile.ZipFile(path) as archive:
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise ValueError('it has no data.pkl')
    folder = pickles[0].removesuffix('data.pkl')
    if members[pickles[0]].file_size > _MAX_PICKLE_BYTES:
      raise ValueError('its data.pkl is too large')
    tree = _unpickle(archive.read(pickles[0]))

    def text(name, default):
      info = members.get(f'{folder}{name}')
      return archive.read(info).decode() if info and info.file_size < _MAX_TEXT_BYTES else default

    order, spec_json = text('byteorder', 'little').strip(), text(SPEC_NAME, None)

  def open_storage(storage: _Storage) -> np.ndarray:
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


def _read_stream(path: Path):
  """Read a file of before PyTorch 1.6: (tree, function that opens a _Storage as an array, None)."""
  with path.open('rb') as file:

    def read_pickle():
      start = file.tell()
      for _ in pickletools.genops(file):
        if file.tell() - start > _MAX_PICKLE_BYTES:
          raise ValueError('its pickle is too large')
      size = file.tell() - start
      file.seek(start)
      return _unpickle(file.read(size))

    if read_pickle() != _STREAM_MAGIC or read_pickle() != _STREAM_VERSION:
      raise ValueError('it has no magic number')
    system = read_pickle()
    tree = read_pickle()
    keys = read_pickle()
    begin = file.tell()
  is_big = isinstance(system, dict) and system.get('little_endian') is False
  offsets = {}

  def open_storage(storage: _Storage) -> np.ndarray:
    if not offsets:
      offsets.update(_stream_offsets(path, begin, keys, tree, is_big))
    if storage.key not in offsets:
      raise ValueError(f'storage {storage.key} is missing')
    return _map(path, offsets[storage.key], storage, is_big)

  return tree, open_storage, None


def _stream_offsets(path, begin, keys, tree, is_big) -> dict[str, int]:
  """Return the byte offset of each storage in a stream; an 8-byte element count precedes each."""
  storages = {}
  pending, seen = [tree], set()
  while pending:
    node = pending.pop()
    if isinstance(node, _Tensor):
      storages[node.storage.key] = node.storage
    elif isinstance(node, (dict, list, tuple)) and id(node) not in seen:
      seen.add(id(node))
      pending += node.values() if isinstance(node, dict) else node
  offsets, offset = {}, begin
  with path.open('rb') as file:
    for key in keys:
      file.seek(offset)
      (count,) = struct.unpack('>q' if is_big else '<q', file.read(8))
      if key not in storages or count < 0:
        raise ValueError(f'storage {key} belongs to no tensor')
      offsets[key] = offset + 8
      offset += 8 + count * storages[key].dtype.itemsize
  return offsets


def _map(path: Path, offset: int, storage: _Storage, is_big: bool) -> np.ndarray:
  """Memory-map a storage as an array `[size]`; ValueError if the file is too short."""
  if not storage.size:
    return np.zeros(0, storage.dtype)
  if offset + storage.size * storage.dtype.itemsize > path.stat().st_size:
    raise ValueError('the file is truncated; it may not have been copied completely')
  dtype = storage.dtype.newbyteorder('>') if is_big and storage.dtype.itemsize > 1 else storage.dtype
  return np.memmap(path, dtype, 'r', offset, (storage.size,))


def _array(tensor: _Tensor, open_storage) -> np.ndarray:
  numbers = open_storage(tensor.storage)
  if 0 in tensor.shape:
    return np.zeros(tensor.shape, numbers.dtype)
  strides = [stride * numbers.itemsize for stride in tensor.strides]
  # `_tensor` has checked that the view stays within the storage.
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
