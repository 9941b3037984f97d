"""PyTorch files without PyTorch. The fixtures were written by PyTorch 2.13, in its zip and its legacy format."""

import io
import pickle
import pickletools
import struct
import time
import zipfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from paths import FIXTURES

from mrmt3.checkpoints import pytorch_files
from mrmt3.errors import UserError

A = np.arange(12, dtype=np.float32).reshape(3, 4)
EXPECTED = {
  'a.weight': A,
  'a.copy': A,
  'turned': A.T,
  'part': A[1:, 1:3],
  'half': A.astype(np.float16),
  'bfloat16': A,
  'count': np.int64(7),
  'empty': np.zeros((0, 2), np.float32),
  'parameter': A[0],
}


@pytest.mark.parametrize('name, prefix', [('torch_zip.ckpt', 'model.'), ('torch_stream.pth', '')])
def test_reads_files_of_pytorch(name, prefix):
  file = pytorch_files.read_torch(FIXTURES / name)
  assert list(file.weights) == [prefix + name for name in EXPECTED]
  for (found, array), expected in zip(file.weights.items(), EXPECTED.values(), strict=True):
    assert array.shape == expected.shape and not (array.size and array.flags.writeable), found
    assert array.dtype.name == ('bfloat16' if 'bfloat16' in found else expected.dtype.name)
    np.testing.assert_array_equal(np.asarray(array, np.float64), np.asarray(expected, np.float64), err_msg=found)
  assert (file.is_lightning, file.step) == ((True, 77) if prefix else (False, 0))
  assert pytorch_files.is_torch_file(FIXTURES / name)
  assert not pytorch_files.is_torch_file(FIXTURES / 't5x_legacy_checkpoint_3.tar.gz')


shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@hypothesis.given(
  st.dictionaries(st.text(min_size=1, max_size=20), shapes, min_size=1, max_size=5), st.integers(0, 1 << 40)
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_weights_round_trip(tmp_path_factory, shapes, step):
  path = tmp_path_factory.mktemp('torch') / 'x.ckpt'
  rng = np.random.default_rng(0)
  weights = {name: rng.normal(size=shape).astype(np.float32).T for name, shape in shapes.items()}
  first = next(iter(weights))
  pytorch_files.write_torch(path, weights, {f'{first} again': first}, lightning_step=step)
  file = pytorch_files.read_torch(path)
  assert (file.is_lightning, file.step) == (True, step)
  assert file.weights.keys() == weights.keys() | {f'{first} again'}
  for name, array in weights.items():
    np.testing.assert_array_equal(file.weights[name], array)
  np.testing.assert_array_equal(file.weights[f'{first} again'], weights[first])


def test_files_are_deterministic_and_aligned(tmp_path):
  for name in ('a.pth', 'b.pth'):
    pytorch_files.write_torch(tmp_path / name, {'x': A, 'y': A[0]})
  content = (tmp_path / 'a.pth').read_bytes()
  assert content == (tmp_path / 'b.pth').read_bytes()
  assert content.index(A.tobytes()) % 64 == 0


def zip_file(path, pickled, **members):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickled)
    for name, data in members.items():
      archive.writestr(f'archive/data/{name}', data)


