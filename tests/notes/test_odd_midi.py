"""Tests of reading MIDI files that violate the standard, and of channels that are shared by tracks."""

import struct
import warnings

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from paths import FIXTURES

from mrmt3.errors import DataWarning, UserError
from mrmt3.notes import midi_file, midi_notes
from mrmt3.notes.midi import midi_bytes, read_midi, read_midi_counted, read_performance
from mrmt3.notes.note_array import as_notes

CASES = sorted(path.name.removesuffix('.odd.mid') for path in (FIXTURES / 'midi_cases').glob('*.odd.mid'))
END = b'\xff\x2f\x00'
TEMPO = b'\xff\x51\x03'


def number(value):
  data = [value & 127]
  while value := value >> 7:
    data.append(value & 127 | 128)
  return bytes(reversed(data))


def chunk(*events, end=END, name=b'MTrk', extra=0):
  """Return a track of (tick, bytes) events, in the given order; `extra` is added to its length."""
  data, last = b'', 0
  for tick, event in events:
    data, last = data + number(tick - last) + event, tick
  data += b'\0' + end if end else b''
  return name + struct.pack('>I', len(data) + extra) + data


def header(tracks, kind=1, division=500):
  return b'MThd' + struct.pack('>IHHH', 6, kind, tracks, division)


def song(*tracks, kind=1, division=500):
  """Return a file at 500 ticks per quarter: a tick is 1 ms."""
  return header(len(tracks), kind, division) + b''.join(chunk(*track) for track in tracks)


def on(pitch, velocity=80, channel=0):
  return bytes([0x90 | channel, pitch, velocity])


def off(pitch, channel=0):
  return bytes([0x80 | channel, pitch, 64])


def control(which, value, channel=0):
  return bytes([0xB0 | channel, which, value])


def program(which, channel=0):
  return bytes([0xC0 | channel, which])


PLAIN = [(0, program(56)), (0, on(60)), (500, off(60)), (1000, on(62)), (1500, off(62))]
PLAIN_NOTES = [(0, 500, 60, 56), (1000, 1500, 62, 56)]


@pytest.fixture
def read(tmp_path):
  """Return a function from bytes to ([(onset ms, offset ms, pitch, program or 'drums')], warnings)."""

  def read(data):
    path = tmp_path / 'song.mid'
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      notes = read_midi(path)
    assert all(one.category is DataWarning for one in caught)
    lines = [str(one.message) for one in caught]
    assert len(lines) <= 1 and not any('\n' in line or not line.startswith(f'{path}: ') for line in lines)
    rows = [
      (round(1000 * n['onset']), round(1000 * n['offset']), int(n['pitch']), 'drums' if n['is_drum'] else n['program'])
      for n in notes
    ]
    return rows, ''.join(lines)

  return read


@pytest.mark.parametrize('name', CASES)
def test_pairs_of_odd_and_right_files(name):
  odd, right = (read_midi(FIXTURES / 'midi_cases' / f'{name}.{kind}.mid') for kind in ('odd', 'right'))
  assert len(right) and len(odd) == len(right)
  for field in ('pitch', 'program', 'is_drum'):
    np.testing.assert_array_equal(odd[field], right[field])
  np.testing.assert_allclose(odd['onset'], right['onset'], atol=0.001)
  # The length of a drum hit is nominal.
  np.testing.assert_allclose(odd['offset'], right['offset'], atol=0.03 if name == 'drums_no_note_off' else 0.001)
  if name != 'velocity_over_127':  # the velocity itself is lost
    np.testing.assert_array_equal(odd['velocity'], right['velocity'])


def test_cases_are_there():
  assert len(CASES) >= 12


def test_a_right_file_has_no_warning(read):
  assert read(song([(0, TEMPO + b'\x07\xa1\x20')], PLAIN)) == (PLAIN_NOTES, '')


