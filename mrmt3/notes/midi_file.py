"""Tolerant parser of MIDI files: chunks and events as arrays, in ticks.

Many files in use violate the standard: wrong track counts and chunk lengths, invalid key signatures, values above 127,
missing last bytes, RIFF (RMID) and MacBinary wrappers. Their events are read, and `MidiFile.oddities` names what was
wrong. Bytes that are not a MIDI file raise ValueError.
"""

import dataclasses
import struct

import numpy as np

from mrmt3.notes.instruments import DRUM_CHANNEL

# Events that concern notes: note-off, note-on, program change, and the controllers below.
EVENT_DTYPE = np.dtype(
  [
    ('track', np.int32),
    ('tick', np.int64),
    ('port', np.int32),  # MIDI ports have 16 channels each
    ('channel', np.int32),  # 0..15
    ('kind', np.int32),  # NOTE_OFF, NOTE_ON, CONTROL, PROGRAM, SYSTEM_ON or RHYTHM_PART
    ('number', np.int32),  # pitch, controller, program or system, 0..127; of RHYTHM_PART whether the channel is drums
    ('value', np.int32),  # velocity or value of the controller, 0..127
  ]
)
NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x8, 0x9, 0xB, 0xC
# System-exclusive messages that decide which channels are drums.
SYSTEM_ON, RHYTHM_PART = 0xE, 0xF
SYSTEM_GM, SYSTEM_GM2, SYSTEM_GS, SYSTEM_XG = range(4)

BANK = 0
SUSTAIN, SOSTENUTO = 64, 66
ALL_SOUND_OFF, RESET_CONTROLLERS = 120, 121
ALL_NOTES_OFF = (123, 124, 125, 126, 127)  # the mode messages 124 to 127 also release all notes
_CONTROLLERS = frozenset([BANK, SUSTAIN, SOSTENUTO, ALL_SOUND_OFF, RESET_CONTROLLERS, *ALL_NOTES_OFF])

MIDI_SUFFIXES = ('.mid', '.midi', '.kar', '.rmi')
MAX_BYTES = 64_000_000
_WRAPPER = 256  # bytes in which the header of an unknown wrapper is looked for
_MAC_BINARY = 128  # bytes of a MacBinary header
_MAX_CUT = 0.25  # share of a truncated track that may be missing
_SMALL_CUT = 8  # bytes that may be missing of any track
_MAX_TICK = 2**32
_LONGEST_TEXT = 256  # bytes in which the end of a text of a wrong length is looked for
_MAX_RECOVERED = 1 << 17  # bytes of a track for which that is done
_OTHERS = {
  b'\x1f\x8b': 'it is compressed with gzip; unpack it first',
  b'PK\3\4': 'it is a zip archive; unpack it first',
  b'Rar!': 'it is a RAR archive; unpack it first',
  b'7z\xbc\xaf': 'it is a 7-Zip archive; unpack it first',
}
_NAMED = 4  # oddities named in full; the rest is counted
# Data bytes of system messages, which files should not have outside of F0 and F7.
_SYSTEM_DATA = {0xF1: 1, 0xF2: 2, 0xF3: 1}


@dataclasses.dataclass
class MidiFile:
  """The content of a MIDI file that concerns notes.

  Attributes:
    format: 0, 1, or 2 (independent sequences).
    ticks_per_quarter: resolution; None if times are absolute (SMPTE).
    ticks_per_second: resolution of absolute times; None if the tempo applies.
    num_tracks: number of track chunks found.
    events: `EVENT_DTYPE` records, track by track, in the file's order.
    tempos: int64 rows (track, tick, microseconds per quarter).
    metres: int64 rows (track, tick, numerator, denominator).
    keys: int64 rows (track, tick, sharps, whether minor); flats are negative.
    oddities: what violates the standard, a phrase each.
    lost_notes: number of note-ons with a pitch above 127.
    damage: why an unknown number of notes is missing; '' if nothing is, or little at the end.
  """

  format: int
  ticks_per_quarter: int | None
  ticks_per_second: float | None
  num_tracks: int
  events: np.ndarray
  tempos: np.ndarray
  metres: np.ndarray
  keys: np.ndarray
  oddities: list[str]
  lost_notes: int
  damage: str

  def describe_oddities(self) -> str:
    """Return the oddities as one phrase; '' if there are none."""
    return describe(self.oddities)


