"""Counters of the server in the text format of Prometheus."""

import threading
import time
from collections.abc import Mapping

PREFIX = 'mrmt3_'
_HELP = {
  'jobs_total': ('counter', 'Jobs that have ended, by state.'),
  'audio_seconds_total': ('counter', 'Seconds of audio decoded.'),
  'decode_seconds_total': ('counter', 'Seconds that decoding took.'),
  'http_requests_total': ('counter', 'HTTP requests, by status code.'),
  'refused_total': ('counter', 'Requests refused for safety or because of a limit, by reason.'),
  'jobs': ('gauge', 'Jobs that the server holds, by state.'),
  'up_seconds': ('gauge', 'Seconds since the server started.'),
  'resident_bytes': ('gauge', 'Memory of the server process.'),
}


class Metrics:
  """Counters, which several threads may increase."""

  def __init__(self):
    self._lock, self._counts, self._begin = threading.Lock(), {}, time.monotonic()

  def count(self, name: str, amount: float = 1, **labels: str | int) -> None:
    """Add to a counter."""
    key = name, tuple(sorted((label, str(value)) for label, value in labels.items()))
    with self._lock:
      self._counts[key] = self._counts.get(key, 0) + amount

  def text(self, jobs: Mapping[str, int]) -> str:
    """Return all metrics; `jobs` is the number of jobs by state."""
    with self._lock:
      values = dict(self._counts)
    values |= {('jobs', (('state', state),)): count for state, count in jobs.items()}
    values['up_seconds', ()] = time.monotonic() - self._begin
    memory = _resident_bytes()
    if memory is not None:
      values['resident_bytes', ()] = memory
    lines = []
    for name, (kind, text) in _HELP.items():
      lines += [f'# HELP {PREFIX}{name} {text}', f'# TYPE {PREFIX}{name} {kind}']
      for (other, labels), value in sorted(values.items()):
        if other == name:
          inside = ','.join(f'{label}="{text}"' for label, text in labels)
          lines.append(f'{PREFIX}{name}{"{" + inside + "}" if inside else ""} {value:.15g}')
    return '\n'.join(lines) + '\n'


def _resident_bytes() -> int | None:
  """Return the memory of this process that is in RAM; None where /proc does not tell."""
  try:
    with open('/proc/self/statm', encoding='ascii') as file:
      pages = int(file.read().split()[1])
  except (OSError, ValueError, IndexError):
    return None
  import resource

  return pages * resource.getpagesize()
