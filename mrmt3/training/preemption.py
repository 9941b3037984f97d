"""Preemption: SIGTERM, which clusters send before they reclaim a machine."""

import signal
import threading

EXIT_CODE = 128 + signal.SIGTERM  # 143, as shells report a process ended by SIGTERM


class Stopped(Exception):
  """The run received SIGTERM and has saved; the message names the step and the checkpoint."""


class StopRequest:
  """Context manager in which SIGTERM only sets `requested`, which the loop checks after each step."""

  def __init__(self):
    self.requested = False

  def __enter__(self) -> 'StopRequest':
    # Only the main thread may set handlers. In other threads SIGTERM keeps its default effect.
    self._is_main = threading.current_thread() is threading.main_thread()
    if self._is_main:
      self._before = signal.signal(signal.SIGTERM, self._handle)
    return self

  def _handle(self, number, frame) -> None:
    self.requested = True

  def __exit__(self, kind, error, trace) -> None:
    if self._is_main:
      signal.signal(signal.SIGTERM, self._before)