@pytest.mark.parametrize(
  ('data', 'words'),
  [
    (header(3) + chunk(*PLAIN), 'the header names 3 tracks, the file has 1'),
    (header(0) + chunk(*PLAIN), 'the header names 0 tracks, the file has 1'),
    (header(1) + chunk() + chunk(*PLAIN), 'the header names 1 track, the file has 2'),
    (header(1, kind=7) + chunk(*PLAIN), 'it has format 7'),
    (header(2, kind=0) + chunk() + chunk(*PLAIN), 'it has format 0 with 2 tracks'),
    (header(2) + chunk(*PLAIN) + b'\0junk' + chunk(), 'bytes between tracks'),
    (header(2) + chunk(*PLAIN, extra=-20) + chunk(), 'track 1 has a wrong length'),
    (header(2) + chunk(*PLAIN, extra=3) + chunk(), 'track 1 has a wrong length'),
    (header(2) + chunk(*PLAIN, extra=12) + chunk(), 'track 1 has a wrong length'),
    (header(2) + chunk(*PLAIN, extra=2**32 - 40) + chunk(), 'track 1 has a wrong length'),
    (header(1) + chunk(*PLAIN, extra=-5), 'track 1 has a wrong length'),
    (header(1) + chunk(*PLAIN, extra=100), 'track 1 has a wrong length'),
    (header(1) + b'MTrk\xff\xff\xff\xff' + chunk(*PLAIN)[8:], 'track 1 has a wrong length'),
    (header(1) + chunk(*PLAIN, end=b''), 'no end-of-track'),
    (song(PLAIN)[:-1], 'the last byte is missing'),
    (song(PLAIN)[:-3], 'the last 3 bytes are missing'),
    (song(PLAIN) + b'\x1a junk at the end', 'bytes after the last track'),
    (b'junk' + song(PLAIN), '4 bytes precede the header'),
    (header(1) + chunk(end=b'', name=b'XFIH') + chunk(*PLAIN), 'unknown chunk XFIH'),
    (header(1) + chunk(*PLAIN) + chunk(*PLAIN, name=b'XFKM'), 'unknown chunk XFKM'),
    (header(1).replace(b'\0\0\0\6', b'\0\0\0\x99') + chunk(*PLAIN), 'the header has a wrong length'),
    (b'RIFF\x99\0\0\0RMIDdata' + struct.pack('<I', len(song(PLAIN))) + song(PLAIN) + b'LIST\4\0\0\0INFO', 'RIFF'),
    (b'RIFF\x99\0\0\0RMIDLIST\5\0\0\0INFO!\0data\xff\xff\xff\xff' + song(PLAIN), 'RIFF'),
    (b'\0\4song' + b'\0' * 77 + struct.pack('>I', len(song(PLAIN))) + b'\0' * 41 + song(PLAIN) + b'\0' * 60, 'MacBin'),
    (song([(0, b'\xff\x59\x02\x63\x09'), *PLAIN]), 'invalid key signature'),
    (song([(0, b'\xff\x59\x00'), *PLAIN]), 'invalid key signature'),
    (song([(0, b'\xff\x58\x04\x00\x02\x18\x08'), *PLAIN]), 'invalid time signature'),
    (song([(0, b'\xff\x58\x04\x04\xff\x18\x08'), *PLAIN]), 'invalid time signature'),
    (song([(0, TEMPO + b'\0\0\0'), *PLAIN]), 'invalid tempo'),
    (song([(0, b'\xff\x51\x02\1\0'), *PLAIN]), 'invalid tempo'),
    (song([(0, program(200)), *PLAIN]), 'value above 127'),
    (song([*PLAIN[:-1], (1500, bytes([0x80, 62, 200]))]), 'velocity above 127, read as 127'),
    (song([(0, b'\xf2\1\2'), (0, b'\xf8'), *PLAIN]), 'message of type F2'),
    (header(1) + chunk(*PLAIN, (1600, b'\x90\x40'), end=b''), 'ends within an event'),
  ],
)
def test_odd_files_are_read_with_one_line(read, data, words):
  notes, line = read(data)
  assert notes == PLAIN_NOTES
  assert words in line and line


