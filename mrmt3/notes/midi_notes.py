"""The notes of a parsed MIDI file: one tempo map, and the state of each channel over all tracks.

In a format 1 file, a program change, pedal or all-notes-off acts on its channel in every track from its tick on; a
sounding note keeps its program. Channel 10 is drums unless the file says otherwise (`drums_at`). Note-offs belong to
the notes of their own track: one ends all notes of its pitch that began earlier.
"""

import bisect
import dataclasses
from collections.abc import Iterator

import numpy as np

from mrmt3.notes import midi_file
from mrmt3.notes.instruments import DRUM_CHANNEL
from mrmt3.notes.midi_file import (
  CONTROL,
  NOTE_OFF,
  NOTE_ON,
  PROGRAM,
  RHYTHM_PART,
  SYSTEM_GM2,
  SYSTEM_ON,
  SYSTEM_XG,
  MidiFile,
)
from mrmt3.notes.note_array import empty_notes, sort_notes
from mrmt3.notes.pedals import apply_sostenuto, apply_sustain

DRUM_SECONDS = 0.1  # nominal length of a drum hit without a note-off
MAX_SECONDS = 40_000.0  # 11 h; files with later notes are damaged
PEDAL_DOWN = 64  # a pedal is down at this value and above
_DEFAULT_QPM = 120.0
_TICK_BITS = 34  # ticks are below 2 ** 34
_CHANNELS = 16 * 128  # of all ports
# system -> bank -> whether a program change makes the channel drums
_DRUM_BANKS = {
  SYSTEM_XG: {bank: bank >= 126 for bank in range(128)},
  SYSTEM_GM2: {120: True, 121: False},
}


@dataclasses.dataclass(frozen=True)
class MidiNotes:
  """The notes of a MIDI file.

  Attributes:
    notes: note table as it sounds, with the pedals applied, sorted.
    played: note table as it is played, without pedals, in the order of note-ons.
    pedal: (time s, value) of every sustain pedal change, by time.
    lost_notes: number of note-ons that are not in `notes`: without a note-off, without a length, or out of range.
    oddities: what was odd about the file, a phrase each.
  """

  notes: np.ndarray
  played: np.ndarray
  pedal: list[tuple[float, int]]
  lost_notes: int
  oddities: list[str]


def midi_notes(midi: MidiFile) -> MidiNotes:
  """Return the notes of a MIDI file; ValueError if they last longer than `MAX_SECONDS`."""
  oddities = list(midi.oddities)
  order, voice = merge_tracks(midi, oddities)
  events = midi.events[order]
  clock = TickTimes(midi, oddities)
  seconds = clock.seconds(events['track'], events['tick'])
  starts, ends = key_presses(events, voice, oddities)
  is_drum = drums_at(events, starts)
  notes = empty_notes(len(starts))
  notes['onset'] = seconds[starts]
  notes['offset'] = clock.seconds(events['track'][starts], ends)
  notes['pitch'], notes['velocity'] = events['number'][starts], events['value'][starts]
  notes['program'] = np.where(is_drum, 0, programs_at(events, voice, starts))
  notes['is_drum'] = is_drum

  has_length = ends > events['tick'][starts]
  is_nominal = is_drum & ~has_length
  if is_nominal.any():
    nominal = _nominal_offsets(events, voice, starts, notes['onset'])
    notes['offset'] = np.where(is_nominal, nominal, notes['offset'])
    count = int(is_nominal.sum())
    oddities.append(f'{count} drum hit{"s have" if count > 1 else " has"} no length, read as {DRUM_SECONDS} s')
  kept = np.flatnonzero(has_length | is_nominal)
  notes, starts = notes[kept], starts[kept]
  if max(notes['offset'].max(initial=0.0), notes['onset'].max(initial=0.0)) > MAX_SECONDS:
    raise ValueError(f'it lasts {notes["offset"].max() / 3600:.0f} hours; it is damaged')

  played = notes.copy()
  sounding = _with_pedals(notes, starts, events, voice, seconds, order)
  is_pedal = (events['kind'] == CONTROL) & (events['number'] == midi_file.SUSTAIN)
  pedal = list(zip(seconds[is_pedal].tolist(), events['value'][is_pedal].tolist(), strict=True))
  lost = len(ends) + midi.lost_notes - len(sounding)
  return MidiNotes(sort_notes(sounding), played, pedal, lost, oddities)


def merge_tracks(midi: MidiFile, oddities: list[str]) -> tuple[np.ndarray, np.ndarray]:
  """Return (the order in which the events act, int64 `[events]`; the voice of each event in that order).

  A voice is a channel whose state its events share, int64 `[events]`. What is odd is added to `oddities`.
  """
  events = midi.events
  is_note = (events['kind'] == NOTE_ON) | (events['kind'] == NOTE_OFF)
  # Controls come before notes of the same tick, whichever track they are in.
  order = np.lexsort((events['track'], is_note, events['tick']))
  return order, _voices(midi, is_note, oddities)[order]


