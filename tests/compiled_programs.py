"""The programs that tests compile: kept from one run to the next, and forgotten where a process holds too many.

The folder is $MRMT3_TEST_CACHE, else `mrmt3-tests` in the user's cache folder; an empty variable keeps nothing. A run
works in a folder of its own, which begins with links to the programs kept so far. Its new programs are kept at its end,
if they are complete: tests kill processes, also while they write a program.
"""

import atexit
import contextlib
import ctypes
import gc
import os
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path

# Without optimization, and without the emitters of fused loops: 2 to 3 times less work for the compiler.
XLA_FLAGS = (
  ()
  if os.environ.get('MRMT3_TEST_OPTIMIZED')
  else (
    '--xla_backend_optimization_level=0',
    '--xla_cpu_use_fusion_emitters=false',
  )
)
MAX_BYTES = 2**30  # what is kept
MAX_RESIDENT_BYTES = 1200 * 2**20  # of a process, before it forgets its programs
MAX_MAPS = 10000  # likewise; the kernel allows 65,530
_limit = MAX_RESIDENT_BYTES  # grows with what the process needs besides programs
_DAY = 24 * 3600


def folder() -> Path | None:
  """Return the folder in which programs are kept, or None."""
  named = os.environ.get('MRMT3_TEST_CACHE')
  if named is not None:
    return Path(named) if named else None
  return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mrmt3-tests'


def start() -> Path:
  """Make the folder for this run's programs, and keep the new ones when this process ends. Returns the folder."""
  kept = folder()
  try:
    if kept is None:
      raise OSError
    (kept / 'programs').mkdir(parents=True, exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix='run-', dir=kept))
    for path in (kept / 'programs').iterdir():
      os.link(path, run / path.name)
  except OSError:  # a folder that cannot be written, or that knows no links
    run = Path(tempfile.mkdtemp(prefix='mrmt3-test-jax-'))
    atexit.register(shutil.rmtree, run, ignore_errors=True)
    return run
  atexit.register(finish, run, kept)
  return run


def finish(run: Path, kept: Path) -> None:
  """Keep the complete programs of a run, up to MAX_BYTES of the latest used ones, and remove its folder."""
  for path in run.glob('*-cache'):
    with contextlib.suppress(OSError):
      if path.stat().st_nlink == 1 and _complete(path.read_bytes()):
        path.rename(kept / 'programs' / path.name)
  shutil.rmtree(run, ignore_errors=True)
  for left in kept.glob('run-*'):  # of runs that were killed
    with contextlib.suppress(OSError):
      if left.stat().st_mtime < time.time() - _DAY:
        shutil.rmtree(left, ignore_errors=True)
  from mrmt3.utils.compilation_cache import prune

  prune(kept / 'programs', MAX_BYTES)


def _complete(content: bytes) -> bool:
  """Whether the end of a compressed program is there. JAX compresses with zstd where it can, else with zlib."""
  try:
    try:
      from compression import zstd

      zstd.decompress(content)
    except ImportError:
      try:
        import zstandard

        zstandard.ZstdDecompressor().decompress(content)
      except ImportError:
        zlib.decompress(content)
  except Exception:
    return False
  return True


def forget_many() -> None:
  """Free the memory of compiled programs if this process holds more than MAX_RESIDENT_BYTES or MAX_MAPS."""
  global _limit
  if 'jax' not in sys.modules or not os.path.exists('/proc/self/statm'):
    return
  if _resident_bytes() <= _limit and _maps() <= MAX_MAPS:
    return
  sys.modules['jax'].clear_caches()
  gc.collect()
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL('libc.so.6').malloc_trim(0)
  _limit = max(MAX_RESIDENT_BYTES, _resident_bytes() + 300 * 2**20)


def _resident_bytes() -> int:
  with open('/proc/self/statm') as lines:
    return int(lines.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def _maps() -> int:
  with open('/proc/self/maps', 'rb') as lines:
    return sum(1 for _ in lines)
