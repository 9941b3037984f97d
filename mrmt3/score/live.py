"""The musical time of a stream, as it becomes known."""

import numpy as np

from mrmt3.notes.note_array import empty_notes
from mrmt3.score.analysis import analyze

PERIOD = 8.0  # s between analyses
WINDOW = 60.0  # s of music that an analysis sees; so its cost does not grow
_EDGE = 2.0  # s; beats of the latest music may still change, so they are reported with the next analysis


class LiveTempo:
  """Analyses the latest notes of a stream every `PERIOD` seconds."""

  def __init__(self, tempo: str = 'auto'):
    """Take 'auto' or beats per minute, see `analysis.analyze`."""
    self._tempo = tempo
    self._notes = empty_notes()
    self._analyzed = self._reported = 0.0

  def add(self, notes: np.ndarray, seconds: float, is_last: bool = False) -> dict | None:
    """Take new notes (times in s from the stream's start) of a stream decoded up to `seconds`.

    Returns:
      what `Analysis.record` has, with `seconds` and the beats and downbeats since the last record only; None if it is
      too early for another analysis.
    """
    self._notes = np.concatenate([self._notes, notes])
    if not is_last and seconds - self._analyzed < PERIOD:
      return None
    self._analyzed = seconds
    self._notes = self._notes[self._notes['offset'] >= seconds - WINDOW]
    order = np.argsort(self._notes['onset'], kind='stable')
    record = analyze(self._notes[order], self._tempo).record()
    until = seconds if is_last else seconds - _EDGE
    for name in ('beats', 'downbeats'):
      if name in record:
        record[name] = [time for time in record[name] if self._reported <= time < until]
    self._reported = until
    return {'seconds': round(seconds, 3), **record}
