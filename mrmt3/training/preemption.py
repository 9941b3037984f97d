"""Being asked to stop: SIGTERM, which clusters send before they take a machine away."""

import signal
import threading

EXIT_CODE = 128 + signal.SIGTERM  # 143, what a shell reports for a process that SIGTERM ended


class Stopped(Exception):
  """The run was asked to stop and has saved; its text says where it stands."""


class StopRequest:
  """A block in which SIGTERM only sets `requested`, to be looked at between two steps."""

  def __init__(self):
    self.requested = False

  def __enter__(self) -> 'StopRequest':
    # Only the main thread may set handlers; elsewhere (in a notebook's worker, say) SIGTERM acts as always.
    self._is_main = threading.current_thread() is threading.main_thread()
    if self._is_main:
      self._before = signal.signal(signal.SIGTERM, self._handle)
    return self

  def _handle(self, number, frame) -> None:
    self.requested = True

  def __exit__(self, kind, error, trace) -> None:
    if self._is_main:
      signal.signal(signal.SIGTERM, self._before)
