"""Tests of converting MAESTRO, GuitarSet, MusicNet and Slakh from their original folders to MT3's records."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_datasets
from command_line import run

from mrmt3.audio import files as audio_files
from mrmt3.cli import dataset
from mrmt3.data import catalogue, slakh_layout
from mrmt3.data.convert.base import Options
from mrmt3.data.convert.guitarset import GuitarSet, read_jams
from mrmt3.data.convert.maestro import Maestro
from mrmt3.data.convert.musicnet import TEST, VALIDATION, MusicNet
from mrmt3.data.convert.slakh2100 import Slakh2100
from mrmt3.data.convert.write_records import convert, files_of_split
from mrmt3.data.records.messages import Example, serialize_example
from mrmt3.data.records.tfrecord import framed, read_record
from mrmt3.data.sources.mt3_records import PUBLISHED, published
from mrmt3.errors import UserError
from mrmt3.notes import midi
from mrmt3.notes.note_array import as_rows, sort_notes

RATE = 16000


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
  return small_datasets.write_originals(tmp_path_factory.mktemp('originals'))


@pytest.fixture(scope='module')
def records(tmp_path_factory, originals):
  """The records of every data set in ORIGINALS, one folder each."""
  root = tmp_path_factory.mktemp('records')
  for name, folder in originals.items():
    labels = str(folder / 'musicnet_em') if name == 'musicnet_em' else None
    convert(name, folder, root, Options(labels=labels), workers=1, progress=False)
  return root


def pieces(source):
  """Return {(split, name): content}, without the subsets of splits."""
  splits = [split for split in source.splits() if not split.endswith('_subset')]
  return {(split, name): source.read_piece(split, name, RATE) for split in splits for name in source.list_pieces(split)}


def test_examples_are_those_of_tensorflow(tmp_path):
  """TensorFlow reads our examples and our record files."""
  tf = pytest.importorskip('tensorflow')
  features = {
    'samples': np.array([0.5, -1.0, 3e-9], np.float32),
    'counts': np.array([1, -2, 2**40]),
    'one': b'a',
    'more': [b'', b'bc'],
    'no': np.zeros(0, np.float32),
    'long': np.arange(70000) / 7,
  }
  data = serialize_example(features)
  read = tf.train.Example.FromString(data).features.feature
  assert list(read['one'].bytes_list.value) == [b'a'] and list(read['more'].bytes_list.value) == [b'', b'bc']
  assert list(read['counts'].int64_list.value) == [1, -2, 2**40]
  np.testing.assert_array_equal(read['samples'].float_list.value, features['samples'])
  np.testing.assert_array_equal(read['long'].float_list.value, features['long'].astype(np.float32))
  assert read['no'].HasField('float_list') and not read['no'].float_list.value
  again = Example(data)
  np.testing.assert_array_equal(again['long'], features['long'].astype(np.float32))
  (tmp_path / 'a').write_bytes(framed(data) + framed(b'') + framed(data))
  assert [bytes(record) for record in tf.data.TFRecordDataset(str(tmp_path / 'a')).as_numpy_iterator()] == [
    data,
    b'',
    data,
  ]
  assert read_record(tmp_path / 'a', 2) == data


@pytest.mark.parametrize('name', ['maestrov1', 'maestrov3'])
def test_maestro(originals, records, name):
  files = {path.name for path in (records / name).glob('*.tfrecord-*')}
  assert len(files) == 4 and files <= {
    file for split in ('train', 'validation', 'test') for file in files_of_split(name, split)
  }
  source = published(name, str(records / name))
  found = pieces(source)
  assert [split for split, _ in found] == sorted(
    small_datasets.MAESTRO_SPLITS, key=['train', 'validation', 'test'].index
  )
  midi_files = sorted(originals[name].glob('2018/*.midi'))
  expected = {midi.read_midi(path).tobytes(): path.with_suffix('.wav') for path in midi_files}
  assert len(expected) == 4
  for content in found.values():
    audio = expected.pop(sort_notes(content.notes).tobytes())  # sustain is applied when a record is read
    np.testing.assert_array_equal(content.samples, audio_files.read_audio(audio, RATE))
  assert not expected
  parts = {split: source.list_pieces(split) for split in ('train_subset', 'validation_subset')}
  assert {split: len(names) for split, names in parts.items()} == {'train_subset': 1, 'validation_subset': 1}
  (path, *_) = [path for path in sorted((records / name).glob('*')) if path.stat().st_size > 100]
  example = Example(read_record(path, 0))
  import note_seq

  proto = note_seq.NoteSequence.FromString(example['sequence'][0])
  assert [change.control_value for change in proto.control_changes] == [0, 100, 20, 64, 0]
  assert {note.end_time - note.start_time for note in proto.notes} != {
    note['offset'] - note['onset'] for note in midi.read_midi(midi_files[0])
  }
  assert proto.total_time == pytest.approx(small_datasets.SECONDS) and proto.id.endswith('.wav')
  limits = note_seq.protobuf.music_pb2.VelocityRange.FromString(example['velocity_range'][0])
  assert (limits.min, limits.max) == (min(n.velocity for n in proto.notes), max(n.velocity for n in proto.notes))


def test_guitarset(originals, records):
  found = pieces(published('guitarset', str(records / 'guitarset')))
  assert [split for split, _ in found] == ['train'] * 4 + ['validation'] * 2  # the last progression, both recordings
  expected = [
    as_rows(read_jams(originals['guitarset'] / 'annotation' / f'{name}.jams')) for name in small_datasets.GUITARSET
  ]
  for content, rows in zip(found.values(), (expected[i] for i in (0, 0, 1, 1, 2, 2)), strict=True):
    np.testing.assert_array_equal(as_rows(content.notes), rows)
    assert set(content.notes['program']) == {24} and len(content.notes) == 6
    np.testing.assert_array_equal(content.notes['pitch'], np.rint(content.notes['pitch']))
  truth = small_datasets.notes_of(2)
  np.testing.assert_array_equal(expected[2]['pitch'] if expected[2].dtype.names else expected[2][:, 2], truth['pitch'])


def test_musicnet_and_its_better_labels(originals, records):
  found = {name: pieces(published(name, str(records / name))) for name in ('musicnet', 'musicnet_em')}
  for name, ids in (('musicnet', list(small_datasets.MUSICNET_IDS)), ('musicnet_em', ['1727', '1729', '1733', '1819'])):
    splits = [split for split, _ in found[name]]
    wanted = [small_datasets.MUSICNET_IDS[number] for number in ids]
    assert sorted(splits) == sorted(wanted)
    for (split, record), content in found[name].items():
      assert set(content.notes['program']) == {41} and content.samples.shape == (RATE * small_datasets.SECONDS,)
      file, _, place = record.partition('#')
      number = Example(read_record(records / name / file, int(place)))['id'][0].decode()
      assert small_datasets.MUSICNET_IDS[number] == split
      truth = small_datasets.notes_of(int(number) + (name == 'musicnet_em'), program=41)
      np.testing.assert_array_equal(content.notes['pitch'], truth['pitch'])
      np.testing.assert_allclose(content.notes['onset'], truth['onset'], atol=1e-3)
      np.testing.assert_allclose(content.notes['offset'], truth['offset'], atol=1e-3)
  assert len(VALIDATION) == len(TEST) == len(set(VALIDATION) | set(TEST)) / 2 == 15


def test_hidden_files_are_no_pieces(originals, tmp_path):
  for name in ('guitarset', 'musicnet'):
    folder = Path(shutil.copytree(originals[name], tmp_path / name))
    splits = catalogue.open_original(name, folder, Options()).splits()
    for path in [path for path in folder.rglob('*') if path.is_file()]:
      path.with_name(f'._{path.name}').write_bytes(b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ')
    assert any(splits.values()) and catalogue.open_original(name, folder, Options()).splits() == splits


def test_musicnet_with_suffixes_in_upper_case(originals, tmp_path):
  folder = Path(shutil.copytree(originals['musicnet'], tmp_path / 'musicnet'))
  before = catalogue.open_original('musicnet', folder, Options())
  splits, features = before.splits(), before.features('1727')
  for path in [*folder.rglob('*.wav'), *folder.rglob('*.csv')]:
    path.rename(path.with_suffix(path.suffix.upper()))
  after = catalogue.open_original('musicnet', folder, Options())
  assert after.splits() == splits and after.features('1727')['sequence'] == features['sequence']


def test_slakh_whole_and_in_random_parts(small_data, tmp_path):
  made = convert('slakh', small_data, tmp_path, workers=1, progress=False)
  assert made.records == {'train': 3, 'test': 1} and not made.left_out
  source = published('slakh', str(made.folder))
  assert sorted(path.name for path in made.folder.glob('*train*')) == [
    f'slakh_multi_full_subsets_10_train_all_inst.tfrecord-0000{number}-of-02307' for number in range(3)
  ]
  for split in ('train', 'test'):
    tracks = slakh_layout.find_tracks(small_data, split)
    for track, name in zip(tracks, source.list_pieces(split), strict=True):
      content = source.read_piece(split, name, RATE)
      np.testing.assert_array_equal(as_rows(sort_notes(content.notes)), as_rows(slakh_layout.read_notes(track)))
      np.testing.assert_array_equal(content.samples, audio_files.read_audio(track.audio_path, RATE))
  parts = Slakh2100(str(small_data), subsets=6)
  names = parts.splits()
  assert len(names['train']) == 18 and names['test'] == ['test/Track00000']
  sizes = set()
  for name in names['train'][:6]:
    features = parts.features(name)
    sizes.add(len(features['inst_names']))
    stems = {
      stem.name: stem for stem in slakh_layout.read_stems(slakh_layout.Track(small_data / 'train' / 'Track00000'))
    }
    total = sum(audio_files.read_audio(stems[stem.decode()].audio_path, RATE) for stem in features['src_ids'])
    np.testing.assert_allclose(features['mix'], total, atol=1e-6)
  again = parts.features(names['train'][0])
  assert again['src_ids'] == Slakh2100(str(small_data), subsets=6).features(names['train'][0])['src_ids']
  assert min(sizes) >= min(4, len(stems))


def test_another_rate(originals, tmp_path):
  made = convert('guitarset', originals['guitarset'], tmp_path, Options(sample_rate=8000), workers=1, progress=False)
  source = published('guitarset', str(made.folder))
  whole = audio_files.read_audio(
    originals['guitarset'] / 'audio_mono-mic' / f'{small_datasets.GUITARSET[0]}_mic.wav', 8000
  )
  samples = source.read_piece('train', source.list_pieces('train')[0], 8000).samples
  np.testing.assert_allclose(samples, whole, atol=2**-15)
  small = sum(path.stat().st_size for path in made.folder.iterdir())
  assert small < 6 * (small_datasets.SECONDS * 8000 * 2 + 2000)


def test_what_cannot_be_read_is_left_out_and_named(tmp_path, capsys):
  root = small_datasets.write_guitarset(tmp_path / 'g')
  (root / 'annotation' / f'{small_datasets.GUITARSET[0]}.jams').write_text('{}')
  (root / 'audio_mono-mic' / f'{small_datasets.GUITARSET[1]}_mic.wav').unlink()  # a missing recording is not a piece
  assert run(dataset, 'dataset', 'convert', 'guitarset', root, tmp_path / 'out', '--rate', 16000, '--workers', 1) == 0
  printed = capsys.readouterr()
  assert '1 train, 2 validation records in' in printed.out and '2 pieces left out' in printed.err
  lines = [json.loads(line) for line in (tmp_path / 'out' / 'guitarset' / 'skipped.jsonl').read_text().splitlines()]
  assert {line['piece'] for line in lines} == {f'{small_datasets.GUITARSET[0]}_{kind}' for kind in ('mic', 'mix')}
  assert all('is not an annotation of GuitarSet' in line['text'] for line in lines)
  with pytest.raises(UserError, match='already exists'):
    convert('guitarset', root, tmp_path / 'out', progress=False)
  with pytest.raises(UserError, match='strict'):
    convert('guitarset', root, tmp_path / 'two', strict=True, workers=1, progress=False)
  for path in (root / 'annotation').iterdir():
    path.write_text('[]')
  with pytest.raises(UserError, match="none of the 3 pieces of the split 'train' can be read"):
    convert('guitarset', root, tmp_path / 'two', workers=1, progress=False)
  assert not list((tmp_path / 'two').iterdir())
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='file is a file'):
    convert('guitarset', root, tmp_path / 'file' / 'b', progress=False)


def test_folders_of_something_else_are_named(tmp_path):
  for name, words in {
    'maestrov3': 'maestro-v3.0.0.csv',
    'guitarset': r'annotation/\*\.jams',
    'musicnet': 'train_data',
    'slakh': 'train/Track00001',
  }.items():
    with pytest.raises(UserError, match=words):
      convert(name, tmp_path, tmp_path / 'out', progress=False)
  with pytest.raises(UserError, match='--labels'):
    convert('musicnet_em', tmp_path, tmp_path / 'out', progress=False)
  with pytest.raises(UserError, match='cannot be converted'):
    convert('urmp', tmp_path, tmp_path / 'out', progress=False)
  with pytest.raises(UserError, match='sample rate'):
    convert('slakh', tmp_path, tmp_path / 'out', Options(sample_rate=10), progress=False)
  (tmp_path / 'maestro-v3.0.0.csv').write_text('a,b\n1,2\n')
  with pytest.raises(UserError, match='columns'):
    Maestro(str(tmp_path), '3.0.0').splits()
  (tmp_path / 'annotation').mkdir()
  (tmp_path / 'annotation' / 'x.jams').write_text('{}')
  with pytest.raises(UserError, match='audio_mono-mic'):
    GuitarSet(str(tmp_path)).splits()
  (tmp_path / 'train_data').mkdir()
  (tmp_path / 'train_data' / '1.wav').touch()
  with pytest.raises(UserError, match='labels'):
    MusicNet(str(tmp_path)).splits()
  assert not (tmp_path / 'out').exists() or not list((tmp_path / 'out').iterdir())


def test_broken_label_files_are_named(tmp_path):
  from mrmt3.data.convert.musicnet import read_labels

  for text in ('start_time,end_time\n1,2\n', 'start_time,end_time,instrument,note\na,2,3,4\n', '\0'):
    (tmp_path / '1.csv').write_text(text)
    if text != '\0':
      with pytest.raises(UserError, match='not a label file of MusicNet'):
        read_labels(tmp_path / '1.csv')
  with pytest.raises(UserError, match='not a label file of MusicNet'):
    read_labels(tmp_path / 'none.csv')


def test_files_have_their_published_names():
  assert len(files_of_split('maestrov3', 'train')) == 25 and len(files_of_split('guitarset', 'validation')) == 6
  assert files_of_split('urmp', 'train') == ['train.tfrecord']
  assert files_of_split('musicnet_em', 'test')[5] == 'test.tfrecord-00005-of-00006'
  assert set(catalogue.originals()) <= set(PUBLISHED)