@pytest.mark.parametrize('missing', [4, 5, 6, 7])
def test_a_note_ends_where_the_file_breaks_off(read, missing):
  notes, line = read(song(PLAIN)[:-missing])
  assert notes == PLAIN_NOTES and f'the last {missing} bytes are missing' in line
  assert ('breaks off while 1 note sounds' in line) == (missing > 4)


def test_a_note_without_any_length_before_the_break_is_lost(read):
  notes, line = read(song(PLAIN)[:-8])
  assert notes == PLAIN_NOTES[:1] and '1 note is lost' in line


def test_a_pitch_above_127_is_lost_and_counted(read):
  notes, line = read(song([*PLAIN, (1600, on(200)), (1700, off(200))]))
  assert notes == PLAIN_NOTES
  assert '1 note is lost' in line and 'pitch above 127' in line


def test_notes_without_an_end_are_lost_and_counted(read, tmp_path):
  data = song([*PLAIN, (1600, on(70)), (1700, on(71)), (1700, off(71))])
  notes, line = read(data)
  assert notes == PLAIN_NOTES and line.endswith('2 notes are lost (never released, or without length)')
  with pytest.warns(DataWarning, match='2 notes are lost'):
    assert read_midi_counted(tmp_path / 'song.mid')[1] == 2


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'MThd',
    header(1)[:13] + b'MTrk',
    header(0),
    header(1) + b'MTrk',
    b'<html>MThd and MTrk are the chunks of a MIDI file</html>',
    b'RIFF\x99\0\0\0WAVEdata\x99\0\0\0' + b'\1' * 99,
    b'RIFF\x99\0\0\0RMIDdata\x99\0\0\0' + b'\1' * 99,
    song(PLAIN, division=0),
    song(PLAIN, division=0xE700),
    song(PLAIN)[:35],
    song(PLAIN, PLAIN, PLAIN)[:80],
    song([(0, b'\x40\x50'), *PLAIN]),  # an event without a type
    song([(0, b''), (0, b'\xff\xff\xff\xff\xff'), *PLAIN]),
    song([(100_000_000, on(60)), (100_000_500, off(60))]),  # 28 h
  ],
)
def test_what_is_no_midi_file_or_lacks_much_is_an_error(tmp_path, data):
  path = tmp_path / 'song.mid'
  path.write_bytes(data)
  with pytest.raises(UserError) as error:
    read_midi(path)
  assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_endless_files_are_refused(tmp_path):
  (tmp_path / 'zero.mid').symlink_to('/dev/zero')
  with open(tmp_path / 'huge.mid', 'wb') as file:
    file.write(song(PLAIN))
    file.truncate(midi_file.MAX_BYTES + 1)
  for name, words in (('zero', 'neither a file nor a folder'), ('huge', 'too many for a MIDI file')):
    with pytest.raises(UserError, match=words):
      read_midi(tmp_path / f'{name}.mid')


@pytest.mark.parametrize('kind', [1, 2])
@pytest.mark.parametrize(
  'body', [b'MTrk', b'MTrk\0\0\0\0', b'MTrk\x7f\0\0\0', b'ABCD\0\0\0\0', b'\0\xb0\x7b\0', b'\xff']
)
def test_files_of_repeated_bytes_are_read_to_their_end(body, kind):
  data = header(1, kind) + b'MTrk' + 20_000 // len(body) * body
  assert not len(midi_notes.midi_notes(midi_file.parse_midi(data)).notes)


def test_tempos_of_all_tracks_form_one_map(read):
  tempos = [(500, TEMPO + b'\x0f\x42\x40')], [(1000, TEMPO + b'\x03\xd0\x90')]  # 60 and 240 bpm
  assert read(song(PLAIN, *tempos)) == ([(0, 500, 60, 56), (1500, 1750, 62, 56)], '')
  both = [[(0, TEMPO + b'\x07\xa1\x20')], [(0, TEMPO + b'\x0f\x42\x40'), *PLAIN]]
  notes, line = read(song(*both))
  assert notes == [(0, 1000, 60, 56), (2000, 3000, 62, 56)] and 'different tempos at the same time' in line


