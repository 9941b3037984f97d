"""The tempo map, time signatures and key signature of a MIDI file to be written."""

import dataclasses

import numpy as np

MAJOR_KEYS = ('Cb', 'Gb', 'Db', 'Ab', 'Eb', 'Bb', 'F', 'C', 'G', 'D', 'A', 'E', 'B', 'F#', 'C#')
MINOR_KEYS = ('Abm', 'Ebm', 'Bbm', 'Fm', 'Cm', 'Gm', 'Dm', 'Am', 'Em', 'Bm', 'F#m', 'C#m', 'G#m', 'D#m', 'A#m')


@dataclasses.dataclass(frozen=True)
class MidiClock:
  """The time of a MIDI file.

  Attributes:
    ticks_per_quarter: resolution.
    ticks: where the tempo changes, int64 `[n]`, the first one 0.
    tempos: microseconds per quarter from there on, int64 `[n]`.
    time_signatures: (tick, numerator, denominator), the first at 0.
    key: (sharps -7..7, whether minor), or None.
  """

  ticks_per_quarter: int
  ticks: np.ndarray
  tempos: np.ndarray
  time_signatures: tuple[tuple[int, int, int], ...]
  key: tuple[int, bool] | None = None

  @classmethod
  def through(cls, ticks_per_quarter: int, ticks: np.ndarray, seconds: np.ndarray, **others) -> 'MidiClock':
    """Return the clock that is at `ticks[i]` at `seconds[i]`; both increase and begin with 0, float64 and int64 `[n]`.

    Tempos are whole microseconds; each makes up for the rounding of those before it.
    """
    tempos = []
    reached = 0.0
    for index in range(len(ticks) - 1):
      quarters = (ticks[index + 1] - ticks[index]) / ticks_per_quarter
      tempo = int(np.clip(round(1e6 * (seconds[index + 1] - reached) / quarters), 1, 0xFFFFFF))
      tempos.append(tempo)
      reached += tempo * quarters / 1e6
    return cls(ticks_per_quarter, np.asarray(ticks[:-1], np.int64), np.array(tempos, np.int64), **others)

  def to_ticks(self, seconds: np.ndarray) -> np.ndarray:
    """Return the position of times by the file's own tempos, ticks, not rounded."""
    begins = self._begins()
    index = np.clip(np.searchsorted(begins, seconds, side='right') - 1, 0, len(begins) - 1)
    return self.ticks[index] + (seconds - begins[index]) * 1e6 / self.tempos[index] * self.ticks_per_quarter

  def to_seconds(self, ticks: np.ndarray) -> np.ndarray:
    """Return the times of positions in ticks, s."""
    begins = self._begins()
    index = np.clip(np.searchsorted(self.ticks, ticks, side='right') - 1, 0, len(begins) - 1)
    return begins[index] + (ticks - self.ticks[index]) * self.tempos[index] / 1e6 / self.ticks_per_quarter

  def _begins(self):
    steps = np.diff(self.ticks) * self.tempos[:-1] / 1e6 / self.ticks_per_quarter
    return np.concatenate([[0.0], np.cumsum(steps)])

  def track(self):
    """Return the first track of the file: tempos and signatures, as a `mido.MidiTrack`."""
    import mido

    events = [(int(tick), 2, mido.MetaMessage('set_tempo', tempo=int(tempo))) for tick, tempo in self._changes()]
    events += [
      (tick, 0, mido.MetaMessage('time_signature', numerator=numerator, denominator=denominator))
      for tick, numerator, denominator in self.time_signatures
    ]
    if self.key is not None:
      sharps, is_minor = self.key
      name = (MINOR_KEYS if is_minor else MAJOR_KEYS)[sharps + 7]
      events.append((0, 1, mido.MetaMessage('key_signature', key=name)))
    track, reached = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
      track.append(message.copy(time=tick - reached))
      reached = tick
    return track

  def _changes(self):
    pairs = list(zip(self.ticks.tolist(), self.tempos.tolist(), strict=True))
    return [pair for index, pair in enumerate(pairs) if not index or pair[1] != pairs[index - 1][1]]
