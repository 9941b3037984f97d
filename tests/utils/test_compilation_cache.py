import os
import subprocess
import sys

import pytest

from mrmt3.utils import compilation_cache


def fill(folder, sizes):
  folder.mkdir()
  for age, size in enumerate(sizes):
    (folder / f'{age}-cache').write_bytes(bytes(size))
    os.utime(folder / f'{age}-cache', (1e9 - age, 1e9 - age))


def left(folder):
  return sorted(int(path.name.split('-')[0]) for path in folder.iterdir())


def test_the_oldest_programs_are_removed_above_the_limit(tmp_path):
  fill(tmp_path / 'programs', [100] * 10)
  compilation_cache.prune(tmp_path / 'programs', 1000)
  assert left(tmp_path / 'programs') == list(range(10))
  compilation_cache.prune(tmp_path / 'programs', 999)
  assert left(tmp_path / 'programs') == [0, 1, 2, 3]


def test_recently_read_programs_are_kept(tmp_path):
  fill(tmp_path / 'programs', [10, 10, 10])
  os.utime(tmp_path / 'programs' / '2-cache', (2e9, 1e9 - 2))
  compilation_cache.prune(tmp_path / 'programs', 29)
  assert left(tmp_path / 'programs') == [2]


def test_a_missing_folder_is_ignored(tmp_path):
  compilation_cache.prune(tmp_path / 'programs', 0)
  (tmp_path / 'programs').write_text('not a folder')
  compilation_cache.prune(tmp_path / 'programs', 0)
  assert (tmp_path / 'programs').read_text() == 'not a folder'


COMPILE = """
from mrmt3.utils import compilation_cache
compilation_cache.enable()
import jax
print(int(jax.jit(lambda x: x * 2 + 1)(20)))
"""


def compile_once(cache):
  variables = {name: value for name, value in os.environ.items() if name != 'JAX_COMPILATION_CACHE_DIR'}
  done = subprocess.run(
    [sys.executable, '-c', COMPILE],
    env={**variables, 'MRMT3_CACHE': str(cache)},
    capture_output=True,
    text=True,
    check=True,
    timeout=100,
  )
  assert done.stdout == '41\n'
  return done.stderr


@pytest.mark.parametrize('damage', [lambda content: content[: len(content) // 2], lambda _: b'', lambda _: b'x' * 999])
def test_a_damaged_program_is_replaced_with_one_line(tmp_path, damage):
  assert compile_once(tmp_path) == ''
  programs = {path: path.read_bytes() for path in (tmp_path / 'programs').iterdir()}
  assert programs
  for path, content in programs.items():
    path.write_bytes(damage(content))
  output = compile_once(tmp_path)
  assert 'is damaged; it is compiled again' in output and len(output.splitlines()) == 1, output
  assert {path.name for path in (tmp_path / 'programs').iterdir()} == {path.name for path in programs}
  assert compile_once(tmp_path) == ''