@pytest.mark.parametrize(('frames', 'rate'), [(24, 24), (25, 25), (29, 30_000 / 1001), (30, 30)])
def test_smpte_divisions_are_seconds(read, frames, rate):
  tempo = (0, TEMPO + b'\x0f\x42\x40')  # does not matter
  notes, line = read(song([tempo, *PLAIN], division=(256 - frames) << 8 | 40))
  scale = 1000 / (rate * 40)
  assert notes == [(round(a * scale), round(b * scale), *rest) for a, b, *rest in PLAIN_NOTES] and not line


def test_sequences_of_format_2_have_tempos_and_programs_of_their_own(read):
  slow = [(0, TEMPO + b'\x0f\x42\x40'), (0, program(40)), (0, on(50)), (500, off(50))]
  notes, line = read(song(slow, PLAIN, [(0, on(70)), (100, off(70))], kind=2))
  assert notes == [(0, 100, 70, 0), (0, 1000, 50, 40), *PLAIN_NOTES] and '3 independent sequences' in line
  assert read(song(PLAIN, kind=2)) == (PLAIN_NOTES, '')


def test_program_changes_act_in_every_track_and_sounding_notes_keep_theirs(read):
  notes = [(0, on(60)), (500, off(60)), (500, on(62)), (1500, off(62)), (1500, on(64)), (2000, off(64))]
  changes = [(0, program(5)), (1000, program(6)), (1500, program(7))]
  expected = [(0, 500, 60, 5), (500, 1500, 62, 5), (1500, 2000, 64, 7)]
  for tracks in ((changes, notes), (notes, changes)):
    assert read(song(*tracks)) == (expected, '')
  # A program of the notes' own track is changed as well; other channels are not.
  assert read(song([(0, program(1)), *notes], [(1, program(9, 1)), (400, program(8))]))[0] == [
    (0, 500, 60, 1),
    (500, 1500, 62, 8),
    (1500, 2000, 64, 8),
  ]


def test_tracks_that_share_a_channel_with_different_programs_keep_them(read):
  tracks = [[(0, program(which)), (0, on(60 + which)), (500, off(60 + which))] for which in (1, 2, 3)]
  notes, line = read(song(*tracks))
  assert notes == [(0, 500, 60 + which, which) for which in (1, 2, 3)] and 'share a channel' in line


def test_ports_have_channels_of_their_own(read):
  tracks = [[(0, b'\xff\x21\1' + bytes([which])), (9, program(which)), (9, on(60)), (20, off(60))] for which in (0, 1)]
  assert read(song(*tracks)) == ([(9, 20, 60, 0), (9, 20, 60, 1)], '')


def test_overlapping_notes_of_two_tracks_on_one_channel_end_with_their_own_note_offs(read):
  left, right = [(0, on(60)), (500, off(60))], [(250, on(60)), (1000, off(60))]
  assert read(song(left, right)) == ([(0, 500, 60, 0), (250, 1000, 60, 0)], '')
  notes, line = read(song([(0, on(60)), (0, on(61)), (300, off(61))], [(500, off(60))]))
  assert notes == [(0, 500, 60, 0), (0, 300, 61, 0)]
  assert '1 note-off is in another track' in line


