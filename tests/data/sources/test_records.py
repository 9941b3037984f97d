"""Tests of reading MT3's TFRecords: records in MT3's published layouts, written by TensorFlow and note_seq."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.data.piece_source import PieceSource
from mrmt3.data.piece_validation import LEFT_OUT
from mrmt3.data.records import messages
from mrmt3.data.records.layouts import LAYOUTS
from mrmt3.data.records.tfrecord import masked_crc32c
from mrmt3.data.sources.mt3_records import PUBLISHED, Mt3Records, published
from mrmt3.errors import UserError
from mrmt3.notes.note_array import as_notes, as_rows, sort_notes

RATE = 16000
PIANO = as_notes([(0.1, 0.5, 60, 90, 0, 0), (0.5, 1.25, 67, 80, 0, 0)])
DRUMS = as_notes([(0.0, 0.1, 36, 100, 0, 1), (0.5, 0.6, 38, 100, 0, 1)])


def tone(frequency, seconds=1.5, rate=RATE):
  return (0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(samples, rate=44100):
  file = io.BytesIO()
  soundfile.write(file, samples, rate, format='WAV', subtype='PCM_16')
  return file.getvalue()


def sequence(notes, pedal=(), instrument=0):
  """Return a NoteSequence as note_seq writes it; `pedal` is (time, value, instrument)."""
  import note_seq

  proto = note_seq.NoteSequence(id='x', filename='x.mid', ticks_per_quarter=220)
  proto.tempos.add(qpm=120)
  proto.pitch_bends.add(time=0.2, bend=300)
  for note in notes.tolist():
    onset, offset, pitch, velocity, program, is_drum, _ = note
    proto.notes.add(
      start_time=onset,
      end_time=offset,
      pitch=pitch,
      velocity=velocity,
      program=program,
      is_drum=is_drum,
      instrument=9 if is_drum else instrument,
    )
  for time, value, number in pedal:
    proto.control_changes.add(time=time, control_number=64, control_value=value, instrument=number)
  proto.control_changes.add(time=0.3, control_number=7, control_value=100)
  return proto.SerializeToString()


def example(**features):
  import tensorflow as tf

  def feature(value):
    if isinstance(value, bytes):
      value = [value]
    value = np.atleast_1d(value) if not isinstance(value, list) else value
    if isinstance(value, list) and (not value or isinstance(value[0], bytes)):
      return tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
    if np.asarray(value).dtype.kind == 'f':
      return tf.train.Feature(float_list=tf.train.FloatList(value=value))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=value))

  features = {name: feature(value) for name, value in features.items()}
  return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path, records):
  import tensorflow as tf

  path.parent.mkdir(parents=True, exist_ok=True)
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)


def band(names, tables, rate=RATE, **changes):
  """Return a record of Slakh or Cerberus4."""
  stems = np.stack([tone(110 * (number + 2), rate=rate) for number in range(len(names))])
  features = {
    'audio_sample_rate': rate,
    'inst_names': [name.encode() for name in names],
    'midi_class': [0] * len(names),
    'mix': stems.sum(axis=0),
    'note_sequences': [sequence(table) for table in tables],
    'plugin_name': [1] * len(names),
    'program_num': [3] * len(names),
    'slakh_class': [2] * len(names),
    'src_ids': [b'S00'] * len(names),
    'stems': stems.ravel(),
    'stems_shape': list(stems.shape),
    'target_type': b'multi',
    'track_id': b'Track00007',
    **changes,
  }
  return example(**features)


def records_of(layout):
  """Return (record, its notes) in a layout."""
  if layout == 'maestro':
    notes = as_notes([(0.1, 0.3, 60, 90, 0, 0)])
    return example(audio=wav(tone(440, rate=44100)), sequence=sequence(notes), id=b'm'), notes
  if layout == 'guitarset':
    record = example(audio=wav(tone(440, rate=44100)), sequence=sequence(PIANO), id=b'g', velocity_range=b'\x08\x7f')
    notes = PIANO.copy()
    notes['program'] = 24
    return record, notes
  if layout == 'urmp':
    players = [sequence(PIANO), sequence(PIANO[:1])]
    record = example(
      id=b'u',
      tracks=[1, 2],
      inst_names=[b'vn', b'tba'],
      audio=wav(tone(440, rate=44100)),
      sequence=sequence(PIANO),
      instrument_sequences=players,
    )
    return record, as_notes([(0.1, 0.5, 60, 90, 40, 0), (0.1, 0.5, 60, 90, 58, 0), (0.5, 1.25, 67, 80, 40, 0)])
  if layout == 'musicnet':
    notes = as_notes([(0.1, 0.5, 60, 90, 41, 0), (0.5, 1.25, 67, 80, 6, 0)])
    return example(id=b'1', sample_rate=float(RATE), audio=tone(440), sequence=sequence(notes)), notes
  names = ['bass', 'drums', 'guitar', 'piano'] if layout == 'cerberus4' else ['Drums', 'Synth Pad']
  tables = [PIANO, DRUMS, PIANO[:1], PIANO[1:]] if layout == 'cerberus4' else [DRUMS, PIANO]
  expected = []
  for name, table in zip(names, tables, strict=True):
    table = table.copy()
    program = LAYOUTS[layout].programs[name]
    table['program'], table['is_drum'] = program or 0, program is None
    expected.append(table)
  return band(names, tables), sort_notes(np.concatenate(expected))


@pytest.mark.parametrize('layout', list(LAYOUTS))
def test_every_published_layout_is_read(tmp_path, layout):
  record, notes = records_of(layout)
  write_records(tmp_path / 'a.tfrecord', [record, record])
  source = pickle.loads(pickle.dumps(Mt3Records(str(tmp_path), layout, {'train': 'a.tfrecord'})))
  assert isinstance(source, PieceSource) and source.splits() == ('train',)
  assert source.list_pieces('train') == ['a.tfrecord#0', 'a.tfrecord#1']
  content = source.read_piece('train', 'a.tfrecord#1', RATE)
  np.testing.assert_array_equal(as_rows(content.notes), as_rows(notes))
  assert content.samples.dtype == np.float32 and content.samples.shape == (24000,) and content.stems is None
  assert 0.25 < np.abs(content.samples).max() < 1.2
  slow = source.read_piece('train', 'a.tfrecord#1', RATE // 2)
  assert slow.samples.shape == (12000,)


@pytest.mark.parametrize('by_row', [True, False])
def test_stems_of_a_band(tmp_path, by_row):
  names, tables = ['Drums', 'Organ', 'Oboe'], [DRUMS, PIANO, PIANO[1:]]
  changes = {}
  if not by_row:
    stems = np.stack([tone(110 * (number + 2)) for number in range(3)]).T
    changes = {'stems': stems.ravel(), 'stems_shape': list(stems.shape)}
  write_records(tmp_path / 'a', [band(names, tables, **changes), band(names, tables, stems=[], stems_shape=[0, 0])])
  source = Mt3Records(str(tmp_path), 'slakh', {'train': 'a'})
  content = source.read_piece('train', 'a#0', RATE, stems=True)
  np.testing.assert_array_equal(content.stems, [tone(220), tone(330), tone(440)])
  np.testing.assert_array_equal(content.samples, content.stems.sum(axis=0))
  np.testing.assert_array_equal(content.notes['program'], [0, 16, 16, 68, 0])
  np.testing.assert_array_equal(content.note_stem, [0, 1, 1, 2, 0])
  assert source.read_piece('train', 'a#0', RATE // 2, stems=True).stems.shape == (3, 12000)
  assert source.read_piece('train', 'a#1', RATE, stems=True).stems is None


_NOTES = st.lists(
  st.tuples(st.integers(0, 40), st.integers(1, 20), st.integers(60, 62), st.integers(0, 1), st.booleans()), max_size=12
)
_PEDAL = st.lists(st.tuples(st.integers(0, 70), st.sampled_from([0, 63, 64, 127]), st.integers(0, 1)), max_size=8)


@settings(max_examples=150, deadline=None)
@given(_NOTES, _PEDAL)
def test_sustain_is_that_of_note_seq(drawn, pedal):
  """An instrument's pedal sustains its own notes, except drums."""
  import note_seq

  from mrmt3.data.records.layouts import _sustained

  proto = note_seq.NoteSequence()
  used = set()
  for onset, length, pitch, instrument, is_drum in drawn:
    # Two notes with the same onset and pitch cannot be distinguished, and note_seq removes one of them.
    if (onset, pitch, instrument) not in used:
      used.add((onset, pitch, instrument))
      proto.notes.add(
        start_time=onset / 8,
        end_time=(onset + length) / 8,
        pitch=pitch,
        velocity=len(used),
        program=instrument,
        instrument=9 if is_drum else instrument,
        is_drum=is_drum,
      )
  for time, value, instrument in pedal:
    proto.control_changes.add(time=time / 8, control_number=64, control_value=value, instrument=instrument)
  expected, _ = messages.sequence_notes(note_seq.apply_sustain_control_changes(proto))
  ours = _sustained(messages.parse_note_sequence(proto.SerializeToString()))
  np.testing.assert_array_equal(as_rows(sort_notes(ours)), as_rows(sort_notes(expected)))


