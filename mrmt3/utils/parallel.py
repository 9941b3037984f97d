"""Ordered map over several processes."""

import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from mrmt3.errors import UserError
from mrmt3.utils import interrupts
from mrmt3.utils.warning_lines import show_as_lines

FEWER = 'fewer processes: --workers 1, or MRMT3_WORKERS=1 for commands without that option'
SPAWN_AFTER = 4.0  # s; starting processes takes a few seconds


def parallel(function: Callable, items: Sequence, workers: int) -> Iterator:
  """Yield function(item) for all items in order, computed by `workers` processes a bounded number of items ahead.

  Raises UserError if a process dies.
  """
  workers = min(workers, len(items))
  if workers <= 1:
    yield from map(function, items)
    return
  try:  # a folder for the worker processes, which may be killed
    folder = tempfile.TemporaryDirectory(prefix='mrmt3-workers-', ignore_cleanup_errors=True)
  except OSError as error:
    raise UserError(
      f'cannot make a temporary folder ({error.strerror or error}); name another one with TMPDIR'
    ) from error
  with folder:
    yield from _parallel(function, items, workers, folder.name)


def _parallel(function, items, workers, temporary_folder):
  # Spawned, not forked: the caller may have running threads.
  pool = concurrent.futures.ProcessPoolExecutor(
    workers,
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_prepare_worker,
    initargs=(temporary_folder,),
  )
  try:
    pending, remaining = collections.deque(), iter(items)
    while True:
      for item in itertools.islice(remaining, 4 * workers - len(pending)):
        # New processes inherit this: interrupting one while it starts can hang the pool.
        with interrupts.held_back(), _without_main_script():
          pending.append(pool.submit(function, item))
      if not pending:
        return
      yield pending.popleft().result()
  except concurrent.futures.process.BrokenProcessPool as error:
    raise UserError(f'a worker process died, possibly out of memory; try again with {FEWER}') from error
  except (KeyboardInterrupt, GeneratorExit):
    # Do not wait for unfinished items; the next run computes them again.
    for process in list((pool._processes or {}).values()):
      process.kill()
    # A worker may have died while sending a result; the pool would wait for its rest while this process can write.
    if pool._result_queue is not None:
      pool._result_queue._writer.close()
    raise
  finally:
    pool.shutdown(cancel_futures=True)


def parallel_if_long(function: Callable, items: Sequence, workers: int) -> Iterator:
  """Like `parallel`, but starts in this process: small sets are finished before the workers would have started."""
  until = time.monotonic() + SPAWN_AFTER
  for count, item in enumerate(items):
    if workers > 1 and time.monotonic() >= until:
      yield from parallel(function, items[count:], workers)
      return
    yield function(item)


@contextlib.contextmanager
def _without_main_script() -> Iterator[None]:
  """Keep new processes from running the caller's script, which they do not need and which may have no main guard."""
  main = sys.modules['__main__']
  before = {name: getattr(main, name) for name in ('__spec__', '__file__') if hasattr(main, name)}
  try:
    main.__spec__ = None
    if '__file__' in before:
      del main.__file__
    yield
  finally:
    for name, value in before.items():
      setattr(main, name, value)


def _prepare_worker(temporary_folder: str):
  """Leave interrupts and temporary files to the parent, exit at once if it is killed, and warn as commands do."""
  tempfile.tempdir = temporary_folder
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  show_as_lines()
  parent = multiprocessing.parent_process()

  def watch():
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def with_bar(iterable: Iterable, total: int | None, what: str, unit: str, progress: bool) -> Iterable:
  """Wrap an iterable with a progress bar on stderr, unless `progress` is False or stderr is not a terminal."""
  import tqdm

  return tqdm.tqdm(iterable, total=total, desc=what, unit=unit, disable=None if progress else True)
