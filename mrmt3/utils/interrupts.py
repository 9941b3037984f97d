"""Ctrl-C: a command ends at once or after a few seconds of cleaning up, with one line and exit code 130.

Python's own KeyboardInterrupt is not enough. Libraries swallow an exception that is raised while they are imported,
Python ignores one in a callback of the garbage collector (JAX has one), the main thread notices a signal only after a
native call such as a compilation, and waiting for other threads at exit has no limit. Therefore

- before and after the work and during an import, the process ends without an exception;
- at work, KeyboardInterrupt is raised, so that `finally` blocks run, and raised again if it was ignored;
- a thread ends the process if it still exists some seconds later, or at the second Ctrl-C.

For programs to install, not for libraries.
"""

# Few imports: an interrupt before `install` is Python's.
import contextlib
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
  import subprocess

EXIT_CODE = 128 + signal.SIGINT  # 130, as shells report a process ended by Ctrl-C
GRACE_SECONDS = 5.0  # for cleaning up
_ENDING_SECONDS = 5.0  # for `end`
_IMPORT_FILE = '<frozen importlib._bootstrap>'

_temporaries: set[Path] = set()
_children: set['subprocess.Popen'] = set()


class _Process:
  """What `install` has set for this process."""

  is_installed = False
  message = 'mrmt3: interrupted'
  stderr = 2  # a copy of the original, which may be redirected for a while
  is_working = False  # whether an interrupt raises KeyboardInterrupt
  is_raised = False  # whether KeyboardInterrupt has been raised
  repeated = 0  # signals that the process has sent itself, and that are still to be read
  ending = threading.Lock()  # held by the thread that ends the process


def install(message: str = _Process.message, grace_seconds: float = GRACE_SECONDS) -> None:
  """Handle SIGINT in this process as described above, unless it is ignored. For the main thread.

  Args:
    message: printed to stderr when the process is interrupted.
    grace_seconds: how long cleaning up may take.
  """
  _Process.is_installed, _Process.message = True, message
  if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # nohup, or a background job
    _Process.stderr = os.dup(2)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The C-level handler writes to the pipe at once, whatever the main thread does.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, grace_seconds), name='interrupts', daemon=True).start()
    signal.signal(signal.SIGINT, _handle)
    sys.unraisablehook = _raise_again
  signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextlib.contextmanager
def held_back() -> Iterator[None]:
  """Hold SIGINT back within the block; a program that replaces this one there (os.exec) gets it in `install`."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def working() -> Iterator[None]:
  """Let an interrupt within the block raise KeyboardInterrupt; the caller then calls `end`."""
  _Process.is_working = True
  try:
    yield
  finally:
    _Process.is_working = False


@contextlib.contextmanager
def removing(path: Path) -> Iterator[None]:
  """Remove a temporary file or folder if the process is ended within the block. The block removes it otherwise."""
  _temporaries.add(path)
  try:
    yield
  finally:
    _temporaries.discard(path)


@contextlib.contextmanager
def killing(child: 'subprocess.Popen') -> Iterator[None]:
  """Kill a child process if this one is ended within the block, which waits for the child."""
  _children.add(child)
  try:
    yield
  finally:
    _children.discard(child)


def end() -> NoReturn:
  """End the process at once with `EXIT_CODE`: kill child processes, remove temporary files, print the message.

  In a process that has not called `install`, such as a test's, the message is printed and SystemExit raised.
  """
  if not _Process.is_installed:
    print(_Process.message, file=sys.stderr)
    raise SystemExit(EXIT_CODE)
  if not _Process.ending.acquire(timeout=_ENDING_SECONDS):  # never released; another thread is at it
    os._exit(EXIT_CODE)
  if multiprocessing := sys.modules.get('multiprocessing'):
    for worker in multiprocessing.active_children():
      worker.kill()
      worker.join(1)  # so that it writes no more
  for child in list(_children):
    child.kill()
  for path in list(_temporaries):
    with contextlib.suppress(OSError):
      shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
  with contextlib.suppress(OSError):
    os.write(_Process.stderr, f'{_Process.message}\n'.encode())
  os._exit(EXIT_CODE)


def _handle(number, frame) -> None:
  if _Process.ending.locked():  # by this thread, maybe
    return
  if not _Process.is_working or _is_importing(frame):
    end()
  if not _Process.is_raised:  # a second one would disturb the cleaning up; the thread ends the process
    _Process.is_raised = True
    raise KeyboardInterrupt


def _raise_again(unraisable) -> None:
  """Repeat a signal whose KeyboardInterrupt was ignored a moment later; report other exceptions as Python does."""
  if not isinstance(unraisable.exc_value, KeyboardInterrupt):
    sys.__unraisablehook__(unraisable)
    return

  def repeat():
    _Process.repeated += 1
    _Process.is_raised = False
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

  timer = threading.Timer(0.01, repeat)  # in this function, it would be ignored as well
  timer.daemon = True
  timer.start()


def _is_importing(frame) -> bool:
  while frame is not None:
    if frame.f_code.co_filename == _IMPORT_FILE:
      return True
    frame = frame.f_back
  return False


def _watch(reader: int, grace_seconds: float) -> None:
  """End the process some seconds after the first SIGINT, or at the second one. Other signals write bytes as well."""
  while os.read(reader, 1)[0] != signal.SIGINT:
    pass
  deadline = time.monotonic() + grace_seconds
  while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
    if os.read(reader, 1)[0] != signal.SIGINT:
      continue
    if not _Process.repeated:
      break
    _Process.repeated -= 1
  end()