def test_notes_without_length_stay_in_the_note_array(tmp_path):
  notes = as_notes([(0.1, 0.1, 60, 90, 0, 0), (0.2, 0.1, 61, 90, 0, 0), (0.3, 0.4, 62, 0, 0, 0)])
  for pedal in ((), [(0.0, 127, 0)]):
    write_records(tmp_path / 'a', [example(audio=wav(tone(440)), sequence=sequence(notes, pedal), id=b'')])
    content = Mt3Records(str(tmp_path), 'maestro', {'train': 'a'}).read_piece('train', 'a#0', RATE)
    np.testing.assert_array_equal(content.notes['pitch'], [60, 61, 62])


def test_checksum_of_known_data():
  # RFC 3720, B.4, and the check value of the CRC catalogue, masked: rotated right by 15 bits, plus 0xA282EAD8.
  for data, checksum in (
    (b'123456789', 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b'\xff' * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (b'', 0),
  ):
    bits = f'{checksum:032b}'
    assert masked_crc32c(data) == (int(bits[-15:] + bits[:-15], 2) + 0xA282EAD8) % 2**32


def test_large_record_has_tensorflows_checksum(tmp_path):
  record = example(id=b'1', sample_rate=float(RATE), audio=np.resize(tone(440), 3_000_001), sequence=sequence(PIANO))
  write_records(tmp_path / 'a', [record])
  source = Mt3Records(str(tmp_path), 'musicnet', {'train': 'a'})
  assert len(source.read_piece('train', 'a#0', RATE).samples) == 3_000_001


@pytest.fixture
def three(tmp_path):
  """A file of three records, and the offset of each one's data."""
  record, _ = records_of('musicnet')
  path = tmp_path / 'a.tfrecord-00000-of-00001'
  write_records(path, [record] * 3)
  return path, [12 + number * (len(record) + 16) for number in range(3)]


def damage(path, at):
  data = bytearray(path.read_bytes())
  data[at] ^= 0x40
  path.write_bytes(data)


def outcomes(path):
  """Return the error or the number of notes of each listed record."""
  source = Mt3Records(str(path.parent), 'musicnet', {'train': 'a.tfrecord@1'})
  found = []
  for name in source.list_pieces('train'):
    try:
      found.append(len(source.read_piece('train', name, RATE).notes))
    except UserError as error:
      assert str(path) in str(error) and f'record {name[-1]}' in str(error) and '\n' not in str(error)
      found.append(str(error))
  return found


def test_damaged_data_is_named_and_the_others_are_read(three):
  path, starts = three
  damage(path, starts[1] + 5000)
  first, second, third = outcomes(path)
  assert (first, third) == (2, 2) and 'its data is damaged' in second


def test_damaged_header_is_named_where_it_is(three):
  path, starts = three
  damage(path, starts[1] - 12)
  first, second = outcomes(path)
  assert first == 2 and 'its header is damaged' in second


@pytest.mark.parametrize(('where', 'text'), [(100, 'ends within it'), (-6, 'ends within its header')])
def test_file_that_is_cut_off_is_named(three, where, text):
  path, starts = three
  path.write_bytes(path.read_bytes()[: starts[2] + where])
  first, second, third = outcomes(path)
  assert (first, second) == (2, 2) and text in third


def test_a_record_changed_on_disk_is_seen(three):
  path, starts = three
  source = Mt3Records(str(path.parent), 'musicnet', {'train': 'a.tfrecord@1'})
  before = source.fingerprint('train')
  assert len(source.list_pieces('train')) == 3
  path.write_bytes(path.read_bytes()[: starts[2] - 12])
  assert len(source.list_pieces('train')) == 2 and source.fingerprint('train') != before


@pytest.mark.parametrize(
  ('layout', 'record', 'text'),
  [
    ('maestro', lambda: b'\xff' * 40, 'tf.train.Example'),
    ('maestro', lambda: example(sequence=sequence(PIANO), id=b''), "no feature 'audio', only id, sequence"),
    ('maestro', lambda: example(audio=b'junk', sequence=sequence(PIANO)), 'as audio'),
    ('maestro', lambda: example(audio=wav(tone(440)), sequence=b'\xff' * 20), "'sequence' holds no NoteSequence"),
    ('maestro', lambda: example(audio=tone(440), sequence=sequence(PIANO)), "'audio' has 24000 values"),
    ('musicnet', lambda: example(audio=b'RIFF', sample_rate=16000.0, sequence=sequence(PIANO)), 'holds no samples'),
    ('musicnet', lambda: example(audio=tone(440), sample_rate=0.0, sequence=sequence(PIANO)), 'sample rate is 0 Hz'),
    ('slakh', lambda: band(['Kazoo'], [PIANO]), "unknown instrument 'Kazoo'"),
    ('slakh', lambda: band(['Organ', 'Oboe'], [PIANO]), '1 note sequences for 2 instruments'),
    ('slakh', lambda: band(['Organ'], [PIANO], stems_shape=[1, 7]), r'stems of shape \[1, 7\]'),
  ],
)
def test_a_record_that_is_not_in_its_layout_is_named(tmp_path, layout, record, text):
  write_records(tmp_path / 'a', [record()])
  source = Mt3Records(str(tmp_path), layout, {'train': 'a'})
  with pytest.raises(UserError, match=text) as caught:
    source.read_piece('train', 'a#0', RATE, stems=True)
  assert 'a: record 0' in str(caught.value) and '\n' not in str(caught.value)


def test_nan_samples_are_left_to_validation(tmp_path):
  samples = tone(440)
  samples[5] = np.nan
  write_records(tmp_path / 'a', [example(audio=samples, sample_rate=8000.0, sequence=sequence(PIANO))])
  content = Mt3Records(str(tmp_path), 'musicnet', {'train': 'a'}).read_piece('train', 'a#0', RATE)
  assert np.isnan(content.samples).sum() == 1


def test_patterns_of_files(tmp_path):
  for name in ('x/a-00000-of-00003', 'x/a-00002-of-00003', 'b'):
    write_records(tmp_path / name, [records_of('maestro')[0]])
  (tmp_path / 'empty').touch()
  splits = {'train': 'x/a-?????-of-00003', 'all': 'x/a@3', 'one': 'b', 'none': 'c*', 'empty': 'empty'}
  source = Mt3Records(str(tmp_path), 'maestro', splits)
  assert source.list_pieces('train') == ['x/a-00000-of-00003#0', 'x/a-00002-of-00003#0']
  assert len(source.read_piece('train', 'x/a-00002-of-00003#0', RATE).notes) == 1
  assert source.splits() == ('train', 'one', 'empty')
  for split, text in (
    ('all', '1 of the 3 files .* are missing, the first is .*a-00001-of-00003'),
    ('none', 'no files'),
    ('empty', 'no records'),
    ('test', "no split 'test', only train, all"),
  ):
    with pytest.raises(UserError, match=text):
      source.list_pieces(split)
  for name in ('b', 'b#1', 'b#x', 'c#0'):
    with pytest.raises(UserError):
      source.read_piece('one', name, RATE)
  with pytest.raises(UserError, match='unknown record layout'):
    Mt3Records(str(tmp_path), 'midi', {})
  with pytest.raises(UserError, match='no such folder'):
    Mt3Records(str(tmp_path / 'nowhere'), 'maestro', splits).splits()
  with pytest.raises(UserError, match='no files'):
    Mt3Records(str(tmp_path), 'maestro', {'train': 'c'}).splits()


def test_published_data_sets_are_found_by_their_file_names(tmp_path):
  names = {
    'maestrov3': 'maestro-v3.0.0_ns_wav_train.tfrecord-00004-of-00025',
    'urmp': 'train.tfrecord',
    'slakh': 'slakh_multi_full_subsets_10_train_all_inst.tfrecord-00000-of-02307',
    'cerberus4': 'slakh_multi_cerberus_train_bass:drums:guitar:piano.tfrecord-00000-of-00286',
  }
  for name, file in names.items():
    source = published(name, tmp_path / name)
    write_records(tmp_path / name / file, [records_of(source.layout)[0]])
    assert source.splits() == ('train',) if name == 'urmp' else ('train', 'train_subset')
    assert source.list_pieces('train') == [f'{file}#0']
    assert len(source.read_piece('train', f'{file}#0', RATE).notes)
  with pytest.raises(UserError, match='unknown data set'):
    published('mozart', tmp_path)
  assert {layout for layout, _ in PUBLISHED.values()} == set(LAYOUTS)


def test_reading_imports_neither_tensorflow_nor_note_seq(tmp_path):
  write_records(tmp_path / 'a', [records_of('maestro')[0]])
  code = (
    'import sys\n'
    'from mrmt3.data.sources.mt3_records import Mt3Records\n'
    f'source = Mt3Records({str(tmp_path)!r}, "maestro", {{"train": "a"}})\n'
    'assert len(source.read_piece("train", source.list_pieces("train")[0], 16000).notes) == 1\n'
    'assert not {"tensorflow", "note_seq"} & set(sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_serialized_notes_come_back_exactly():
  import note_seq

  notes = as_notes([(0.1, 1 / 3, 60, 90, 5, 0), (0.2, 0.4, 36, 1, 0, 1), (0.2, 9.9, 60, 90, 88, 0)])
  data = messages.serialize_notes(notes, 'name', 12.5)
  back, _ = messages.sequence_notes(messages.parse_note_sequence(data))
  np.testing.assert_array_equal(as_rows(back), as_rows(notes))
  proto = note_seq.NoteSequence.FromString(data)
  assert proto.id == 'name' and proto.total_time == 12.5 and [n.instrument for n in proto.notes] == [0, 9, 1]


def test_one_damaged_record_among_a_thousand(tmp_path):
  from mrmt3.data.piece_cache import prepare

  good = records_of('musicnet')[0]
  nothing = example(id=b'1', sample_rate=float(RATE), audio=np.zeros(100, np.float32), sequence=sequence(PIANO))
  path = tmp_path / 'a-00000-of-00001'
  short = example(id=b'1', sample_rate=float(RATE), audio=tone(440, 0.2), sequence=sequence(PIANO[:1]))
  write_records(path, [*[short] * 600, good, nothing, *[short] * 398])
  damage(path, 12 + 600 * (len(short) + 16) + 9000)
  source = Mt3Records(str(tmp_path), 'musicnet', {'train': 'a@1'})
  store = prepare(source, 'train', RATE, cache_dir=tmp_path / 'cache', progress=False, workers=1)
  assert len(store) == 998
  left_out = {line['piece']: line for line in store.skipped() if line['action'] == LEFT_OUT}
  assert {piece: line['problem'] for piece, line in left_out.items()} == {
    f'{path.name}#600': 'unreadable',
    f'{path.name}#601': 'silence',
  }
  assert 'record 600' in left_out[f'{path.name}#600']['text']
  with pytest.raises(UserError, match='strict'):
    prepare(source, 'train', RATE, cache_dir=tmp_path / 'other', progress=False, workers=1, strict=True)
