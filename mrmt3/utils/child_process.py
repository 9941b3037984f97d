"""Commands in child processes that end when their parent does, however it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from mrmt3.utils import interrupts

_VARIABLE = 'MRMT3_PARENT_PIPE'  # the read end of a pipe of which only the parent has the other end


def run(module: str, arguments: Sequence[str], keep_open: Sequence[int] = ()) -> tuple[int, float]:
  """Run `python -m module` to its end, with the standard streams of this process.

  If this process is interrupted, so is the child, and its end is awaited. If this process is killed, the child receives
  SIGTERM; the module must call `follow_parent`.

  Args:
    module: name of the module.
    arguments: its arguments.
    keep_open: file descriptors that the child inherits.

  Returns:
    (exit code, as subprocess has it; the child's peak memory in MB).
  """
  reader, writer = os.pipe()
  try:
    process = subprocess.Popen(
      [sys.executable, '-m', module, *arguments],
      pass_fds=[*keep_open, reader],
      env={**os.environ, _VARIABLE: str(reader)},
    )
    with interrupts.killing(process):
      try:
        _, status, usage = os.wait4(process.pid, 0)  # wait4 returns the peak memory of this child alone
      except BaseException as error:
        process.send_signal(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
          os.wait4(process.pid, 0)
        process.returncode = -signal.SIGTERM
        raise
  finally:
    os.close(reader)
    os.close(writer)
  process.returncode = os.waitstatus_to_exitcode(status)
  return process.returncode, usage.ru_maxrss / 1024


def follow_parent() -> None:
  """Send this process SIGTERM when its parent has ended, if the parent started it with `run`."""
  if number := os.environ.pop(_VARIABLE, ''):
    threading.Thread(target=_watch, args=(int(number),), name='parent', daemon=True).start()


def _watch(reader: int) -> None:
  with contextlib.suppress(OSError):
    os.read(reader, 1)
    os.kill(os.getpid(), signal.SIGTERM)
