"""The pedals of MIDI: how long notes sound after their keys are released."""

import numpy as np


def apply_sustain(notes: np.ndarray, times: np.ndarray, is_down: np.ndarray, end: float) -> np.ndarray:
  """Extend the notes of one track by its sustain pedal (as in note_seq, which MT3 uses).

  A note released while the pedal is down ends when the pedal goes up or its pitch is struck again, whichever is first.
  While the pedal is down, striking a pitch ends its sounding note. Notes without length are dropped.

  Args:
    notes: note table of the track.
    times: `[changes]` of the pedal, s.
    is_down: `[changes]` bool, whether the pedal goes down. If changes coincide, going up comes last.
    end: when a pedal that never goes up is released, s; no note or pedal change is later.

  Returns:
    the new note table.
  """
  order = np.lexsort((~is_down, times))
  times, is_down = times[order], is_down[order]
  # Interval i follows i pedal changes; the pedal is up in interval 0.
  down = np.concatenate([[False], is_down])
  lifts = np.where(is_down, np.inf, times)
  lift = np.append(np.minimum.accumulate(lifts[::-1])[::-1], np.inf)  # for interval i: when the pedal goes up next
  released = np.searchsorted(times, notes['offset'], side='right')
  pedal_up = np.where(np.isfinite(lift), lift, end)[released]
  offset = np.where(down[released], pedal_up, notes['offset'])

  onset_pedaled = down[np.searchsorted(times, notes['onset'], side='right')]
  cut = _next_cut(notes, onset_pedaled)
  notes = notes.copy()
  notes['offset'] = np.minimum(offset, cut)
  return notes[notes['offset'] > notes['onset']]


def _next_cut(notes, is_cut):
  """Return the onset of the next note of the same pitch with `is_cut` (bool `[n]`), infinity if there is none."""
  order = np.lexsort((notes['onset'], notes['pitch']))
  pitch, onset = notes['pitch'][order], notes['onset'][order]
  count = len(order)
  places = np.where(is_cut[order], np.arange(count), count)
  # The next cutting note after each note.
  following = np.append(np.minimum.accumulate(places[::-1])[::-1], count)[1:]
  same = np.append(pitch, -1)[following] == pitch
  cut = np.empty(count)
  cut[order] = np.where(same, np.append(onset, np.inf)[following], np.inf)
  return cut


def apply_sostenuto(notes: np.ndarray, is_held: np.ndarray, lifts: np.ndarray) -> np.ndarray:
  """Extend the notes whose keys are down when the sostenuto pedal goes down to where it goes up.

  A note that is extended ends when its pitch is struck again.

  Args:
    notes: note table of one instrument.
    is_held: whether the pedal catches the note, bool `[n]`.
    lifts: when the pedal that catches the note goes up, s `[n]`; ignored for other notes.

  Returns:
    the new note table.
  """
  extended = is_held & (lifts > notes['offset'])
  offset = np.minimum(lifts, np.maximum(_next_cut(notes, np.ones(len(notes), bool)), notes['offset']))
  notes = notes.copy()
  notes['offset'] = np.where(extended, offset, notes['offset'])
  return notes
