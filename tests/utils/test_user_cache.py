"""The cache folder, and the folder of a user without a home."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mrmt3.utils import user_cache


@pytest.fixture
def homeless(monkeypatch, tmp_path):
  for name in ('MRMT3_CACHE', 'XDG_CACHE_HOME'):
    monkeypatch.delenv(name, raising=False)

  def home():
    raise RuntimeError('Could not determine home directory.')

  monkeypatch.setattr(Path, 'home', home)
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  user_cache._temporary_root.cache_clear()
  yield tmp_path
  user_cache._temporary_root.cache_clear()


def test_the_cache_folder_if_there_is_one(monkeypatch, tmp_path):
  monkeypatch.setenv('MRMT3_CACHE', str(tmp_path / 'own'))
  assert user_cache.cache_root_or_temporary() == user_cache.cache_root() == tmp_path / 'own'


def test_a_shared_temporary_folder_is_not_trusted(homeless):
  homeless.chmod(0o1777)
  (homeless / 'mrmt3').mkdir()  # another user's
  found = user_cache.cache_root_or_temporary()
  assert found == user_cache.cache_root_or_temporary() and found.parent == homeless and found.name != 'mrmt3'
  assert found.stat().st_mode & 0o077 == 0 and found.stat().st_uid == os.getuid()


def test_a_temporary_folder_of_the_user_is_kept(homeless):
  homeless.chmod(0o700)
  assert user_cache.cache_root_or_temporary() == homeless / 'mrmt3'


def test_it_goes_with_the_process(tmp_path):
  tmp_path.chmod(0o1777)
  script = (
    'import pathlib\nfrom mrmt3.utils import user_cache\nuser_cache.cache_root = lambda: None\n'
    'print(user_cache.cache_root_or_temporary().is_dir())\n'
  )
  environment = {**os.environ, 'TMPDIR': str(tmp_path)}
  done = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=True)
  assert done.stdout == 'True\n' and not list(tmp_path.iterdir())