def describe(oddities: list[str]) -> str:
  """Join oddities to one phrase; repeated ones are named once, and at most four in full."""
  distinct = list(dict.fromkeys(oddities))
  more = [f'{len(distinct) - _NAMED} more oddities'] if len(distinct) > _NAMED else []
  return '; '.join([*distinct[:_NAMED], *more])


def parse_midi(data: bytes) -> MidiFile:
  """Parse the bytes of a MIDI file; ValueError if they are not one, or more than `MAX_BYTES`."""
  if len(data) > MAX_BYTES:
    raise ValueError(f'{len(data) / 1e6:.0f} MB are too many for a MIDI file (at most {MAX_BYTES / 1e6:.0f} MB)')
  oddities = []
  data = _unwrap(data, oddities)
  following = data.find(b'MThd\0\0\0\6', 14)
  if following >= 0 and data[following + 14 : following + 18] == b'MTrk':
    oddities.append('another MIDI file follows in the same file, and was ignored')
    data = data[:following]
  size, kind, declared, division = struct.unpack('>IHHH', data[4:14])
  first = 8 + size
  if size < 6 or not _is_chunk(data, first):
    first = data.find(b'MTrk', 14)
    oddities.append(f'the header has a wrong length ({size})')
  ticks_per_quarter, ticks_per_second = _resolution(division, oddities)
  tracks, cut = _read_tracks(data, first, oddities) if first >= 0 else ([], None)
  if len(tracks) != declared:
    oddities.append(f'the header names {_tracks(declared)}, the file has {len(tracks)}')
  if kind > 2 or (kind == 0 and len(tracks) > 1):
    oddities.append(f'it has format {kind} with {_tracks(len(tracks))}, read as format 1')
    kind = 1
  if kind == 2 and len(tracks) > 1:
    oddities.append(f'it has {len(tracks)} independent sequences (format 2), each read from 0 s')
  damage = next((track.damage for track in tracks if track.damage), '' if tracks else 'it has no tracks')
  if cut and (len(tracks) < declared or cut[0] > max(_MAX_CUT * cut[1], _SMALL_CUT)):
    missing = f' and {_tracks(declared - len(tracks))}' if len(tracks) < declared else ''
    damage = f'it ends early: {cut[0]} of {cut[1]} bytes of track {len(tracks)}{missing} are missing'
  return MidiFile(
    kind,
    ticks_per_quarter,
    ticks_per_second,
    len(tracks),
    _table(tracks),
    _rows([track.tempos for track in tracks], 3),
    _rows([track.metres for track in tracks], 4),
    _rows([track.keys for track in tracks], 4),
    oddities,
    sum(track.lost_notes for track in tracks),
    damage,
  )


def _tracks(count):
  return f'{count} track{"s" * (count != 1)}'


def _unwrap(data, oddities):
  """Return the MIDI file in a wrapper; ValueError if there is none."""
  if data[:4] in (b'RIFF', b'RIFX') and data[8:12] == b'RMID' and (at := data.find(b'MThd', 12)) >= 0:
    oddities.append('it is wrapped in a RIFF file')
    data = _first_bytes(data[at:], *struct.unpack('<I' if data[:4] == b'RIFF' else '>I', data[at - 4 : at]))
  elif data[_MAC_BINARY : _MAC_BINARY + 4] == b'MThd' and data[:1] == b'\0':
    oddities.append('it is wrapped in a MacBinary file')
    data = _first_bytes(data[_MAC_BINARY:], *struct.unpack('>I', data[83:87]))
  else:
    for start, reason in _OTHERS.items():
      if data.startswith(start):
        raise ValueError(reason)
    if data[:4] != b'MThd' and (at := data.find(b'MThd\0\0\0\6', 0, _WRAPPER)) > 0:
      oddities.append(f'{at} bytes precede the header')
      data = data[at:]
  if data[:4] != b'MThd':
    raise ValueError('it has no MIDI header' if data.strip(b'\0') else 'it is empty')
  if len(data) < 14:
    raise ValueError('it ends in the header')
  return data


def _first_bytes(data, size):
  """Return the MIDI file at the start of `data`, whose length is `size` or, if that is wrong, unknown."""
  at = 8 + struct.unpack('>I', data[4:8])[0] if len(data) >= 14 else 0
  while data[at : at + 4] == b'MTrk' and at + 8 <= len(data):
    at += 8 + struct.unpack('>I', data[at + 4 : at + 8])[0]
  # The length of a file that was written as a stream can be 0 or -1.
  return data[:size] if 14 < at <= size else data