class Evil:
  """Calls a function when Python unpickles it."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


def exploits(marker):
  """Yield pickles that would create `marker`, or harm the reader."""
  import builtins
  import os

  yield pickle.dumps({'a': Evil(os.system, f'touch {marker}')}, 2)
  yield pickle.dumps({'a': Evil(builtins.eval, f'open({str(marker)!r}, "w")')}, 4)
  yield pickle.dumps({'a': Evil(getattr, {}, '__class__')}, 2)
  yield b'\x80\x02cbuiltins\nexec\nX' + struct.pack('<I', 4) + b'1+1\n' + b'\x85R.'
  yield b"(S'touch " + str(marker).encode() + b"'\nios\nsystem\n."  # INST
  yield b'\x80\x02cos\nsystem\n.'  # a global without a call
  yield b'\x80\x02cmrmt3.files\natomic_path\n.'
  yield b'\x80\x02ctorch.hub\nload\n.'
  yield b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00xK\x01sb.'  # modifies a function of the reader
  yield b'\x80\x02ctorch\nFloatStorage\nN}X\x05\x00\x00\x00dtypeX\x01\x00\x00\x00Os\x86b.'
  yield b'\x80\x02}r\xff\xff\xff\x7f.'  # a memo of 16 GB


@pytest.mark.parametrize('number', range(11))
@pytest.mark.parametrize('as_stream', [False, True])
def test_malicious_pickles_are_rejected(tmp_path, number, as_stream):
  marker = tmp_path / 'ran'
  pickled = list(exploits(marker))[number]
  path = tmp_path / 'x.pth'
  if as_stream:
    parts = [pytorch_files._STREAM_MAGIC, pytorch_files._STREAM_VERSION, {'little_endian': True}]
    path.write_bytes(b''.join(pickle.dumps(part, 2) for part in parts) + pickled + pickle.dumps([], 2))
  else:
    zip_file(path, pickled)
  with pytest.raises(UserError, match='rejected') as error:
    pytorch_files.read_torch(path)
  assert '\n' not in str(error.value)
  assert not marker.exists()
  # The reader is unchanged.
  assert list(pytorch_files.read_torch(FIXTURES / 'torch_zip.ckpt').weights)


def test_python_unpickles_the_malicious_object(tmp_path):
  marker = tmp_path / 'ran'
  pickle.loads(next(exploits(marker)))
  assert marker.exists(), 'the exploit does nothing, so the test above proves nothing'


def test_objects_of_training_programs_are_ignored(tmp_path):
  objects = b'comegaconf.dictconfig\nDictConfig\n)\x81}X\x01\x00\x00\x00aK\x01sb'
  tensors = pytorch_files._pickle_tensors({'w': ('0', (2,))}, None)[2:-1]
  pickled = b'\x80\x02}(' + b'X\x05\x00\x00\x00hyper' + objects + b'X\x0a\x00\x00\x00state_dict' + tensors + b'u.'
  zip_file(tmp_path / 'x.ckpt', pickled, **{'0': np.float32([1, 2]).tobytes()})
  np.testing.assert_array_equal(pytorch_files.read_torch(tmp_path / 'x.ckpt').weights['w'], [1, 2])


def tensor_pickle(offset, shape, strides, size=4):
  def number(n):
    return b'J' + struct.pack('<i', n)

  storage = (
    b'((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu' + number(size) + b'tQ'
  )
  numbers = number(offset) + b'(' + b''.join(map(number, shape)) + b't(' + b''.join(map(number, strides)) + b't'
  make = b'ctorch._utils\n_rebuild_tensor_v2\n' + storage + numbers + b'\x89NtR'
  return b'\x80\x02}X\x01\x00\x00\x00w' + make + b's.'


@pytest.mark.parametrize(
  'offset, shape, strides, size',
  [
    (1, (4,), (1,), 4),
    (0, (2, 2), (3, 1), 4),
    (-1, (2,), (1,), 4),
    (0, (2,), (-1,), 4),
    (0, (2,), (1 << 30,), 4),
    (0, (5,), (1,), 5),
  ],
)
def test_tensors_beyond_their_storage_are_rejected(tmp_path, offset, shape, strides, size):
  zip_file(tmp_path / 'x.pth', tensor_pickle(offset, shape, strides, size), **{'0': bytes(16)})
  with pytest.raises(UserError, match='damaged'):
    pytorch_files.read_torch(tmp_path / 'x.pth')


def test_a_valid_tensor_of_that_kind_is_read(tmp_path):
  zip_file(tmp_path / 'x.pth', tensor_pickle(1, (3,), (1,)), **{'0': A[0].tobytes()})
  np.testing.assert_array_equal(pytorch_files.read_torch(tmp_path / 'x.pth').weights['w'], [1, 2, 3])


@pytest.mark.parametrize('name', ['torch_zip.ckpt', 'torch_stream.pth'])
def test_broken_files_are_one_line(tmp_path, name):
  content = (FIXTURES / name).read_bytes()
  path = tmp_path / name
  rng = np.random.default_rng(0)
  for size in rng.integers(1, len(content), 30):
    path.write_bytes(content[:size])
    try:
      pytorch_files.read_torch(path)
    except UserError as error:
      assert '\n' not in str(error) and str(path) in str(error)
  for _ in range(60):
    broken = bytearray(content)
    for place in rng.integers(0, len(content), 3):
      broken[place] = rng.integers(256)
    path.write_bytes(broken)
    try:
      for array in pytorch_files.read_torch(path).weights.values():
        np.asarray(array, np.float32).sum()
    except UserError as error:
      assert '\n' not in str(error)


@pytest.mark.parametrize('content, message', [(b'', 'not a PyTorch file'), (b'junk' * 9, 'not a PyTorch file')])
def test_invalid_files(tmp_path, content, message):
  (tmp_path / 'x').write_bytes(content)
  with pytest.raises(UserError, match=message):
    pytorch_files.read_torch(tmp_path / 'x')
  with pytest.raises(UserError, match='cannot read'):
    pytorch_files.read_torch(tmp_path / 'none')


def test_no_weights_and_compressed_weights(tmp_path):
  zip_file(tmp_path / 'x.pth', pickle.dumps({'a': 1}, 2))
  with pytest.raises(UserError, match='no weights'):
    pytorch_files.read_torch(tmp_path / 'x.pth')
  with zipfile.ZipFile(tmp_path / 'y.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', tensor_pickle(0, (4,), (1,)))
    archive.writestr('archive/data/0', bytes(16))
  with pytest.raises(UserError, match='compressed'):
    pytorch_files.read_torch(tmp_path / 'y.pth')


def test_full_disk_and_a_file_in_place_of_the_folder(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot make the folder'):
    pytorch_files.write_torch(tmp_path / 'file' / 'x.pth', {'x': A})
  with pytest.raises(UserError, match='No space left'):
    pytorch_files.write_torch('/dev/full', {'x': A})


def test_written_pickle_is_allowed_by_weights_only():
  pickled = pytorch_files._pickle_tensors({'w': ('0', (2, 3))}, 5)
  asked = {argument for opcode, argument, _ in pickletools.genops(io.BytesIO(pickled)) if opcode.name == 'GLOBAL'}
  assert asked == {'collections OrderedDict', 'torch FloatStorage', 'torch._utils _rebuild_tensor_v2'}


def text(value):
  return b'X' + struct.pack('<I', len(value)) + value.encode()


def nested(start, step, depth=200_000):
  return start + step * depth


def shared(depth=60):
  """Instructions that leave a list of two references to a list of two references to ..., 2 ** depth in all."""
  return b']' + b''.join(b'q' + bytes([i]) + b'](h' + bytes([i]) + b'h' + bytes([i]) + b'e' for i in range(depth))


def shared_tuples(depth=60):
  return b')' + b'2\x86' * depth


STORAGE = b'ctorch\nFloatStorage\n' + text('0') + text('cpu') + b'K\x04t'
LONG = b'(' + b'N' * 200_000

STREAM_START = b''.join(
  pickle.dumps(part, 2)
  for part in (pytorch_files._STREAM_MAGIC, pytorch_files._STREAM_VERSION, {'little_endian': True})
)
BOMBS = {
  'shared lists as the kind of a reference': b'(' + shared() + STORAGE + b'Q.',
  'shared tuples as the kind of a reference': b'(' + shared_tuples() + STORAGE + b'Q.',
  'shared tuples as a key': b'}' + shared_tuples() + b'Ns.',
  'shared frozensets as a key': b'}(\x91' + b''.join(b'q\x00(h\x00h\x00h\x00\x86\x91' for _ in range(60)) + b'Ns.',
  'shared tuples in a set': b'\x8f(' + shared_tuples() + b'\x90.',
  'shared tuples as the name of a weight': b'}' + shared_tuples() + tensor_pickle(0, (4,), (1,))[9:-2] + b's.',
  'shared lists as a shape': b'}'
  + text('w')
  + b'ctorch._utils\n_rebuild_tensor_v2\n(('
  + text('storage')
  + STORAGE
  + b'QK\x00'
  + shared()
  + shared()
  + b'tR'
  + b's.',
  'shared lists as a storage key': b'(' + text('storage') + b'ctorch\nFloatStorage\n' + shared() + b'NK\x04tQ.',
  'deep lists': nested(b']', b'\x85') + b'.',
  'deep tuples as a key': b'}' + nested(b')', b'\x85') + b'Ns.',
  'many instructions': b'N0' * 10_000_000 + b'.',
  'many objects': b'(' + b'}' * 20_000_000 + b't.',
  'copies of a long list': LONG + b'lq\x000' + b'ctorch\nSize\nh\x00\x85R0' * 5000 + b'.',
  'dictionaries of a long list': LONG + b'lq\x000' + b'ccollections\nOrderedDict\nh\x00\x85R0' * 5000 + b'.',
  'states of a long dictionary': b'}('
  + b''.join(text(str(i)) + b'N' for i in range(100_000))
  + b'uq\x000'
  + b'ccollections\nOrderedDict\n)Rh\x00b0' * 5000
  + b'.',
  'types of types': b'ctorch._tensor\n_rebuild_from_type_v2\nq\x000h\x00(h\x00N)t' + b'h\x00N\x87' * 1000 + b'R.',
  'a long number': b'L' + b'9' * 10_000_000 + b'L\n.',
  'a long binary number': b'\x8b' + struct.pack('<I', 30_000_000) + b'\x7f' * 30_000_000 + b'.',
  'text of 2 GB': b'X\xff\xff\xff\x7f.',
  'bytes of 2 ** 62': b'\x8e' + struct.pack('<Q', 1 << 62) + b'.',
  'a name that moves the cursor': b'\x80\x04' + text('os\x1b[2J\n' * 1000) + text('x') + b'\x93.',
  'the same name twice': b'}' + (text('w') + tensor_pickle(0, (4,), (1,))[9:-2] + b's') * 2 + b'.',
  'a mark as an object': b'(\x85.',
  'an empty stack': b'0.',
  'no end': b'N',
}


@pytest.mark.parametrize('name', BOMBS)
@pytest.mark.parametrize('as_stream', [False, True])
def test_pickles_take_bounded_work(tmp_path, name, as_stream):
  path = tmp_path / 'x.pth'
  if as_stream:
    path.write_bytes(STREAM_START + b'\x80\x02' + BOMBS[name] + b'\x80\x02].')
  else:
    zip_file(path, b'\x80\x02' + BOMBS[name], **{'0': bytes(16)})
  start = time.process_time()
  with pytest.raises(UserError) as error:
    pytorch_files.read_torch(path)
  message = str(error.value)
  assert message.isprintable() and len(message) < 500 and str(path) in message
  assert time.process_time() - start < 20


@pytest.mark.parametrize('keys', [shared() + b'.', b']' + shared() + b'a.', b'}.', b'](' + b'K\x01' * 9 + b'e.'])
def test_storage_keys_of_a_stream_are_text(tmp_path, keys):
  (tmp_path / 'x.pth').write_bytes(STREAM_START + tensor_pickle(0, (4,), (1,)) + b'\x80\x02' + keys + bytes(100))
  with pytest.raises(UserError, match='storage'):
    pytorch_files.read_torch(tmp_path / 'x.pth')


def test_entries_under_other_keys_than_text_are_ignored(tmp_path):
  tensor = tensor_pickle(0, (4,), (1,))[9:-2]
  others = b''.join(key + b'Ns' for key in (b'K\x01', b')', b'K\x01K\x02\x86', b']', b'N'))
  zip_file(tmp_path / 'x.pth', b'\x80\x02}' + others + text('w') + tensor + b's.', **{'0': A[0].tobytes()})
  assert list(pytorch_files.read_torch(tmp_path / 'x.pth').weights) == ['w']


@pytest.mark.parametrize('shape, strides', [((1 << 40,), (0,)), ((1 << 20, 4), (0, 1)), ((3, 2), (1, 1))])
def test_tensors_that_repeat_numbers_are_rejected(tmp_path, shape, strides):
  """A view of 16 bytes that would become terabytes when it is copied."""
  zip_file(tmp_path / 'x.pth', wide_tensor_pickle(shape, strides), **{'0': bytes(16)})
  with pytest.raises(UserError, match=r'repeats|declares'):
    pytorch_files.read_torch(tmp_path / 'x.pth')


def wide_tensor_pickle(shape, strides):
  def numbers(values):
    return b'(' + b''.join(b'\x8a\x08' + struct.pack('<q', n) for n in values) + b't'

  reference = b'((' + text('storage') + STORAGE + b'Q'
  arguments = reference + b'K\x00' + numbers(shape) + numbers(strides) + b'\x89Nt'
  return b'\x80\x02}' + text('w') + b'ctorch._utils\n_rebuild_tensor_v2\n' + arguments + b'Rs.'


def test_many_names_of_one_large_storage_are_rejected(tmp_path):
  weights = {'a': np.zeros(1 << 20, np.float32)}
  pytorch_files.write_torch(tmp_path / 'x.pth', weights, {f'copy {i}': 'a' for i in range(100)})
  with pytest.raises(UserError, match='declares 423,624,704 bytes'):
    pytorch_files.read_torch(tmp_path / 'x.pth')


@pytest.mark.parametrize('method', [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_bombs_are_rejected(tmp_path, method):
  with zipfile.ZipFile(tmp_path / 'x.pth', 'w', method) as archive:
    archive.writestr('archive/data.pkl', bytes(pytorch_files._MAX_PICKLE_BYTES + 1))
  with pytest.raises(UserError, match=r'data\.pkl. is too large'):
    pytorch_files.read_torch(tmp_path / 'x.pth')


@pytest.mark.parametrize('name', ['../data.pkl', '/data.pkl', '../../data.pkl', 'a/../../data.pkl'])
def test_names_that_lead_out_of_a_zip_file_write_nothing(tmp_path, name):
  folder = tmp_path / 'inside'
  folder.mkdir()
  with zipfile.ZipFile(folder / 'x.pth', 'w') as archive:
    archive.writestr(name, tensor_pickle(0, (4,), (1,)))
    archive.writestr(f'{name.removesuffix("data.pkl")}data/0', bytes(16))
    archive.writestr('../evil', b'x')
  try:
    assert list(pytorch_files.read_torch(folder / 'x.pth').weights) == ['w']
  except UserError as error:
    assert 'data.pkl' in str(error)
  assert [path.name for path in tmp_path.rglob('*')] == ['inside', 'x.pth']
