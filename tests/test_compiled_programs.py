"""What the tests keep from run to run: complete programs only."""

import importlib.util
import zlib

import compiled_programs
import pytest


@pytest.fixture
def kept(tmp_path, monkeypatch):
  monkeypatch.setenv('MRMT3_TEST_CACHE', str(tmp_path / 'kept'))
  monkeypatch.setattr(compiled_programs.atexit, 'register', lambda *args, **kwargs: None)
  return tmp_path / 'kept'


def test_complete_programs_are_kept_for_the_next_run(kept):
  if importlib.util.find_spec('zstandard') or importlib.util.find_spec('compression'):
    content = _zstd(b'abc' * 99)
  else:
    content = zlib.compress(b'abc' * 99)
  run = compiled_programs.start()
  (run / 'jit_f-1-cache').write_bytes(content)
  (run / 'jit_g-2-cache').write_bytes(content[:-3])  # its process was killed
  (run / 'jit_h-3-cache').write_bytes(b'')
  compiled_programs.finish(run, kept)
  assert not run.exists() and [path.name for path in (kept / 'programs').iterdir()] == ['jit_f-1-cache']
  again = compiled_programs.start()
  assert again != run and (again / 'jit_f-1-cache').read_bytes() == content
  compiled_programs.finish(again, kept)
  assert [path.name for path in kept.iterdir()] == ['programs']


def _zstd(content):
  try:
    from compression import zstd
  except ImportError:
    import zstandard as zstd
  return zstd.compress(content)


def test_an_empty_variable_keeps_nothing(kept, monkeypatch):
  monkeypatch.setenv('MRMT3_TEST_CACHE', '')
  run = compiled_programs.start()
  assert run.is_dir() and not kept.exists()
  run.rmdir()