def _resolution(division, oddities):
  """Return (ticks per quarter, ticks per second), one of which is None."""
  if division < 0x8000:
    if not division:
      raise ValueError('its resolution is 0 ticks per quarter')
    return division, None
  frames, ticks = 256 - (division >> 8), division & 255
  if not ticks:
    raise ValueError('its resolution is 0 ticks per frame')
  if frames not in (24, 25, 29, 30):
    oddities.append(f'it has {frames} frames per second')
  return None, (30_000 / 1001 if frames == 29 else frames) * ticks  # 29 is drop-frame time code


def _is_chunk(data, at):
  """Return whether a chunk starts there, or the file ends there."""
  name = data[at : at + 4]
  if at == len(data) or name == b'MTrk':
    return True
  if at > len(data) or len(data) - at < 8 or not name.isalnum():
    return False
  return at + 8 + struct.unpack('>I', data[at + 4 : at + 8])[0] <= len(data)


def _read_tracks(data, at, oddities):
  """Return (the tracks, (missing, declared) bytes of the last track if the file ends in it)."""
  tracks, cut = [], None
  while at + 8 <= len(data):
    name, size = data[at : at + 4], struct.unpack('>I', data[at + 4 : at + 8])[0]
    start, end = at + 8, at + 8 + size
    if name != b'MTrk':
      following = end if _is_chunk(data, end) and name.isalnum() else data.find(b'MTrk', at + 1)
      if following < 0:
        break
      oddities.append(f'the unknown chunk {ascii(name)[2:-1]} was skipped')
      at = following
      continue
    number = len(tracks) + 1
    is_whole = _is_chunk(data, end)
    # A view: copies of the rest of the file would take quadratic time.
    track = _Track(data[start:end] if is_whole else memoryview(data)[start:], number, may_overrun=not is_whole)
    tracks.append(track)
    oddities.extend(f'track {number} {oddity}' for oddity in track.oddities)
    stopped = start + track.at
    if is_whole and (stopped == end or data[stopped : stopped + 4] != b'MTrk'):
      if track.has_end and stopped < end:
        oddities.append(f'track {number} has {end - stopped} bytes after its end')
      elif not track.has_end and not track.oddities:
        oddities.append(f'track {number} has no end-of-track event')
      at = end
      continue
    if end > len(data) and not track.has_end and stopped >= len(data):
      missing = end - len(data)
      # A length far beyond the file, such as -1, is wrong rather than a sign of missing bytes.
      if missing < 0x1000_0000:
        oddities.append(f'the last {f"{missing} bytes are" if missing > 1 else "byte is"} missing')
        cut = missing, size
      else:
        oddities.append(f'track {number} has a wrong length')
      return tracks, cut
    if stopped != end:
      oddities.append(f'track {number} has a wrong length')
    at = stopped
    following = data.find(b'MTrk', at)
    if following < 0:
      break
    if following > at:
      oddities.append(f'{following - at} bytes between tracks were skipped')
    at = following
  if at < len(data) and data[at:].strip(b'\0'):
    oddities.append(f'{len(data) - at} bytes after the last track were skipped')
  return tracks, cut