@pytest.mark.parametrize('other_track', [False, True])
@pytest.mark.parametrize(
  ('controls', 'expected'),
  [
    ([(200, 64, 127), (800, 64, 0)], [(0, 800), (600, 800)]),
    ([(200, 64, 127), (800, 121, 0)], [(0, 800), (600, 800)]),
    ([(200, 66, 127), (800, 66, 0)], [(0, 800), (600, 700)]),  # only the first note is held
    ([(550, 66, 127), (800, 66, 0)], [(0, 500), (600, 700)]),
    ([(200, 66, 127), (400, 66, 0)], [(0, 500), (600, 700)]),
    ([(200, 66, 127), (660, 64, 127), (650, 66, 0), (900, 64, 0)], [(0, 650), (600, 900)]),
    ([(200, 66, 127), (640, 64, 127), (650, 66, 0), (900, 64, 0)], [(0, 900), (600, 900)]),
    ([(650, 123, 0)], [(0, 500), (600, 650)]),
    ([(300, 127, 0)], [(0, 300), (600, 700)]),
    ([(0, 123, 0), (600, 123, 0)], [(0, 500), (600, 700)]),
    ([(200, 64, 127), (300, 123, 0), (800, 64, 0)], [(0, 800), (600, 800)]),
    ([(200, 64, 127), (550, 120, 0), (800, 64, 0)], [(0, 550), (600, 800)]),
    ([(200, 7, 127), (300, 67, 127)], [(0, 500), (600, 700)]),
  ],
)
def test_pedals_and_all_notes_off(read, controls, expected, other_track):
  notes = [(0, on(60)), (500, off(60)), (600, on(62)), (700, off(62))]
  events = [(tick, control(which, value)) for tick, which, value in sorted(controls)]
  tracks = [events, notes] if other_track else [sorted([*events, *notes], key=lambda event: event[0])]
  assert read(song(*tracks)) == ([(*times, pitch, 0) for times, pitch in zip(expected, (60, 62), strict=True)], '')


def test_a_chord_that_is_struck_with_the_sostenuto_pedal_is_held_by_a_later_press_only(read):
  chord = [(0, on(60)), (0, control(66, 127)), (100, off(60)), (900, control(66, 0))]
  assert read(song(chord))[0] == [(0, 900, 60, 0)]
  assert read(song([chord[1], chord[0], *chord[2:]]))[0] == [(0, 100, 60, 0)]


def test_a_note_that_sostenuto_holds_ends_when_it_is_struck_again(read):
  events = [(0, on(60)), (100, control(66, 127)), (200, off(60)), (500, on(60)), (600, off(60)), (900, control(66, 0))]
  assert read(song(events))[0] == [(0, 500, 60, 0), (500, 600, 60, 0)]


def test_all_notes_off_ends_notes_that_have_no_note_off(read):
  assert read(song([(0, on(60)), (100, on(62, channel=1)), (400, off(62, 1))], [(300, control(123, 0))])) == (
    [(0, 300, 60, 0), (100, 400, 62, 0)],
    '',
  )


def test_drum_hits_without_length_have_a_nominal_one(read):
  hits = [(0, on(36, channel=9)), (40, on(36, channel=9)), (500, on(38, channel=9)), (500, off(38, 9))]
  tail = [(600, on(40, channel=9)), (700, off(40, 9)), (800, control(123, 0, 9))]
  notes, line = read(song([*hits, *tail]))
  assert notes == [(0, 40, 36, 'drums'), (40, 140, 36, 'drums'), (500, 600, 38, 'drums'), (600, 700, 40, 'drums')]
  assert '3 drum hits have no length, read as 0.1 s' in line and 'lost' not in line


def test_running_status_goes_on_after_meta_events_and_sysex(read):
  events = [(0, on(60)), (500, b'\x3c\0'), (500, b'\xff\1\1x'), (600, b'\x3e\x50'), (650, b'\xf0\2\1\xf7')]
  assert read(song([*events, (700, b'\x3e\0')])) == ([(0, 500, 60, 0), (600, 700, 62, 0)], '')


XG_ON = b'\xf0\x08\x43\x10\x4c\x00\x00\x7e\x00\xf7'
GM2_ON = b'\xf0\x05\x7e\x7f\x09\x03\xf7'
GS_RESET = b'\xf0\x0a\x41\x10\x42\x12\x40\x00\x7f\x00\x41\xf7'


def gs_rhythm(part, value):
  return b'\xf0\x0a\x41\x10\x42\x12\x40' + bytes([0x10 | part, 0x15, value, 0x1B - part - value & 127]) + b'\xf7'


def xg_part_mode(part, value):
  return b'\xf0\x08\x43\x10\x4c\x08' + bytes([part, 7, value]) + b'\xf7'


def banks(msb, which, channel):
  return [(0, control(0, msb, channel)), (0, control(32, 0, channel)), (0, program(which, channel))]


