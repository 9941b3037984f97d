import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.errors import UserError
from mrmt3.notes import midi as midi_io
from mrmt3.notes.note_array import as_notes, as_rows, empty_notes, sort_notes, trim_overlapping_notes

NOTES = as_notes(
  [
    (0.0, 0.5, 60, 80, 0, 0),
    (0.5, 1.0, 60, 90, 0, 0),  # struck again where it ends
    (0.25, 2.125, 43, 100, 33, 0),
    (0.25, 0.26, 36, 127, 0, 1),
    (3600.001, 3600.002, 38, 1, 0, 1),
  ]
)


def test_notes_round_trip(tmp_path):
  midi_io.write_midi(NOTES[::-1], tmp_path / 'song.mid')
  np.testing.assert_allclose(as_rows(midi_io.read_midi(tmp_path / 'song.mid')), as_rows(sort_notes(NOTES)), atol=1e-6)
  assert [path.name for path in tmp_path.iterdir()] == ['song.mid']


@settings(max_examples=40, deadline=None)
@given(
  st.lists(
    st.tuples(
      st.integers(0, 5000),
      st.integers(1, 900),
      st.integers(0, 127),
      st.integers(1, 127),
      st.integers(0, 127),
      st.booleans(),
    ),
    max_size=50,
  )
)
def test_arbitrary_notes_in_milliseconds_round_trip(tmp_path_factory, rows):
  notes = as_notes(
    [
      (on / 1000, (on + length) / 1000, pitch, velocity, 0 if drum else program, drum)
      for on, length, pitch, velocity, program, drum in rows
    ]
  )
  path = tmp_path_factory.mktemp('midi') / 'song.mid'
  midi_io.write_midi(notes, path)
  expected = sort_notes(trim_overlapping_notes(notes))
  np.testing.assert_allclose(as_rows(midi_io.read_midi(path)), as_rows(expected), atol=1e-6)


def test_tracks_have_names_and_drums_are_on_channel_10(tmp_path):
  midi_io.write_midi(NOTES, tmp_path / 'song.mid')
  midi = pretty_midi.PrettyMIDI(str(tmp_path / 'song.mid'))
  tracks = [(track.name, track.program, track.is_drum) for track in midi.instruments]
  assert tracks == [('Acoustic Piano', 0, False), ('Electric Bass', 33, False), ('Drums', 0, True)]
  assert midi.resolution == 500
  assert midi.get_tempo_changes()[1].tolist() == [120.0]


def test_many_instruments_get_distinct_channels_and_ports(tmp_path):
  mido = pytest.importorskip('mido')
  notes = as_notes([(0.1 * i, 0.1 * i + 1, 60, 80, i, 0) for i in range(40)] + [(0, 0.01, 36, 80, 0, 1)])
  path = tmp_path / 'band.mid'
  midi_io.write_midi(notes, path)
  np.testing.assert_allclose(as_rows(midi_io.read_midi(path)), as_rows(sort_notes(notes)), atol=1e-6)
  places = []
  for track in mido.MidiFile(path).tracks[1:]:
    port = next((m.port for m in track if m.type == 'midi_port'), 0)
    channels = {m.channel for m in track if not m.is_meta}
    places.extend((port, channel) for channel in channels)
    assert (9 in channels) == (track.name == 'Drums')
  assert len(places) == len(set(places)) == 41


def test_an_empty_table_is_a_valid_file(tmp_path):
  midi_io.write_midi(empty_notes(), tmp_path / 'silence.mid')
  assert len(midi_io.read_midi(tmp_path / 'silence.mid')) == 0


def test_hours_of_music_are_read_back(tmp_path):
  notes = as_notes([(0.5, 1.0, 60, 100, 0, 0), (15_000.0, 15_001.0, 62, 100, 0, 0)])
  midi_io.write_midi(notes, tmp_path / 'long.mid')
  np.testing.assert_array_equal(midi_io.read_midi(tmp_path / 'long.mid'), notes)


def test_very_short_notes_are_not_lost(tmp_path):
  midi_io.write_midi(as_notes([(1.0, 1.0001, 60, 80, 0, 0)]), tmp_path / 'short.mid')
  np.testing.assert_allclose(midi_io.read_midi(tmp_path / 'short.mid')['offset'], [1.001])


def test_drums_are_one_track_whatever_their_program(tmp_path):
  midi_io.write_midi(as_notes([(0, 1, 36, 80, 5, 1), (0, 1, 38, 80, 0, 1)]), tmp_path / 'drums.mid')
  notes = midi_io.read_midi(tmp_path / 'drums.mid')
  assert notes['program'].tolist() == [0, 0]
  assert notes['is_drum'].all()


@pytest.mark.parametrize(
  'row',
  [
    (0, 1, 128, 80, 0, 0),
    (0, 1, 60, 0, 0, 0),
    (0, 1, 60, 80, -1, 0),
    (-1, 1, 60, 80, 0, 0),
    (np.nan, 1, 60, 80, 0, 0),
    (0, np.inf, 60, 80, 0, 0),
  ],
)
def test_notes_out_of_range_raise_and_write_nothing(tmp_path, row):
  with pytest.raises(ValueError, match='a note'):
    midi_io.write_midi(as_notes([row]), tmp_path / 'song.mid')
  assert not list(tmp_path.iterdir())