def _voices(midi, is_note, oddities):
  """Return the voice of each event in the file's order, int64 `[events]`."""
  events = midi.events
  ports = events['port'] if len(np.unique(events['port'])) > 1 else 0
  voice = ports * np.int64(16) + events['channel']
  own = voice + _CHANNELS * (1 + events['track'].astype(np.int64))  # a channel of the track alone
  if midi.format == 2:
    return own
  # Some programs give several tracks one channel, but each its own program at the same time.
  changes = np.flatnonzero((events['kind'] == PROGRAM) & np.isin(own, own[is_note]))
  changes = changes[np.lexsort((events['track'][changes], events['tick'][changes], voice[changes]))]
  first, second = events[changes[:-1]], events[changes[1:]]
  disagree = (voice[changes[:-1]] == voice[changes[1:]]) & (first['tick'] == second['tick'])
  disagree &= (first['track'] != second['track']) & (first['number'] != second['number'])
  if not disagree.any():
    return voice
  shared = np.unique(voice[changes[:-1][disagree]])
  oddities.append('tracks with different programs share a channel, and were read as separate channels')
  return np.where(np.isin(voice, shared), own, voice)


class TickTimes:
  """Converts ticks to seconds; format 2 has a tempo map for each track."""

  def __init__(self, midi: MidiFile, oddities: list[str]):
    self._ticks_per_second = midi.ticks_per_second
    self._by_track = midi.format == 2
    self._resolution = midi.ticks_per_quarter
    self._tempos = midi.tempos
    if self._ticks_per_second is None and not self._by_track:
      rows = midi.tempos[np.lexsort((midi.tempos[:, 0], midi.tempos[:, 1]))]
      same = (rows[1:, 1] == rows[:-1, 1]) & (rows[1:, 0] != rows[:-1, 0]) & (rows[1:, 2] != rows[:-1, 2])
      if same.any():
        oddities.append('tracks have different tempos at the same time, of which the last one was used')
      self._map = self._tempo_map(rows[:, 1:])

  def seconds(self, tracks: np.ndarray, ticks: np.ndarray) -> np.ndarray:
    """Return the times of ticks, s `[n]`."""
    if self._ticks_per_second is not None:
      return ticks / self._ticks_per_second
    if not self._by_track:
      return self._map(ticks)
    seconds = np.zeros(len(ticks))
    for track, own in _groups(tracks):
      rows = self._tempos[slice(*np.searchsorted(self._tempos[:, 0], [track, track + 1]))]
      seconds[own] = self._tempo_map(rows[np.argsort(rows[:, 1], kind='stable'), 1:])(ticks[own])
    return seconds

  def _tempo_map(self, rows):
    """Return a function from ticks to seconds, for rows (tick, microseconds per quarter) sorted by tick."""
    starts, scales = [0], [60.0 / (_DEFAULT_QPM * self._resolution)]
    for tick, tempo in rows.tolist():
      scale = 60.0 / (6e7 / tempo * self._resolution)
      if tick == 0:
        scales[0] = scale
      elif scale != scales[-1]:
        starts.append(tick)
        scales.append(scale)
    bases = [0.0]
    for index in range(1, len(starts)):
      bases.append(bases[-1] + scales[index - 1] * (starts[index] - starts[index - 1]))
    starts, scales, bases = np.array(starts), np.array(scales), np.array(bases)

    def seconds(ticks):
      place = np.maximum(np.searchsorted(starts, ticks, side='right') - 1, 0)
      return bases[place] + scales[place] * (ticks - starts[place])

    return seconds