@pytest.mark.parametrize(
  ('setup', 'channel', 'expected'),
  [
    ([(0, GS_RESET), (0, gs_rhythm(0xA, 1))], 10, 'drums'),
    ([(0, GS_RESET), (0, gs_rhythm(1, 2))], 0, 'drums'),
    ([(0, GS_RESET), (0, gs_rhythm(0, 0)), (0, program(33, 9))], 9, 33),
    ([(0, gs_rhythm(1, 1)), (1, GS_RESET), (1, program(5))], 0, 5),
    ([(0, GS_RESET), *banks(127, 7, 2)], 2, 7),  # GS has other tones in bank 127
    ([(0, XG_ON), *banks(127, 0, 2)], 2, 'drums'),
    ([(0, XG_ON), *banks(126, 0, 2)], 2, 'drums'),
    ([(0, XG_ON), *banks(64, 3, 2)], 2, 3),
    ([(0, XG_ON), *banks(0, 33, 9)], 9, 33),
    ([(0, XG_ON), (0, program(16, 9))], 9, 'drums'),
    ([(0, XG_ON), (0, xg_part_mode(3, 2))], 3, 'drums'),
    ([(0, XG_ON), (0, xg_part_mode(9, 0)), (0, program(40, 9))], 9, 40),
    ([(0, GM2_ON), *banks(120, 0, 4)], 4, 'drums'),
    ([(0, GM2_ON), *banks(121, 20, 9)], 9, 20),
    (banks(127, 7, 2), 2, 7),  # neither system is switched on
    (banks(0, 7, 9), 9, 'drums'),
  ],
)
@pytest.mark.parametrize('other_track', [False, True])
def test_drums_are_the_channels_that_the_file_makes_drums(read, setup, channel, expected, other_track):
  notes = [(5, on(60, channel=channel)), (500, off(60, channel))]
  assert read(song(setup, notes) if other_track else song([*setup, *notes])) == ([(5, 500, 60, expected)], '')


def test_a_channel_becomes_drums_from_a_tick_on(read):
  notes = [(0, on(60)), (500, off(60)), (600, on(38)), (700, off(38))]
  assert read(song([(550, gs_rhythm(1, 1))], notes))[0] == [(0, 500, 60, 0), (600, 700, 38, 'drums')]


@pytest.mark.parametrize(
  'wrapper',
  [
    lambda data: b'RIFF\x99\0\0\0RMIDLIST\5\0\0\0INFO!data' + struct.pack('<I', len(data)) + data,  # no padding
    lambda data: b'RIFF\x99\0\0\0RMIDdata' + struct.pack('<I', 30) + data,
    lambda data: b'RIFF\x99\0\0\0RMIDDATA' + struct.pack('<I', len(data)) + data,
    lambda data: b'RIFX\0\0\0\x99RMIDdata' + struct.pack('>I', len(data)) + data,
    lambda data: b'\0\4song' + b'\0' * 77 + struct.pack('>I', 30) + b'\0' * 41 + data + b'\0' * 60,
  ],
)
def test_wrappers_with_wrong_lengths(read, wrapper):
  notes, line = read(wrapper(song(PLAIN)))
  assert notes == PLAIN_NOTES and 'it is wrapped in a' in line


@pytest.mark.parametrize(
  'event',
  [
    b'\xff\x03\x7fname',  # longer than the track
    b'\xff\x03\x04' + 'ピアノ1'.encode('shift_jis'),  # counted in characters
    b'\xff\x01\x02words of a song',
    b'\xf0\x7e\x7f\x09\x01\xf7',  # without a length
  ],
)
def test_events_of_a_wrong_length(read, event):
  notes, line = read(song([(0, event), *PLAIN]))
  assert notes == PLAIN_NOTES and 'track 1 has an event of a wrong length' in line


@pytest.mark.parametrize('place', [1, 3, 5])
def test_events_that_are_longer_than_the_track(read, place):
  notes, line = read(song([*PLAIN[:place], (PLAIN[min(place, 4)][0], b'\xff\x03\x7fname'), *PLAIN[place:]]))
  assert notes == PLAIN_NOTES and 'track 1 has an event of a wrong length' in line