class _Track:
  """Parser of one track chunk.

  Attributes:
    packed: an integer for each event, see `_table`.
    tempos: (tick, microseconds per quarter).
    metres: (tick, numerator, denominator).
    keys: (tick, sharps, whether minor).
    oddities: what violates the standard, as the keys of a dict.
    lost_notes: number of note-ons with an impossible pitch.
    damage: why the rest of the track was skipped; '' if it was not.
    has_end: whether the end-of-track event was reached.
    at: number of bytes read.
  """

  def __init__(self, data: bytes | memoryview, number: int, may_overrun: bool, recovers: bool = True):
    self.packed, self.tempos, self.metres, self.keys = [], [], [], []
    self.oddities = {}  # in order; a dict, because an oddity can occur with every event
    self.lost_notes = 0
    self.damage = ''
    self.has_end = False
    self.at = 0
    self._number = number
    self._port = 0
    self._recovers = recovers and not may_overrun and len(data) <= _MAX_RECOVERED
    self._read(data, may_overrun)

  def _read(self, data, may_overrun):
    """Read events to the end of the track; with `may_overrun`, a following track ends it as well."""
    append = self.packed.append
    at = tick = status = text = 0
    try:
      while True:
        self.at = at
        if at >= len(data):
          return
        if may_overrun and data[at] == 0x4D and data[at : at + 4] == b'MTrk':
          return
        byte = data[at]
        at += 1
        before = tick
        if byte < 0x80:
          tick += byte
        else:
          number = byte & 0x7F
          for _ in range(3):
            byte = data[at]
            at += 1
            number = number << 7 | byte & 0x7F
            if byte < 0x80:
              break
          else:
            return self._stop('has an endless number', data, at, may_overrun)
          tick += number
          if tick > _MAX_TICK:
            raise ValueError('it lasts longer than any music; it is damaged')
        byte = data[at]
        if byte >= 0x80:
          at += 1
          if byte >= 0xF0:
            text = at
            at = self._system(data, at, byte, tick)
            if self.has_end and (may_overrun or not _goes_on(data, at)):
              self.at = at
              return
            if self.has_end:
              self.has_end = False
              self.oddities['goes on after its end'] = None
            continue  # running status goes on: many files use it after meta events
          status = byte
        if not status:
          if text and (found := self._next_event(data, self.at)):
            at, text, tick = found, 0, before
            continue
          return self._stop('has an event without a type', data, at, may_overrun)
        kind = status >> 4
        number = data[at]
        if kind == PROGRAM or kind == 0xD:
          at += 1
          value = 0
        else:
          value = data[at + 1]
          at += 2
        if number > 0x7F or value > 0x7F:
          if number > 0x7F:
            self.oddities[f'has a {"pitch" if kind in (NOTE_OFF, NOTE_ON) else "value"} above 127'] = None
            self.lost_notes += kind == NOTE_ON and value > 0
            continue
          self.oddities[f'has a {"velocity" if kind in (NOTE_OFF, NOTE_ON) else "value"} above 127, read as 127'] = None
          value = 0x7F
        if kind in (NOTE_ON, NOTE_OFF, PROGRAM) or (kind == CONTROL and number in _CONTROLLERS):
          append(tick << 29 | self._port << 22 | status << 14 | number << 7 | value)
    except IndexError:
      skipped = len(data) - self.at
      if skipped > max(_MAX_CUT * len(data), _SMALL_CUT):
        self.damage = f'track {self._number} has an event at byte {self.at} that is longer than the track'
      self.at = len(data)
      if not may_overrun:
        self.oddities['ends within an event'] = None
      self._release_all(tick)

  def _release_all(self, tick):
    """End the notes that sound where the track breaks off within an event; drum hits need no end."""
    sounding = set()  # port, channel and pitch, packed as the events
    for event in self.packed:
      kind = event >> 18 & 0xF
      key = event & (0x7F << 22 | 0xF << 14 | 0x7F << 7)
      if kind == NOTE_ON and event & 0x7F and event >> 29 < tick:
        sounding.add(key)
      elif kind in (NOTE_OFF, NOTE_ON):
        sounding.discard(key)
    pitched = sorted(key for key in sounding if key >> 14 & 0xF != DRUM_CHANNEL)
    self.packed += [tick << 29 | NOTE_OFF << 18 | key for key in pitched]
    if pitched:
      count = len(pitched)
      self.oddities[f'breaks off while {count} note{"s sound" if count > 1 else " sounds"}; ended there'] = None

  def _stop(self, reason, data, at, may_overrun):
    self.damage = f'track {self._number} {reason} at byte {self.at}'
    self.at = at if may_overrun else len(data)

  def _system(self, data, at, status, tick):
    """Read a meta event, system-exclusive or other system message behind its status; return where it ends."""
    if status not in (0xFF, 0xF0, 0xF7):
      self.oddities[f'has a message of type {status:X}, which was skipped'] = None
      return at + _SYSTEM_DATA.get(status, 0)
    if status == 0xFF:
      meta = data[at]
      at += 1
    size = 0
    for _ in range(4):
      byte = data[at]
      at += 1
      size = size << 7 | byte & 0x7F
      if byte < 0x80:
        break
    if status == 0xFF:
      if meta == 0x2F:
        self.has_end = True
      elif at + size <= len(data):
        self._meta(meta, data[at : at + size], tick)
    elif status == 0xF0 and at + size <= len(data):
      self._exclusive(bytes(data[at : at + size]), tick)
    elif size and 0x80 <= data[at] < 0xF0:
      self.oddities['has escaped messages, which were skipped'] = None
    if at + size <= len(data):
      return at + size
    start = data.find(b'\xf7', at, at + _LONGEST_TEXT) + 1 if self._recovers and status == 0xF0 else at
    if start and (found := self._next_event(data, start)):
      return found
    raise IndexError

  def _next_event(self, data, start):
    """Return where events that are read without fault to the end of the track begin, after a wrong length; or None."""
    if not self._recovers or data[-3:] != b'\xff\x2f\0':
      return None
    for at in range(start, min(start + _LONGEST_TEXT, len(data) - 3)):
      rest = _Track(data[at:], self._number, may_overrun=False, recovers=False)
      if rest.has_end and rest.at == len(data) - at and not rest.oddities and not rest.damage:
        self.oddities['has an event of a wrong length, whose end was found by what follows'] = None
        return at
    return None

  def _exclusive(self, message, tick):
    """Record the messages that choose a system, or make a part drums or not."""
    kind, channel, number = SYSTEM_ON, 0, None
    if message[:1] == b'\x7e' and message[2:3] == b'\x09':
      number = {1: SYSTEM_GM, 3: SYSTEM_GM2}.get(message[3] if len(message) > 3 else None)
    elif message[:1] == b'\x41' and message[2:4] == b'\x42\x12' and len(message) >= 8:
      if message[4:7] in (b'\x40\x00\x7f', b'\x00\x00\x7f'):
        number = SYSTEM_GS
      elif message[4] == 0x40 and message[5] & 0xF0 == 0x10 and message[6] == 0x15:  # "use for rhythm part"
        kind, channel, number = RHYTHM_PART, _gs_channel(message[5] & 0xF), int(message[7] > 0)
    elif message[:1] == b'\x43' and message[2:3] == b'\x4c' and len(message) >= 7:
      if message[3:6] == b'\0\0\x7e':
        number = SYSTEM_XG
      elif message[3] == 0x08 and message[4] < 16 and message[5] == 0x07:  # "part mode"
        kind, channel, number = RHYTHM_PART, message[4], int(message[6] > 0)
    if number is not None:
      self.packed.append(tick << 29 | self._port << 22 | kind << 18 | channel << 14 | number << 7)

  def _meta(self, meta, value, tick):
    if meta == 0x51:
      tempo = int.from_bytes(value)
      if len(value) == 3 and tempo:
        self.tempos.append((tick, tempo))
      else:
        self.oddities['has an invalid tempo, which was ignored'] = None
    elif meta == 0x58:
      if len(value) >= 2 and value[0] >= 1 and value[1] <= 7:
        self.metres.append((tick, value[0], 1 << value[1]))
      else:
        self.oddities['has an invalid time signature'] = None
    elif meta == 0x59:
      if len(value) == 2 and -7 <= (sharps := struct.unpack('b', value[:1])[0]) <= 7 and value[1] <= 1:
        self.keys.append((tick, sharps, value[1]))
      else:
        self.oddities['has an invalid key signature'] = None
    elif meta == 0x21 and len(value) == 1:
      self._port = value[0] & 0x7F


