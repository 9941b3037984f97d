import os

import pytest

from mrmt3.utils import bounded_files


def test_reads_regular_files(tmp_path):
  (tmp_path / 'x').write_bytes(b'1234')
  assert bounded_files.read_bytes(tmp_path / 'x', 4) == b'1234'
  (tmp_path / 'link').symlink_to(tmp_path / 'x')
  assert bounded_files.read_bytes(tmp_path / 'link', 4) == b'1234'


def test_other_files_are_errors_and_do_not_block(tmp_path):
  (tmp_path / 'x').write_bytes(b'1234')
  with pytest.raises(ValueError, match='longer than 3 bytes'):
    bounded_files.read_bytes(tmp_path / 'x', 3)
  os.mkfifo(tmp_path / 'pipe')
  for path in (tmp_path / 'pipe', '/dev/zero', tmp_path):
    with pytest.raises(OSError, match='not a regular file'):
      bounded_files.read_bytes(path, 10)