def test_events_that_hide_the_rest_of_a_track_are_an_error(tmp_path):
  path = tmp_path / 'song.mid'
  path.write_bytes(header(1) + chunk((0, b'\xff\x03\x7fname'), *PLAIN, end=b''))
  with pytest.raises(UserError, match='longer than the track'):
    read_midi(path)


def test_events_after_the_end_of_a_track(read):
  notes, line = read(song([*PLAIN[:3], (700, END), *PLAIN[3:]]))
  assert notes == PLAIN_NOTES and 'track 1 goes on after its end' in line
  notes, line = read(header(1) + chunk(*PLAIN, end=END + bytes(9)))
  assert notes == PLAIN_NOTES and '9 bytes after its end' in line


def test_a_second_file_behind_the_first_is_ignored(read):
  notes, line = read(song(PLAIN) + song(PLAIN))
  assert notes == PLAIN_NOTES and 'another MIDI file follows' in line


def test_escaped_messages_are_mentioned(read):
  notes, line = read(song([*PLAIN, (1600, b'\xf7\3\x90\x40\x50')]))
  assert notes == PLAIN_NOTES and 'escaped messages' in line
  packets = [(1600, b'\xf0\3\x43\x12\0'), (1700, b'\xf7\3\x43\x12\xf7')]
  assert read(song([*PLAIN, *packets])) == (PLAIN_NOTES, '')


@pytest.mark.parametrize(
  ('start', 'words'),
  [(b'\x1f\x8b\x08', 'gzip'), (b'PK\3\4', 'zip archive'), (b'', 'it is empty'), (bytes(40), 'empty')],
)
def test_archives_and_empty_files_are_named(tmp_path, start, words):
  path = tmp_path / 'song.mid'
  path.write_bytes(start + song(PLAIN) if any(start) else start)
  with pytest.raises(UserError, match=words):
    read_midi(path)


def test_performances_are_read_without_their_pedal(tmp_path):
  (tmp_path / 'a.mid').write_bytes(song([*PLAIN, (1600, control(64, 0))], [(100, control(64, 90))]))
  notes, pedal = read_performance(tmp_path / 'a.mid')
  assert notes['offset'].tolist() == [0.5, 1.5] and pedal == [(0.1, 90), (1.6, 0)]


ROW = st.tuples(*(st.integers(*ends) for ends in ((0, 3000), (1, 900), (0, 127), (1, 127), (0, 127))))


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(st.lists(st.tuples(ROW, st.booleans()), max_size=40), st.data())
def test_what_is_written_is_read_in_any_wrapper(tmp_path_factory, rows, draw):
  notes = as_notes([(on / 1000, (on + length) / 1000, *rest, drum) for (on, length, *rest), drum in rows])
  data = midi_bytes(notes)
  path = tmp_path_factory.mktemp('midi') / 'song.mid'
  path.write_bytes(data)
  expected = read_midi(path)
  wrapped = draw.draw(
    st.sampled_from(
      [
        b'RIFF\0\0\0\0RMIDdata' + struct.pack('<I', len(data)) + data,
        b'\0' * 83 + struct.pack('>I', len(data)) + b'\0' * 41 + data + b'\0' * 100,
        data[:14] + b'XFIH\0\0\0\4abcd' + data[14:],
        data[:-1],
      ]
    )
  )
  path.write_bytes(wrapped)
  with pytest.warns(DataWarning):
    np.testing.assert_array_equal(read_midi(path), expected)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.binary(max_size=300), st.integers(0, 2), st.booleans())
def test_arbitrary_tracks_are_read_or_raise_user_errors(tmp_path_factory, data, kind, is_whole):
  path = tmp_path_factory.getbasetemp() / 'arbitrary.mid'
  length = len(data) if is_whole else 0xFFFF
  path.write_bytes(header(1, kind) + b'MTrk' + struct.pack('>I', length) + data)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    try:
      notes = read_midi(path)
    except UserError as error:
      assert '\n' not in str(error)
      return
  assert (notes['offset'] > notes['onset']).all() and (notes['pitch'] <= 127).all() and (notes['velocity'] <= 127).all()