def key_presses(events: np.ndarray, voice: np.ndarray, oddities: list[str]) -> tuple[np.ndarray, np.ndarray]:
  """Return (the note-ons among the events, int64 `[notes]`; the tick where each key is released, int64 `[notes]`).

  The tick is -1 if a key is never released, and that of the note-on if the note has no length. A drum hit that is only
  ended by all-notes-off is never released.

  Args:
    events: events in the order of `merge_tracks`.
    voice: their voices.
    oddities: what is odd is added.
  """
  starts = np.flatnonzero((events['kind'] == NOTE_ON) & (events['value'] > 0))
  numbers = events['number']
  is_release_all = (events['kind'] == CONTROL) & np.isin(numbers, (midi_file.ALL_SOUND_OFF, *midi_file.ALL_NOTES_OFF))
  is_note = (events['kind'] == NOTE_ON) | (events['kind'] == NOTE_OFF)
  used = np.flatnonzero(is_note | is_release_all)
  what = np.full(len(events), -1, np.int64)  # a note-off
  what[starts] = np.arange(len(starts))
  what[is_release_all] = -2
  keys = events['track'].astype(np.int64) << 7 | numbers
  columns = (column[used].tolist() for column in (what, voice, keys, events['tick']))
  is_drum = drums_at(events, starts).tolist()
  start_ticks = events['tick'][starts].tolist()
  ends = [-1] * len(starts)
  voices = {}  # voice -> key -> notes that sound
  unmatched = {}  # (voice, pitch) -> ticks of note-offs without a note in their track
  for note, channel, key, tick in zip(*columns, strict=True):
    sounding = voices.get(channel)
    if sounding is None:
      sounding = voices[channel] = {}
    if note >= 0:
      if key in sounding:
        sounding[key].append(note)
      else:
        sounding[key] = [note]
    elif note == -1:
      released = sounding.pop(key, None)
      if released is None:
        unmatched.setdefault((channel, key & 127), []).append(tick)
        continue
      if len(released) == 1 and start_ticks[released[0]] != tick:
        ends[released[0]] = tick
        continue
      kept = []
      for one in released:
        if start_ticks[one] != tick:
          ends[one] = tick
        else:
          kept.append(one)
      # A note-off that ends an earlier note leaves those of its own tick; otherwise these have no length.
      if kept and len(kept) < len(released):
        sounding[key] = kept
      else:
        for one in kept:
          ends[one] = tick
    else:
      for released in sounding.values():
        for one in released:
          if not is_drum[one]:
            ends[one] = tick
      sounding.clear()
  elsewhere = 0
  for channel, sounding in voices.items():
    for key, notes in sounding.items():
      ticks = unmatched.get((channel, key & 127), ())
      for one in notes:
        place = bisect.bisect_right(ticks, start_ticks[one])
        if place < len(ticks):
          ends[one] = ticks[place]
          elsewhere += 1
  if elsewhere:
    oddities.append(f'{elsewhere} note-off{"s are" if elsewhere > 1 else " is"} in another track than the note')
  return starts, np.array(ends, np.int64)


def programs_at(events: np.ndarray, voice: np.ndarray, starts: np.ndarray) -> np.ndarray:
  """Return the program at each of the events `starts`, `[notes]`; `events` and `voice` as in `key_presses`."""
  changes = np.flatnonzero(events['kind'] == PROGRAM)
  if not len(changes):
    return np.zeros(len(starts), np.int32)
  place = _compact(voice) << _TICK_BITS | events['tick']
  changes = changes[np.argsort(place[changes], kind='stable')]
  latest = np.searchsorted(place[changes], place[starts], side='right') - 1
  is_set = (latest >= 0) & (voice[changes[latest]] == voice[starts])
  return np.where(is_set, events['number'][changes[latest]], 0)


def drums_at(events: np.ndarray, starts: np.ndarray) -> np.ndarray:
  """Return whether each of the events `starts` is on a channel of drums, bool `[notes]`.

  That is channel 10, and what the file says of its channels: the rhythm parts of GS and XG, and, once it has switched
  XG or GM2 on, the banks for drums and melodies.

  Args:
    events: events in the order of `merge_tracks`.
    starts: indices of note-ons.
  """
  is_drum = events['channel'][starts] == DRUM_CHANNEL
  systems = np.flatnonzero(events['kind'] == SYSTEM_ON)
  system = int(events['number'][systems[-1]]) if len(systems) else None
  if not (events['kind'] == RHYTHM_PART).any() and system not in _DRUM_BANKS:
    return is_drum
  part = events['port'].astype(np.int64) << 4 | events['channel']
  is_bank = (events['kind'] == CONTROL) & (events['number'] == midi_file.BANK)
  used = np.flatnonzero(np.isin(events['kind'], (PROGRAM, SYSTEM_ON, RHYTHM_PART)) | is_bank)
  banks, changes = {}, {}  # part -> bank; part -> (event, whether the part is drums from there on)
  columns = (events[field][used].tolist() for field in ('kind', 'number', 'value'))
  for event, own, kind, number, value in zip(used.tolist(), part[used].tolist(), *columns, strict=True):
    if kind == CONTROL:
      banks[own] = value
    elif kind == RHYTHM_PART:
      changes.setdefault(own, []).append((event, bool(number)))
    elif kind == PROGRAM and (choice := _DRUM_BANKS.get(system, {}).get(banks.get(own))) is not None:
      changes.setdefault(own, []).append((event, choice))
    elif kind == SYSTEM_ON:
      banks.clear()
      for each, own_changes in changes.items():
        own_changes.append((event, each & 15 == DRUM_CHANNEL))
  for own, own_changes in changes.items():
    places, states = (np.array(column) for column in zip(*own_changes, strict=True))
    latest = np.searchsorted(places, starts, side='right') - 1
    is_drum = np.where((part[starts] == own) & (latest >= 0), states[latest], is_drum)
  return is_drum


