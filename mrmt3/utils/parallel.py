"""Runs a function over many items in several processes, in order."""

import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from mrmt3.errors import UserError

FEWER = 'fewer: --workers 1, or where there is no such option MRMT3_WORKERS=1'
SPAWN_AFTER = 4.0  # s; starting processes takes a few seconds itself


def parallel(function: Callable, items: Sequence, workers: int) -> Iterator:
  """Yields function(item) for all items in order, computed by `workers` processes not far ahead of what is taken.

  UserError where a process dies.
  """
  workers = min(workers, len(items))
  if workers <= 1:
    yield from map(function, items)
    return
  # Not forked: the caller may have threads running.
  pool = concurrent.futures.ProcessPoolExecutor(
    workers, mp_context=multiprocessing.get_context('spawn'), initializer=_prepare_worker
  )
  try:
    waiting, coming = collections.deque(), iter(items)
    while True:
      for item in itertools.islice(coming, 4 * workers - len(waiting)):
        with _interrupts_held_back(), _main_left_alone():
          waiting.append(pool.submit(function, item))
      if not waiting:
        return
      yield waiting.popleft().result()
  except concurrent.futures.process.BrokenProcessPool as error:
    raise UserError(f'a worker process died, perhaps for want of memory; try again with {FEWER}') from error
  except (KeyboardInterrupt, GeneratorExit):
    # Nobody waits for a long score to be read; what is half-made is made anew by the next run.
    for process in list((pool._processes or {}).values()):
      process.kill()
    # One may have died in the middle of a result, whose rest the pool would wait for as long as this process could write it.
    if pool._result_queue is not None:
      pool._result_queue._writer.close()
    raise
  finally:
    pool.shutdown(cancel_futures=True)


def parallel_if_long(function: Callable, items: Sequence, workers: int) -> Iterator:
  """As `parallel`, but begins in this process: small sets are done before others would have started."""
  until = time.monotonic() + SPAWN_AFTER
  for count, item in enumerate(items):
    if workers > 1 and time.monotonic() >= until:
      yield from parallel(function, items[count:], workers)
      return
    yield function(item)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
  """Blocks SIGINT, which new processes inherit: one that is interrupted while it starts can leave the pool hanging."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _main_left_alone() -> Iterator[None]:
  """Keeps new processes from running the caller's script again, which has nothing they need and may have no guard."""
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


def _prepare_worker():
  """Leaves interrupts to the caller, and ends the worker at once where the caller was killed."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def watch():
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def with_bar(iterable: Iterable, total: int | None, what: str, unit: str, progress: bool) -> Iterable:
  """Returns the iterable with a progress bar on stderr, if there is to be one."""
  import tqdm

  return tqdm.tqdm(iterable, total=total, desc=what, unit=unit, disable=None if progress else True)