def _gs_channel(part):
  """Return the channel of a part of GS, whose part 0 is channel 10."""
  return DRUM_CHANNEL if part == 0 else part - (part <= DRUM_CHANNEL)


def _goes_on(data, at):
  """Return whether events follow an end-of-track event, up to another one at the end."""
  return len(data) >= at + 8 and data[-3:] == b'\xff\x2f\0' and data[at : at + 4] != b'MTrk'


def _table(tracks):
  """Return the events of all tracks as `EVENT_DTYPE` records."""
  packed = [np.array(track.packed, np.int64) for track in tracks]
  merged = np.concatenate([*packed, np.zeros(0, np.int64)])
  table = np.zeros(len(merged), EVENT_DTYPE)
  table['track'] = np.repeat(np.arange(len(tracks)), [len(each) for each in packed])
  table['tick'] = merged >> 29
  table['port'] = merged >> 22 & 0x7F
  table['kind'] = merged >> 18 & 0xF
  table['channel'] = merged >> 14 & 0xF
  table['number'] = merged >> 7 & 0x7F
  table['value'] = merged & 0x7F
  return table


def _rows(tracks, width):
  rows = [(track, *row) for track, own in enumerate(tracks) for row in own]
  return np.array(rows, np.int64).reshape(-1, width)
