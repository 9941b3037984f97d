"""Pickles of tensors, interpreted without running code from them, in bounded time and memory.

A pickle is a program. Python's unpickler runs any function that it names, and even without functions it can be made to
hash or print nested containers for years. This interpreter knows the instructions for containers, numbers, text and
calls, and nothing else:

- Names that tensors consist of become `Storage` and `Tensor`.
- Names that training programs store next to their weights become a placeholder that ignores everything.
- A pickle with any other name or instruction is rejected.
- Nothing is hashed but text, and nothing is printed.
- Each instruction and each copied element is counted, and a pickle with more than `MAX_WORK` of them is rejected.

Dictionaries keep the entries with text as the key, which weights have; sets become lists.
"""

import dataclasses
import pickletools

import numpy as np

MAX_WORK = 2_000_000  # instructions and copied elements; a tensor takes about 50

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
# Packages of objects that training programs store next to the weights; these objects are ignored.
_IGNORED_PACKAGES = {'numpy', 'omegaconf', 'pytorch_lightning', 'lightning', 'lightning_fabric', 'pathlib', 'argparse'}
_IGNORED_NAMES = {
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
_MAX_DIMENSIONS = 8
_MAX_NUMBER = 1 << 48  # of sizes, offsets and strides


class RejectedError(Exception):
  """The pickle uses something that no checkpoint needs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
  """A buffer of `size` elements in the file."""

  key: str
  dtype: np.dtype
  size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
  """A view of a storage; offset and strides in elements."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def unpickle(data: bytes) -> tuple[object, dict[str, Storage], int]:
  """Interpret the pickle at the start of `data`.

  Returns:
    (the value, its storages by key, bytes of the pickle).

  Raises:
    RejectedError: it uses what no checkpoint needs.
    Exception: of any type, if it is broken.
  """
  return _Machine(data).run()


@dataclasses.dataclass(frozen=True, slots=True)
class _StorageType:
  dtype: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Function:
  """A function that a pickle may call; the name is that of a method of `_Machine`."""

  name: str


class _Ignored:
  """An object that is not read, and its class."""

  __slots__ = ()


_IGNORED, _MARK = _Ignored(), object()

_GLOBALS = {
  ('collections', 'OrderedDict'): _Function('ordered_dict'),
  ('torch', 'Size'): _Function('size'),
  ('torch._utils', '_rebuild_tensor_v2'): _Function('tensor'),
  ('torch._utils', '_rebuild_tensor'): _Function('tensor'),
  ('torch._utils', '_rebuild_parameter'): _Function('first'),
  ('torch._utils', '_rebuild_parameter_with_state'): _Function('first'),
  ('torch._tensor', '_rebuild_from_type_v2'): _Function('from_type'),
  **{('torch', name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
}
# Opcodes that push their argument, and those that push a constant.
_PUSH_ARGUMENT = {
  *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'),
  *('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
  *('SHORT_BINSTRING', 'BINSTRING', 'SHORT_BINBYTES', 'BINBYTES'),
}
_PUSH_CONSTANT = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': (), 'MARK': _MARK}
_PUSH_NEW = {'EMPTY_LIST': list, 'EMPTY_SET': list, 'EMPTY_DICT': dict}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_NO_EFFECT = {'PROTO', 'FRAME'}


class _Machine:
  """The stack machine of pickles."""

  def __init__(self, data: bytes):
    self._data = data
    self._stack, self._memo, self._storages = [], {}, {}
    self._work = 0

  def run(self):
    stack = self._stack
    for opcode, argument, position in pickletools.genops(self._data):
      self._spend(1)
      name = opcode.name
      if name in _PUSH_ARGUMENT:
        stack.append(argument)
      elif name in _PUSH_CONSTANT:
        stack.append(_PUSH_CONSTANT[name])
      elif name in _PUSH_NEW:
        stack.append(_PUSH_NEW[name]())
      elif name in _TUPLES:
        stack.append(tuple(self._pop(_TUPLES[name])))
      elif name == 'STOP':
        return self._pop(1)[0], self._storages, position + 1
      elif name not in _NO_EFFECT:
        if name not in _METHODS:
          raise RejectedError(f'has the instruction {name}')
        _METHODS[name](self, argument)
    raise ValueError('a pickle without an end')

  def _spend(self, work: int) -> None:
    self._work += work
    if self._work > MAX_WORK:
      raise RejectedError(f'has more than {MAX_WORK:,} steps')

  def _pop(self, count: int) -> list:
    """Remove and return the topmost objects."""
    taken = self._stack[-count:]
    if len(taken) < count or any(value is _MARK for value in taken):
      raise ValueError('a pickle that takes more than it has')
    del self._stack[-count:]
    return taken

  def _pop_to_mark(self) -> list:
    """Remove and return the objects above the last mark, and remove the mark."""
    taken = []
    while (value := self._stack.pop()) is not _MARK:
      taken.append(value)
    return taken[::-1]

  def _top(self):
    if not self._stack or self._stack[-1] is _MARK:
      raise ValueError('a pickle that takes more than it has')
    return self._stack[-1]

  # Stack and memo.

  def _pop_one(self, _):
    self._stack.pop()

  def _pop_mark(self, _):
    self._pop_to_mark()

  def _dup(self, _):
    self._stack.append(self._top())

  def _put(self, index):
    if int(index) > len(self._data):
      raise RejectedError('would exhaust the memory')
    self._memo[int(index)] = self._top()

  def _memoize(self, _):
    self._memo[len(self._memo)] = self._top()

  def _get(self, index):
    if int(index) not in self._memo:
      raise ValueError('a value that was not stored before')
    self._stack.append(self._memo[int(index)])

  # Containers.

  def _list(self, _):
    self._stack.append(self._pop_to_mark())

  def _tuple(self, _):
    self._stack.append(tuple(self._pop_to_mark()))

  def _dict(self, _):
    values = self._pop_to_mark()
    self._stack.append({})
    self._set_items(values)

  def _append(self, _):
    self._extend(self._pop(1))

  def _appends(self, _):
    self._extend(self._pop_to_mark())

  def _extend(self, values):
    target = self._top()
    if isinstance(target, list):
      target.extend(values)
    elif target is not _IGNORED:
      raise ValueError('an element of something that is not a list')

  def _setitem(self, _):
    self._set_items(self._pop(2))

  def _setitems(self, _):
    self._set_items(self._pop_to_mark())

  def _set_items(self, values):
    target = self._top()
    if len(values) % 2:
      raise ValueError('a key without a value')
    if isinstance(target, dict):
      self._update(target, zip(values[::2], values[1::2], strict=True))
    elif target is not _IGNORED:
      raise ValueError('an entry of something that is not a dictionary')

  def _update(self, target: dict, items) -> None:
    for key, value in items:
      if type(key) is str:
        if key in target:
          raise ValueError(f'two entries are named {key!r:.80}')
        target[key] = value

  # Names, calls and objects.

  def _global(self, argument):
    self._stack.append(_named(*argument.split(' ', 1)))

  def _stack_global(self, _):
    module, name = self._pop(2)
    if type(module) is not str or type(name) is not str:
      raise ValueError('a name that is not text')
    self._stack.append(_named(module, name))

  def _reduce(self, _):
    function, arguments = self._pop(2)
    self._stack.append(self._call(function, arguments))

  def _newobj_ex(self, _):
    function, arguments, _ = self._pop(3)
    self._stack.append(self._call(function, arguments))

  def _call(self, function, arguments):
    if function is _IGNORED:
      return _IGNORED
    if type(function) is not _Function or type(arguments) is not tuple:
      raise ValueError('a call of something that is not a function')
    return getattr(self, f'_make_{function.name}')(*arguments)

  def _build(self, _):
    """Ignore the state of an object: Python attributes, which weights do not need."""
    self._pop(1)
    if type(self._top()) in (_Function, _StorageType, Storage):
      raise RejectedError('modifies the reader')

  def _make_ordered_dict(self, pairs=()):
    if type(pairs) not in (list, tuple):
      raise ValueError('a dictionary of something that is not a list of pairs')
    self._spend(len(pairs))
    if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
      raise ValueError('a dictionary of something that is not a list of pairs')
    made = {}
    self._update(made, pairs)
    return made

  def _make_size(self, numbers=()):
    if type(numbers) not in (list, tuple):
      raise ValueError('a size that is not a list of numbers')
    self._spend(len(numbers))
    return tuple(numbers)

  def _make_first(self, value, *_):
    return value

  def _make_from_type(self, function, _, arguments, *__):
    if function == _Function('from_type'):
      raise ValueError('a tensor of a type of a type')
    return self._call(function, arguments)

  def _make_tensor(self, storage, offset, shape, strides, *_):
    if type(storage) is not Storage:
      raise ValueError('a tensor without a storage')
    shape, strides = self._numbers(shape), self._numbers(strides)
    (offset,) = self._numbers((offset,))
    if len(shape) != len(strides):
      raise ValueError('a tensor with an invalid shape')
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
      raise ValueError(f'a tensor that exceeds its storage of {storage.size} elements')
    return Tensor(storage, offset, shape, strides)

  def _numbers(self, values) -> tuple[int, ...]:
    if type(values) not in (list, tuple) or len(values) > _MAX_DIMENSIONS:
      raise ValueError('a tensor with an invalid shape')
    if not all(type(n) is int and 0 <= n < _MAX_NUMBER for n in values):
      raise ValueError('a tensor with an invalid shape')
    return tuple(values)

  def _binpersid(self, _):
    (reference,) = self._pop(1)
    if type(reference) is not tuple or not 5 <= len(reference) <= 6:
      raise ValueError('a reference to something that is not a storage')
    kind, storage_type, key, _, size, *view = reference
    if type(kind) is not str or kind != 'storage' or type(storage_type) is not _StorageType or type(key) is not str:
      raise ValueError('a reference to something that is not a storage')
    if any(part is not None for part in view):
      raise ValueError('a reference to a part of a storage')
    (size,) = self._numbers((size,))
    storage = Storage(key, _dtype(storage_type.dtype), size)
    if self._storages.setdefault(key, storage).dtype != storage.dtype:
      raise ValueError('a storage of two types')
    self._stack.append(storage)


_METHODS = {
  'POP': _Machine._pop_one,
  'POP_MARK': _Machine._pop_mark,
  'DUP': _Machine._dup,
  **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT'), _Machine._put),
  'MEMOIZE': _Machine._memoize,
  **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), _Machine._get),
  'LIST': _Machine._list,
  **dict.fromkeys(('TUPLE', 'FROZENSET'), _Machine._tuple),
  'DICT': _Machine._dict,
  'APPEND': _Machine._append,
  **dict.fromkeys(('APPENDS', 'ADDITEMS'), _Machine._appends),
  'SETITEM': _Machine._setitem,
  'SETITEMS': _Machine._setitems,
  'GLOBAL': _Machine._global,
  'STACK_GLOBAL': _Machine._stack_global,
  **dict.fromkeys(('REDUCE', 'NEWOBJ'), _Machine._reduce),
  'NEWOBJ_EX': _Machine._newobj_ex,
  'BUILD': _Machine._build,
  'BINPERSID': _Machine._binpersid,
}


def _named(module: str, name: str):
  """Return what a name of a Python module stands for; RejectedError if no checkpoint needs it."""
  if (module, name) in _GLOBALS:
    return _GLOBALS[module, name]
  package = module.split('.')[0]
  if (module, name) in _IGNORED_NAMES or package in _IGNORED_PACKAGES or module.startswith('torch.optim.'):
    return _IGNORED
  shown = ''.join(c if c.isprintable() else '?' for c in f'{module[:80]}.{name[:80]}')
  raise RejectedError(f'uses {shown}')


def _dtype(name: str) -> np.dtype:
  if name == 'bfloat16':
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)
  return np.dtype(name)
