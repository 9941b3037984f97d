"""Tolerant MIDI parser: any MIDI file as a score, with written programs and a separate drum part.

Files from the web often violate the standard (invalid key signatures, notes without a note-off, a truncated last
chunk), and MIDI libraries reject them. This parser uses only note-on, note-off, program, sustain pedal, tempo and metre
events. Pitch bends are ignored.
"""

import itertools
import struct

import numpy as np

from mrmt3.dataset_builder.score import BAR_DTYPE, SCORE_NOTE_DTYPE, Score, tidy_part
from mrmt3.errors import UserError
from mrmt3.notes.midi import apply_sustain
from mrmt3.notes.note_array import empty_notes

MAX_BYTES = 8_000_000
MAX_EVENTS = 1_000_000
MAX_QUARTERS = 8_000.0  # later notes are dropped
_MAX_GAP = 48.0  # quarters without a note; after a longer gap, another piece begins
_MAX_NOTE = 64.0  # quarters
_DRUM_CHANNEL = 9
_DRUM_PITCHES = (27, 87)  # of General MIDI and its common extension
_FIRST_NOISE = 112  # programs from here on are percussion and sound effects
_MAX_PARTS = 64
_MIN_TEMPO, _MAX_TEMPO = 40.0, 220.0  # quarters per minute, plausible range


class _TrackReader:
  """Parser of one track chunk; adds notes, pedals, tempos and metres (in ticks) to `out`."""

  def __init__(self, data: bytes, track: int, out: 'MidiEvents'):
    self.data, self.track, self.out = data, track, out
    self.at = self.tick = 0
    self.status = 0
    self.programs = [0] * 16
    self.sounding = {}

  def number(self) -> int:
    """Read a variable-length number and advance; IndexError past the end."""
    value = 0
    for _ in range(4):
      byte = self.data[self.at]
      self.at += 1
      value = value << 7 | byte & 127
      if byte < 128:
        break
    return value

  def read(self) -> None:
    """Read to the end of the track, or of its bytes if it is truncated."""
    try:
      while self.at < len(self.data) and self._event():
        pass
    except IndexError:
      pass  # truncated: keep the events read so far

  def _event(self):
    self.tick += self.number()
    byte = self.data[self.at]
    if byte == 0xFF:
      return self._meta()
    if byte in (0xF0, 0xF7):
      self.at += 1
      self.at += self.number()
      return True
    if byte >= 128:
      self.status = byte
      self.at += 1
    if not 0x80 <= self.status < 0xF0:
      return False  # data without a status byte, or a status that files must not have
    message, channel = self.status >> 4, self.status & 15
    one = self.data[self.at] & 127
    two = 0 if message in (0xC, 0xD) else self.data[self.at + 1] & 127
    self.at += 1 if message in (0xC, 0xD) else 2
    if message in (0x8, 0x9):
      self._note(channel, one, two if message == 0x9 else 0)
    elif message == 0xC:
      self.programs[channel] = one
    elif message == 0xB and one == 64:
      self.out.pedals.append((self.track, channel, self.tick, two >= 64))
    return True

  def _note(self, channel, pitch, velocity):
    note_on = self.sounding.pop((channel, pitch), None)
    if note_on is not None:
      self.out.add_note(self.track, channel, pitch, *note_on, self.tick)
    if velocity:
      self.sounding[channel, pitch] = (self.programs[channel], velocity, self.tick)

  def _meta(self):
    meta_type = self.data[self.at + 1]
    self.at += 2
    size = self.number()
    value = self.data[self.at : self.at + size]
    self.at += size
    if meta_type == 0x2F:
      return False
    if meta_type == 0x51 and len(value) == 3:
      self.out.tempos.append((self.tick, int.from_bytes(value)))
    elif meta_type == 0x58 and len(value) >= 2 and 1 <= value[0] <= 32 and value[1] <= 5:
      self.out.metres.append((self.tick, value[0], 1 << value[1]))
    return True


