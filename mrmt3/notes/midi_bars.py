"""Beats, bars and key of a parsed MIDI file, as its time and key signatures have them."""

import dataclasses

import numpy as np

from mrmt3.notes.midi_file import MidiFile
from mrmt3.notes.midi_notes import TickTimes

_DEFAULT_METRE = (4, 4)
_MAX_BEATS = 1_000_000


@dataclasses.dataclass(frozen=True)
class MidiBars:
  """The bars of a MIDI file.

  Attributes:
    beats: times, s, float64 `[beats]`, increasing; dotted in compound metres.
    downbeats: times, s, float64 `[bars]`, increasing.
    metre: (numerator, denominator) that holds longest.
    key: (sharps, whether minor) of the first key signature, flats being negative; None without one.
  """

  beats: np.ndarray
  downbeats: np.ndarray
  metre: tuple[int, int]
  key: tuple[int, bool] | None


def midi_bars(midi: MidiFile) -> MidiBars | None:
  """Return the bars up to the last event; None without time signatures, or where ticks are no part of a quarter.

  Before the first time signature it is 4/4. Of several at one tick the last one holds. A time signature begins a bar.

  Raises:
    ValueError: there are more than `_MAX_BEATS` beats.
  """
  if midi.ticks_per_quarter is None or midi.format == 2 or not len(midi.metres):
    return None
  rows = midi.metres[np.lexsort((midi.metres[:, 0], midi.metres[:, 1]))]
  changes = {0: _DEFAULT_METRE, **{tick: (numerator, denominator) for _, tick, numerator, denominator in rows.tolist()}}
  end = int(midi.events['tick'].max(initial=0))
  starts = [tick for tick in changes if tick <= end]
  times = TickTimes(midi, [])
  beats, downbeats, seconds = [], [], {}
  for start, following in zip(starts, [*starts[1:], end + 1], strict=True):
    numerator, denominator = changes[start]
    unit = 4 * midi.ticks_per_quarter / denominator
    is_compound = numerator > 3 and numerator % 3 == 0
    if (following - start) / unit > _MAX_BEATS:
      raise ValueError('its bars are too short for music')
    beats.append(np.arange(start, following, unit * (3 if is_compound else 1)))
    downbeats.append(np.arange(start, following, unit * numerator))
    held = times.seconds(np.zeros(2, np.int64), np.array([start, following]))
    seconds[numerator, denominator] = seconds.get((numerator, denominator), 0.0) + float(held[1] - held[0])
  beats, downbeats = (
    times.seconds(np.zeros(len(ticks), np.int64), ticks) for ticks in map(np.concatenate, (beats, downbeats))
  )
  keys = midi.keys[np.argsort(midi.keys[:, 1], kind='stable')]
  key = (int(keys[0, 2]), bool(keys[0, 3])) if len(keys) else None
  return MidiBars(beats, downbeats, max(seconds, key=seconds.get), key)
