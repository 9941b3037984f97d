"""MIDI files with bars: a tempo map whose bar lines lie on the downbeats, while notes keep their times."""

import numpy as np

from mrmt3.notes.midi_clock import MidiClock
from mrmt3.score.analysis import Analysis
from mrmt3.score.tempo_map import TempoMap, time_signature

TICKS_PER_QUARTER = 960
_SMALLEST = 0.0625  # quarters: the lead-in bar is a multiple of a 64th note
_LEAD_STEP = 0.25  # quarters, if that changes the tempo little


def midi_clock(analysis: Analysis, end: float) -> MidiClock | None:
  """Return the clock of a MIDI file that starts with the audio and lasts until `end`, s; None without a pulse.

  The tempo changes at every beat. The time before the first downbeat is a bar of its own (or several), with a shorter
  time signature if need be, so that bar lines are on the downbeats.
  """
  tempo = analysis.tempo
  if tempo is None:
    return None
  lead = _lead(tempo)
  quarters, seconds = tempo.quarters, tempo.seconds
  kept = (quarters + lead > 1e-6) & (seconds > 1e-3)
  last = float(tempo.to_quarters(max(end, seconds[-1] + 1e-3)))
  quarters = np.r_[-lead, quarters[kept], max(last, quarters[-1]) + tempo.beat_quarters]
  seconds = np.r_[0.0, seconds[kept], tempo.to_seconds(quarters[-1])]
  ticks = np.rint((quarters + lead) * TICKS_PER_QUARTER).astype(np.int64)
  key = analysis.key
  return MidiClock.through(
    TICKS_PER_QUARTER,
    ticks,
    seconds,
    time_signatures=_signatures(tempo, lead, float(quarters[-1])),
    key=None if key is None else (key.sharps, key.is_minor),
  )


def _lead(tempo: TempoMap) -> float:
  """Return the quarters before the first downbeat, rounded so that the tempo there stays plausible."""
  exact = -float(tempo.to_quarters(0.0))
  first = tempo.quarters[0]  # beats before the first downbeat stay where they are; the rest is rounded
  rest = exact + min(first, 0.0)
  if rest <= 1e-3:
    return max(-first, 0.0)
  for step in (_LEAD_STEP, _SMALLEST):
    rounded = round(rest / step) * step
    if rounded and abs(rounded / rest - 1) < 0.15:
      break
  return max(rounded, _SMALLEST) - min(first, 0.0)


def _signatures(tempo, lead, end):
  usual = (tempo.numerator, tempo.denominator)
  found = []
  whole = tempo.bar_quarters
  rest = lead % whole
  if rest > 1e-6:
    found.append((0, *time_signature(rest, *usual)))
  for bar in tempo.bars(-lead + rest, end):
    found.append((round((bar.start + lead) * TICKS_PER_QUARTER), bar.numerator, bar.denominator))
  return tuple(one for index, one in enumerate(found) if not index or one[1:] != found[index - 1][1:])