class MidiEvents:
  """The events of a MIDI file, in ticks.

  Attributes:
    ticks_per_quarter: resolution.
    notes: int64 rows (track, channel, program, pitch, velocity, start, end), end after start.
    pedals: (track, channel, tick, is_down).
    tempos: (tick, microseconds per quarter).
    metres: (tick, numerator, denominator).
  """

  def __init__(self, data: bytes):
    """Parse the bytes of a file; ValueError if it is not a MIDI file, or too large."""
    if len(data) > MAX_BYTES:
      raise ValueError(f'{len(data) / 1e6:.0f} MB are too many for a MIDI file (at most {MAX_BYTES / 1e6:.0f} MB)')
    data = data[data.find(b'MThd') :] if b'MThd' in data[:256] else b''  # RIFF files have a header before it
    if len(data) < 14:
      raise ValueError('not a MIDI file')
    _, kind, _, division = struct.unpack('>IHHH', data[4:14])
    if kind == 2:
      raise ValueError('it has independent patterns (format 2), not one piece')
    self.ticks_per_quarter = division if division < 0x8000 else (256 - (division >> 8)) * (division & 255) / 2
    if self.ticks_per_quarter < 1:
      raise ValueError('its resolution is 0 ticks per quarter')
    self._rows, self.pedals, self.tempos, self.metres = [], [], [], []
    at, track = 8 + struct.unpack('>I', data[4:8])[0], 0
    while at + 8 <= len(data):
      size = struct.unpack('>I', data[at + 4 : at + 8])[0]
      if data[at : at + 4] == b'MTrk':
        _TrackReader(data[at + 8 : at + 8 + size], track, self).read()
        track += 1
      at += 8 + size
    self.notes = np.array(self._rows, np.int64).reshape(-1, 7)

  def add_note(self, track, channel, pitch, program, velocity, start, end) -> None:
    """Add a note unless it has no length; drum strokes are always added."""
    if len(self._rows) >= MAX_EVENTS:
      raise ValueError(f'it has more than {MAX_EVENTS} notes')
    if end > start or channel == _DRUM_CHANNEL:
      self._rows.append((track, channel, program, pitch, velocity, start, max(end, start + 1)))


def read_midi_score(data: bytes, name: str) -> Score:
  """Parse the bytes of a MIDI file as a score; UserError if it has no music.

  Of a file with long silences, the section with the most notes is used. Programs 112 and above (noises) are dropped.
  """
  try:
    events = MidiEvents(data)
  except (ValueError, struct.error) as error:
    raise UserError(f'cannot read {name}: {error}; remove it or replace it with a valid MIDI file') from error
  notes = _table(events)
  notes = notes[(notes['program'] < _FIRST_NOISE) | notes['is_drum']]
  if not len(notes) or notes['is_drum'].all():
    raise UserError(f'cannot use {name}: it has no notes for pitched instruments; remove it')
  notes, begin, end = _busiest_section(notes)
  metres = [(tick / events.ticks_per_quarter, *metre) for tick, *metre in events.metres]
  bars = _bars(metres, begin, end)
  if not len(bars):
    raise UserError(f'cannot use {name}: its time signatures give no bars; remove it')
  shift = bars['start'][0]
  bars['start'] -= shift
  notes['start'] -= shift
  tempo = _tempo(events, begin, end)
  # Implausible tempo (a wrong resolution): scale the quarters by a power of 2 until it is plausible.
  factor = 2.0 ** -np.round(np.log2(tempo / 90.0)) if not _MIN_TEMPO <= tempo <= _MAX_TEMPO else 1.0
  for table in (notes, bars):
    table['start'] *= factor
    table['length'] *= factor
  parts, programs = _parts(notes[~notes['is_drum']])
  drums = notes[notes['is_drum']]
  low, high = _DRUM_PITCHES
  drums = _as_part(drums[(drums['pitch'] >= low) & (drums['pitch'] <= high)])
  tempo = float(np.clip(tempo * factor, _MIN_TEMPO, _MAX_TEMPO))
  return Score(name, parts, bars, programs=programs, drums=drums if len(drums) else None, tempo=tempo)


_TABLE_DTYPE = np.dtype(
  [*SCORE_NOTE_DTYPE.descr, ('track', np.int64), ('channel', np.int64), ('program', np.int64), ('is_drum', np.bool_)]
)


