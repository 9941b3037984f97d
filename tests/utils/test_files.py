import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrmt3.errors import UserError
from mrmt3.utils import files


def write(path, text='new', fail=False):
  with files.atomic_path(path) as temporary:
    assert temporary.suffix == path.suffix
    temporary.write_text(text)
    if fail:
      raise RuntimeError('in the middle')


def test_atomic_path_replaces_only_on_success(tmp_path):
  path = tmp_path / 'new folder' / 'song.json'
  write(path, 'first')
  with pytest.raises(RuntimeError):
    write(path, fail=True)
  assert path.read_text() == 'first'
  write(path, 'second')
  assert path.read_text() == 'second'
  assert [file.name for file in path.parent.iterdir()] == ['song.json']


def test_full_disk_leaves_nothing(tmp_path):
  link = tmp_path / 'song.json'
  link.symlink_to('/dev/full')
  with pytest.raises(UserError, match='No space left'):
    write(link)
  assert link.is_symlink()


@pytest.mark.parametrize('place', ['file/song.json', 'folder'])
def test_invalid_targets_raise_user_errors(tmp_path, place):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder').mkdir()
  with pytest.raises(UserError, match=r'cannot (make|write)'):
    write(tmp_path / place)


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
    with pytest.raises(UserError, match=f'cannot make the folder {folder}: {tmp_path}/file is a file; move it'):
      files.make_folder(folder)


def test_temporary_files_of_a_program_go_with_it(tmp_path):
  script = (
    'import tempfile\nfrom mrmt3.utils import files\nwith files.own_temporary_folder():\n'
    "  open(tempfile.mkstemp(prefix='left')[1]).close()\n  tempfile.mkdtemp()\n  print(tempfile.gettempdir())\n"
    'print(tempfile.gettempdir())\n'
  )
  environment = {**os.environ, 'TMPDIR': str(tmp_path)}
  done = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=True)
  inside, outside = done.stdout.split()
  assert Path(inside).parent == tmp_path and outside == str(tmp_path) and not list(tmp_path.iterdir())
