"""What happens when one of several processes is lost: the others end, within a minute, with a line that says so.

A step is done by all processes together, so those that are left would wait for ever. Beside the training each process comes,
every few seconds, to a barrier of JAX's coordination service; when one does not, the others end. JAX's own heartbeats do
the same a little later, with an abort; when process 0, where the service runs, is lost, they are the first to notice. So an abort
too ends in that line where process 0 does not answer.
"""

import ctypes
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable

HEARTBEAT_SECONDS = 50  # of jax.distributed; 100 by default
EXIT_CODE = 75  # as sysexits.h's EX_TEMPFAIL: start again
PERIOD, PATIENCE = 5.0, 30.0  # seconds between two barriers, and to wait at one
ANSWER_SECONDS = 2.0  # to wait for process 0, when JAX has given up already
END_SECONDS = 86400.0  # to wait for the others at the end; who is lost meanwhile is noticed as ever

_LOST = re.compile(r'\bGloo\b|NCCL|coordination service|Connection (reset|closed)|heartbeat', re.IGNORECASE)


def say_lost(reason: str) -> None:
  """Prints that another process is lost, in one line."""
  print(
    f'mrmt3: error: another process of this run is lost ({reason}); look at the ends of their logs, and start all of them '
    'again to go on from the last checkpoint',
    file=sys.stderr,
    flush=True,
  )


def is_loss(error: BaseException) -> bool:
  """Returns whether an exception says that another process could not be reached, in a run of several."""
  return Watch.running is not None and _LOST.search(str(error)) is not None


class Watch:
  """Looks after the other processes from now on; `jax.distributed` is initialised.

  Attributes:
    running: the process's watch, if there is one.
  """

  running: 'Watch | None' = None

  def __init__(self):
    import jax
    from jax._src import distributed  # the service's barriers are not public yet

    self._client, self._count = distributed.global_state.client, jax.process_count()
    self._ended = threading.Event()
    Watch.running = self
    self._restore_abort = _before_abort(distributed.global_state.coordinator_address)
    threading.Thread(target=self._watch, name='watch', daemon=True).start()

  def _watch(self) -> None:
    number = 0
    while not self._ended.wait(PERIOD):
      try:
        self._client.wait_at_barrier(f'mrmt3_alive_{number}', int(1000 * PATIENCE))
      except Exception as error:
        if self._ended.is_set():
          return
        say_lost(_reason(error))
        os._exit(EXIT_CODE)
      number += 1

  def end(self) -> None:
    """Waits until all processes have come to their end."""
    try:
      self._client.wait_at_barrier('mrmt3_end', int(1000 * END_SECONDS))
    except Exception as error:
      say_lost(_reason(error))
      os._exit(EXIT_CODE)
    self._ended.set()
    self._restore_abort()
    Watch.running = None


def _before_abort(address: str) -> Callable[[], None]:
  """Has this process, when it is about to abort, look first whether process 0 still listens at HOST:PORT; if not, end as for a loss.

  Returns what undoes that.
  """

  def look(_):
    if Watch.running is None or _listens(address):
      return  # and the abort takes its course
    say_lost('process 0 does not answer')
    os._exit(EXIT_CODE)

  # Python's own handlers run between two steps of its main thread, which an abort, in a thread of JAX's, does not wait for. JAX's
  # callback for a lost service is no way either: jaxlib 0.10 cannot hand it the status, and aborts.
  handle = ctypes.CDLL(None).signal
  handle.restype, handle.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
  handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(look)
  before = handle(int(signal.SIGABRT), ctypes.cast(handler, ctypes.c_void_p))
  _handlers.append(handler)
  return lambda: handle(int(signal.SIGABRT), before)


_handlers = []  # C holds on to them


def _listens(address: str) -> bool:
  host, _, port = address.rpartition(':')
  try:
    socket.create_connection((host.strip('[]'), int(port)), timeout=ANSWER_SECONDS).close()
  except OSError:
    return False
  return True


def _reason(error: BaseException) -> str:
  """Returns which processes a barrier has waited for in vain, where that is said, else the error's first words."""
  text = ' '.join(str(error).split())
  missing = re.search(r'timed out task names: *(.{1,80}?)(?= The| \[|$)', text)
  return missing[1] if missing else text[:120]