def _table(events):
  """Return all notes in quarters with the sustain pedal applied, sorted by start."""
  rows = events.notes
  table = np.zeros(len(rows), _TABLE_DTYPE)
  for column, field in enumerate(('track', 'channel', 'program', 'pitch', 'velocity')):
    table[field] = rows[:, column]
  table['is_drum'] = table['channel'] == _DRUM_CHANNEL
  table['start'] = rows[:, 5] / events.ticks_per_quarter
  table['length'] = (rows[:, 6] - rows[:, 5]) / events.ticks_per_quarter
  table = table[table['start'] < MAX_QUARTERS]
  for track, channel in sorted({pedal[:2] for pedal in events.pedals if pedal[1] != _DRUM_CHANNEL}):
    own = (table['track'] == track) & (table['channel'] == channel)
    table = np.concatenate(
      [table[~own], _pedaled(table[own], [p[2:] for p in events.pedals if p[:2] == (track, channel)], events)]
    )
  table['length'] = np.minimum(table['length'], _MAX_NOTE)
  return table[np.lexsort((table['pitch'], table['track'], table['start']))]


def _pedaled(table, pedals, events):
  if not len(table):
    return table
  times = np.array([tick for tick, _ in pedals]) / events.ticks_per_quarter
  ends = table['start'] + table['length']
  notes = empty_notes(len(table))
  notes['onset'], notes['offset'], notes['pitch'] = table['start'], ends, table['pitch']
  notes['velocity'] = np.arange(len(table))  # row index of each note
  notes = apply_sustain(notes, times, np.array([down for _, down in pedals], bool), float(max(times.max(), ends.max())))
  table = table[notes['velocity']]
  table['length'] = notes['offset'] - notes['onset']
  return table


def _busiest_section(notes):
  """Return the section between long silences with the most pitched notes, and its begin and end in quarters."""
  ends = np.maximum.accumulate(notes['start'] + notes['length'])
  cuts = np.flatnonzero(notes['start'][1:] - ends[:-1] > _MAX_GAP) + 1
  edges = np.r_[0, cuts, len(notes)]
  best = int(np.argmax([np.sum(~notes['is_drum'][a:b]) for a, b in itertools.pairwise(edges)]))
  chosen = notes[edges[best] : edges[best + 1]].copy()
  return chosen, float(chosen['start'][0]), float((chosen['start'] + chosen['length']).max())


def _bars(metres, begin, end):
  """Return the bars from the one that contains `begin` to the one that contains `end`; 4/4 by default."""
  changes = {0.0: (4, 4), **{at: metre for at, *metre in metres}}
  starts = sorted(at for at in changes if at < end)
  rows = []
  for at, following in zip(starts, [*starts[1:], end], strict=True):
    numerator, denominator = changes[at]
    whole = 4.0 * numerator / denominator
    first = at + max(0.0, (begin - at) // whole) * whole
    for start in np.arange(first, following, whole):
      length = whole if following == end else min(whole, following - start)
      if start + length > begin and length > 1e-3:
        rows.append((start, length, numerator, denominator))
  return np.array(rows, BAR_DTYPE)


def _tempo(events, begin, end):
  """Return the mean tempo between two positions, quarters per minute."""
  changes = sorted((tick / events.ticks_per_quarter, micros) for tick, micros in events.tempos if micros > 0)
  at = np.array([0.0, *(place for place, _ in changes)])
  micros = np.array([500_000.0, *(value for _, value in changes)])
  lengths = np.diff(np.clip(np.r_[at, np.inf], begin, end))
  return 60e6 * max(end - begin, 1e-9) / max(float(np.sum(lengths * micros)), 1e-3)


def _parts(notes):
  """Return the parts, one for each track, channel and program, and their programs."""
  keys = np.stack([notes['track'], notes['channel'], notes['program']], axis=1)
  if len(np.unique(keys, axis=0)) > _MAX_PARTS:
    keys[:, :2] = 0  # too many tracks: one part per program
  unique_keys, key_index = np.unique(keys, axis=0, return_inverse=True)
  tables, programs = [], []
  for index, (_, _, program) in enumerate(unique_keys):
    part = _as_part(notes[key_index.ravel() == index])
    if len(part):
      tables.append(part)
      programs.append(int(program))
  return tuple(tables), tuple(programs)


def _as_part(notes):
  return tidy_part(notes[list(SCORE_NOTE_DTYPE.names)].astype(SCORE_NOTE_DTYPE))
