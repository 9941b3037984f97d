"""Weights in .npz files: what is declared is checked before memory is taken."""

import io
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pytest

from mrmt3.checkpoints import conversion, npz_files
from mrmt3.errors import UserError

WEIGHTS = {
  'a.weight': np.arange(12, dtype=np.float32).reshape(3, 4),
  'turned': np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
  'scalar': np.float32(2),
  'empty': np.zeros((0, 3), np.float16),
  'count': np.arange(3),
}


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path, save):
  save(tmp_path / 'x.npz', **WEIGHTS)
  found = npz_files.read_npz(tmp_path / 'x.npz')
  assert found.keys() == WEIGHTS.keys()
  for name, array in WEIGHTS.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


def header(shape, descr='<f4', more=''):
  text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, {more}}}"
  text += ' ' * (-(len(text) + 11) % 64) + '\n'
  return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode()


def archive(**members):
  """Return a compressed zip file."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as file:
    for name, content in members.items():
      file.writestr(f'{name}.npy', content)
  return buffer.getvalue()


def bomb(size=10 << 30):
  """Return a small file that declares `size` bytes of zeros, up to the 4 GB that a directory without zip64 can name."""
  start = header(f'({size // 4},)')
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as file:
    file.writestr('w.npy', start + bytes(1 << 20))
  content = bytearray(buffer.getvalue())
  # The sizes in the directory are those of the whole bomb; its data is not needed to see that.
  place = content.index(b'PK\x01\x02')
  content[place + 24 : place + 28] = struct.pack('<I', min(size, 0xFFFFFFFE))
  return bytes(content)


def overlapping(count=2000, size=1 << 20):
  """Return a zip file whose directory names one compressed member many times."""
  whole = archive(w=header(f'({size // 4},)') + bytes(size))
  place, end = whole.index(b'PK\x01\x02'), whole.index(b'PK\x05\x06')
  entry, rest = whole[place:end], bytearray(whole[end:])
  entries = b''.join(entry.replace(b'w.npy', f'{i:05d}'.encode()[-1:] + b'.npy') for i in range(count))
  rest[8:12] = struct.pack('<HH', count, count)
  rest[12:16] = struct.pack('<I', len(entries))
  return whole[:place] + entries + bytes(rest)


def plain(header_bytes):
  return header_bytes + bytes(16)


HOSTILE = {
  'empty': b'',
  'garbage': b'junk' * 1000,
  'npy of 128 TiB': plain(header('(35184372088832,)')),
  'member of 128 TiB': archive(w=plain(header('(35184372088832,)'))),
  'overflowing shape': archive(w=plain(header('(4294967296, 4294967296, 4294967296)'))),
  'long number': archive(w=plain(header('(' + '9' * 5000 + ',)'))),
  'negative shape': archive(w=plain(header('(-2, -2)'))),
  'too short': archive(w=header('(5,)') + bytes(16)),
  'too long': archive(w=header('(3,)') + bytes(16)),
  'nested header': archive(w=header('(' * 4000 + ')' * 4000)),
  'huge header': archive(w=b'\x93NUMPY\x02\x00' + struct.pack('<I', 1 << 31) + bytes(100)),
  'code in the header': archive(w=plain(header('(2, 2)', more="'x': __import__('os')"))),
  'objects': archive(w=header('(1,)', '|O') + pickle.dumps(['x'])),
  'text': archive(w=header('(4,)', '<U1') + bytes(16)),
  'records': archive(w=header('(2,)', [('a', '<f4'), ('b', '<f4')]) + bytes(16)),
  'complex': archive(w=header('(2,)', '<c8') + bytes(16)),
  'zip without arrays': archive(),
  'zip of something else': archive(w=b'text'),
  'bomb of 4 GB': bomb(),
  'bomb of 200 MB': archive(w=header('(52428800,)') + bytes(200 << 20)),
  'overlapping members': overlapping(),
  'lzma': None,
  'twice': None,
}


def write(path, name):
  if name == 'lzma':
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_LZMA) as file:
      file.writestr('w.npy', header('(4,)') + bytes(16))
  elif name == 'twice':
    with zipfile.ZipFile(path, 'w') as file, pytest.warns(UserWarning, match='Duplicate'):
      for value in (0, 1):
        file.writestr('w.npy', header('(4,)') + bytes([value] * 16))
  else:
    path.write_bytes(HOSTILE[name])


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_are_one_line(tmp_path, name):
  path = tmp_path / 'x.npz'
  write(path, name)
  memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
  with pytest.raises(UserError) as error:
    conversion.open_source(path)
  assert '\n' not in str(error.value) and len(str(error.value)) < 500 and str(path) in str(error.value)
  assert time.process_time() - start < 5
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100 << 10, 'more than 100 MB were taken'


def test_damaged_files_are_one_line(tmp_path):
  np.savez_compressed(tmp_path / 'x.npz', **WEIGHTS)
  content = (tmp_path / 'x.npz').read_bytes()
  rng = np.random.default_rng(0)
  for number in range(400):
    broken = bytearray(content[: rng.integers(1, len(content))] if number % 4 == 0 else content)
    for place in rng.integers(0, len(broken), 3):
      broken[place] = rng.integers(256)
    (tmp_path / 'x.npz').write_bytes(broken)
    try:
      npz_files.read_npz(tmp_path / 'x.npz')
    except UserError as error:
      assert '\n' not in str(error)