def _nominal_offsets(events, voice, starts, onset):
  """Return the offset of each note if it had no note-off, s `[notes]`: at the next hit of its pitch at the latest."""
  keys = events['track'].astype(np.int64) << 7 | events['number']
  group = _compact(voice)[starts] * (keys.max() + 1) + keys[starts]
  place = _compact(group) << _TICK_BITS | events['tick'][starts]
  order = np.argsort(place, kind='stable')
  following = order[np.minimum(np.searchsorted(place[order], place, side='right'), len(order) - 1)]
  is_same = (group[following] == group) & (onset[following] > onset)
  return np.minimum(onset + DRUM_SECONDS, np.where(is_same, onset[following], np.inf))


def _with_pedals(notes, starts, events, voice, seconds, order):
  """Return the note table with sustain, sostenuto and all-sound-off applied to pitched notes.

  `starts` are the events of the notes, `order` the places of the events in the file.
  """
  is_control = (events['kind'] == CONTROL) & (events['number'] != midi_file.BANK)
  is_reset, is_sustain, is_sostenuto, is_off = (
    is_control & (events['number'] == number)
    for number in (midi_file.RESET_CONTROLLERS, midi_file.SUSTAIN, midi_file.SOSTENUTO, midi_file.ALL_SOUND_OFF)
  )
  is_pedaled = ~notes['is_drum'] & np.isin(voice[starts], voice[is_sustain | is_sostenuto | is_off])
  if not is_pedaled.any():
    return notes
  tables = [notes[~is_pedaled]]
  starts, notes = starts[is_pedaled], notes[is_pedaled]
  end = max(notes['offset'].max(), tables[0]['offset'].max(initial=0.0), seconds[is_control].max())
  is_down = is_control & ~is_reset & (events['value'] >= PEDAL_DOWN)
  # Striking a pitch again ends its sustained note in the same track and program: give each of these its own pitches.
  instrument = _compact(events['track'][starts].astype(np.int64) << 7 | notes['program'])
  notes['pitch'] += (instrument << 7).astype(np.int32)
  controls = np.flatnonzero(is_control)
  of_voice = {one: controls[own] for one, own in _groups(voice[is_control])}
  for one, own in _groups(voice[starts]):
    table, control = notes[own], of_voice[one]
    changes = control[is_sostenuto[control] | is_reset[control]]
    if is_sostenuto[changes].any():
      table = apply_sostenuto(table, *_caught(table, starts[own], events, changes, is_down, seconds, order, end))
    changes = control[is_sustain[control] | is_reset[control]]
    if is_sustain[changes].any():
      table = apply_sustain(table, seconds[changes], is_down[changes], end)
    silenced = seconds[control[is_off[control]]]
    cut = np.append(silenced, np.inf)[np.searchsorted(silenced, table['onset'], side='right')]
    table['offset'] = np.minimum(table['offset'], cut)
    table['pitch'] &= 127
    tables.append(table)
  return np.concatenate(tables)


def _caught(notes, starts, events, changes, is_down, seconds, order, end):
  """Return (whether a sostenuto pedal catches each note `[n]`, when that pedal goes up, s `[n]`)."""
  presses, lifts = [], []  # events, s
  for change in changes.tolist():
    if is_down[change] and len(presses) == len(lifts):
      presses.append(change)
    elif not is_down[change] and len(presses) > len(lifts):
      lifts.append(seconds[change])
  if not presses:
    return np.zeros(len(notes), bool), np.zeros(len(notes))
  lifts += [end] * (len(presses) - len(lifts))
  presses, lifts = np.array(presses), np.array(lifts)
  last = np.searchsorted(seconds[presses], notes['offset'], side='left') - 1  # the last press while the key is down
  press = presses[last]
  is_after = (events['track'][press] == events['track'][starts]) & (order[press] > order[starts])
  is_caught = (seconds[press] > notes['onset']) | ((seconds[press] == notes['onset']) & is_after)
  return (last >= 0) & is_caught, lifts[last]


def _compact(values):
  """Return the rank of each value among the distinct ones, int64 `[n]`."""
  return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _groups(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
  """Yield each distinct value and the indices where it is."""
  order = np.argsort(values, kind='stable')
  if not len(order):
    return
  cuts = np.flatnonzero(np.diff(values[order])) + 1
  for own in np.split(order, cuts):
    yield int(values[own[0]]), own