def test_unwritable_paths_raise_user_errors(tmp_path):
  (tmp_path / 'file').write_text('not a folder')
  for path in (tmp_path / 'file' / 'song.mid', tmp_path, '/dev/full/song.mid'):
    with pytest.raises(UserError, match='cannot'):
      midi_io.write_midi(NOTES, path)
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'song.mid'
  midi_io.write_midi(NOTES, path)
  before = path.read_bytes()
  assert before == midi_io.midi_bytes(NOTES)

  def disk_full(self, data):
    with open(self, 'wb') as file:
      file.write(data[:20])
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(type(path), 'write_bytes', disk_full)
  with pytest.raises(UserError, match='No space left'):
    midi_io.write_midi(NOTES[:1], path)
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ['song.mid']


def test_invalid_midi_files_raise_one_line_user_errors(tmp_path):
  midi_io.write_midi(NOTES, tmp_path / 'whole.mid')
  whole = (tmp_path / 'whole.mid').read_bytes()
  broken = {
    'empty.mid': b'',
    'text.mid': b'not music\n' * 20,
    'cut.mid': whole[: len(whole) // 2 + 20],  # in a track
    'header.mid': whole[:14],
    'riff.mid': b'RIFF' + whole[4:],
  }
  for name, content in broken.items():
    (tmp_path / name).write_bytes(content)
  for path in (*(tmp_path / name for name in broken), tmp_path / 'missing.mid', tmp_path):
    with pytest.raises(UserError) as caught:
      midi_io.read_midi(path)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_damaged_bytes_are_read_or_raise_user_errors(tmp_path):
  path = tmp_path / 'song.mid'
  midi_io.write_midi(NOTES[:4], path)
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  refused = 0
  for _ in range(150):
    damaged = bytearray(whole)
    damaged[rng.integers(len(whole))] = rng.integers(256)
    path.write_bytes(damaged)
    try:
      midi_io.read_midi(path)
    except UserError:
      refused += 1
  assert 0 < refused < 150


def sustained(notes, pedal):
  """Return (onset, offset) with the pedal applied; notes are (onset, offset[, pitch]), pedal (time, value) of CC 64."""
  rows = as_notes([(n[0], n[1], n[2] if len(n) > 2 else 60, 80, 0, 0) for n in notes])
  times, values = np.array(pedal, float).reshape(-1, 2).T
  end = max([n[1] for n in notes] + [time for time, _ in pedal])
  result = midi_io.apply_sustain(rows, times, values >= 64, end)
  return [(n['onset'].item(), n['offset'].item()) for n in result]


@pytest.mark.parametrize(
  ('notes', 'pedal', 'expected'),
  [  # note_seq's results
    ([(0, 1)], [], [(0, 1)]),
    ([(0, 1)], [(0.5, 127), (3, 0)], [(0, 3)]),
    ([(0, 1), (2, 2.5)], [(0.5, 127), (3, 0)], [(0, 2), (2, 3)]),
    ([(0, 1), (2, 2.5, 61)], [(0.5, 127), (3, 0)], [(0, 3), (2, 3)]),
    ([(0, 1), (0, 5, 61)], [(0.5, 127)], [(0, 5), (0, 5)]),  # never released
    ([(0, 1)], [(1, 127), (3, 0)], [(0, 3)]),  # down just when the note ends
    ([(0, 1)], [(0, 127), (1, 0)], [(0, 1)]),  # up just when the note ends
    ([(0, 1)], [(0, 127), (1, 0), (1, 127), (4, 0)], [(0, 1)]),
    ([(0, 1)], [(0, 63), (3, 0)], [(0, 1)]),
    ([(0, 1)], [(0, 64), (3, 63)], [(0, 3)]),
    ([(0, 5), (2, 3)], [(0.5, 127), (8, 0)], [(0, 2), (2, 8)]),  # struck again with the pedal down
    ([(0, 1), (1, 2)], [(0.5, 127), (8, 0)], [(0, 1), (1, 8)]),
    ([(0, 1), (3, 4)], [(0.5, 127), (3, 0)], [(0, 3), (3, 4)]),
    ([(0, 1), (0, 2)], [(0, 127), (3, 0)], [(0, 3)]),
    ([(0, 1), (0, 2)], [(0.5, 127), (3, 0)], [(0, 3), (0, 3)]),
  ],
)
def test_sustain(notes, pedal, expected):
  assert sustained(notes, pedal) == expected
  assert sustained(notes, pedal[::-1]) == expected  # the order of the list does not matter


def test_pedals_apply_to_their_track_and_not_to_drums(tmp_path):
  midi = pretty_midi.PrettyMIDI(resolution=500)
  for program, is_drum, pedal in ((0, False, True), (40, False, False), (0, True, True)):
    track = pretty_midi.Instrument(program, is_drum)
    track.notes.append(pretty_midi.Note(80, 60, 0.0, 1.0))
    if pedal:
      track.control_changes += [pretty_midi.ControlChange(64, 127, 0.5), pretty_midi.ControlChange(64, 0, 2.0)]
    track.pitch_bends.append(pretty_midi.PitchBend(4000, 0.5))
    midi.instruments.append(track)
  midi.write(str(tmp_path / 'song.mid'))
  for notes in (midi_io.read_midi(tmp_path / 'song.mid'), midi_io.notes_from_midi_data(midi)):
    assert notes['offset'].tolist() == [2.0, 1.0, 1.0]
    assert notes['program'].tolist() == [0, 40, 0]
    assert notes['is_drum'].tolist() == [False, False, True]
