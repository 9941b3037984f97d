"""A child process that renders, for the synthesizer and the engraver keep Python's lock while they work.

Requests go to its standard input and results come from its standard output, pickled. It ends when its input does, so
that it never outlives a killed server; one that crashes or takes too long is replaced.
"""

import os
import pickle
import struct
import subprocess
import sys
import threading
from typing import Any

from mrmt3.errors import UserError, first_line

_SIZE = struct.Struct('<Q')
TIMEOUT_SECONDS = 120.0


class RenderProcess:
  """Starts the child when it is first needed, and again if it ends. Calls from several threads take turns."""

  def __init__(self, timeout: float = TIMEOUT_SECONDS):
    """`timeout` is how long a call may take, s."""
    self._timeout, self._lock, self._child = timeout, threading.Lock(), None

  def call(self, function: str, *arguments: Any) -> Any:
    """Return what a function of `web.rendering` returns in the child.

    Raises:
      UserError: that it raised, or the child ended or took too long.
      ModuleNotFoundError: a package is not installed.
    """
    with self._lock:
      child = self._running()
      timer = threading.Timer(self._timeout, child.kill)
      timer.start()
      try:
        _write(child.stdin, (function, arguments))
        error, result = _read(child.stdout)
      except (OSError, EOFError, pickle.UnpicklingError) as failed:
        self._end()
        raise UserError('the notes could not be rendered in time; try fewer notes or a shorter part') from failed
      finally:
        timer.cancel()
    if error is not None:
      raise error
    return result

  def close(self) -> None:
    """End the child."""
    child = self._child
    if child is not None:
      child.kill()
      child.wait()

  def _running(self):
    if self._child is None or self._child.poll() is not None:
      environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
      self._child = subprocess.Popen(
        [sys.executable, '-m', __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
      )
    return self._child

  def _end(self):
    self.close()
    self._child.stdin.close()
    self._child.stdout.close()
    self._child = None


def _write(stream, value):
  data = pickle.dumps(value)
  stream.write(_SIZE.pack(len(data)))
  stream.write(data)
  stream.flush()


def _read(stream):
  size = _exactly(stream, _SIZE.size)
  return pickle.loads(_exactly(stream, _SIZE.unpack(size)[0]))


def _exactly(stream, size):
  data = stream.read(size)
  if len(data) < size:
    raise EOFError
  return data


def main() -> None:
  """Answer requests until the input ends."""
  import signal
  import warnings

  from mrmt3.web import rendering

  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends this process
  warnings.simplefilter('ignore')
  source, target = sys.stdin.buffer, os.fdopen(os.dup(1), 'wb')
  os.dup2(2, 1)  # what a library prints must not disturb the answers
  while True:
    try:
      function, arguments = _read(source)
    except EOFError:
      return
    try:
      answer = None, getattr(rendering, function)(*arguments)
    except (UserError, ModuleNotFoundError) as error:
      answer = error, None
    except Exception as error:
      answer = UserError(f'the notes cannot be rendered ({type(error).__name__}: {first_line(error)})'), None
    _write(target, answer)


if __name__ == '__main__':
  main()
