"""Tests of the TFDS builder for the Slakh layout, and of the source that reads its records."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mrmt3.data.piece_source import PieceSource
from mrmt3.data.sources.mt3_records import Mt3Records
from mrmt3.data.sources.slakh import SlakhFolder
from mrmt3.data.sources.tfds_records import TfdsRecords
from mrmt3.errors import UserError
from mrmt3.notes.midi import write_midi
from mrmt3.notes.note_array import as_notes, as_rows
from mrmt3.studies import twin_instruments

RATE = 16000


@pytest.fixture(scope='module')
def slakh(tmp_path_factory):
  """Two test tracks and ten training tracks, of which two are broken and one has an inaudible note."""
  root = tmp_path_factory.mktemp('slakh')
  twin_instruments.write_dataset(root, seed=3, train_pieces=10, test_pieces=2, segment_seconds=0.5, pairs=2)
  (root / 'train' / 'Track00003' / 'mix.flac').write_bytes(b'junk')
  (root / 'train' / 'Track00007' / 'MIDI' / 'S00.mid').unlink()
  track = root / 'train' / 'Track00005'
  stem = next(
    name for name, stem in yaml.safe_load((track / 'metadata.yaml').read_text())['stems'].items() if stem['is_drum']
  )
  write_midi(as_notes([(0.1, 0.2, 36, 100, 0, 1), (90.0, 91.0, 38, 100, 0, 1)]), track / 'MIDI' / f'{stem}.mid')
  return root


@pytest.fixture(scope='module', params=['tfrecord', 'array_record'])
def built(request, slakh, tmp_path_factory):
  from mrmt3.data.tfds_slakh import slakh_records

  return slakh_records.build(slakh, tmp_path_factory.mktemp(request.param), file_format=request.param, num_shards=2)


def test_records_hold_what_the_folder_holds(slakh, built):
  source = pickle.loads(pickle.dumps(TfdsRecords(str(built))))
  assert isinstance(source, PieceSource) and source.splits() == ('train', 'test')
  names = source.list_pieces('train')
  assert len(names) == len(set(names)) == 8 and len({name.split('#')[0] for name in names}) == 2
  folder = SlakhFolder(str(slakh))
  expected = {}
  for track in folder.list_pieces('train'):
    if track not in ('Track00003', 'Track00007'):
      content = folder.read_piece('train', track, RATE)
      expected[content.samples.tobytes()] = content.notes[content.notes['onset'] < 80]
  for name in reversed(names):
    content = source.read_piece('train', name, RATE, stems=True)
    assert content.stems is None
    notes = expected.pop(content.samples.tobytes())
    np.testing.assert_array_equal(as_rows(content.notes), as_rows(notes))
  assert not expected


def test_tfds_reads_them_as_documented(slakh, built):
  import note_seq
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(str(built))
  assert {split: info.num_examples for split, info in builder.info.splits.items()} == {'train': 8, 'test': 2}
  is_array = builder.info.file_format.value == 'array_record'
  rows = list(builder.as_data_source('test') if is_array else tfds.as_numpy(builder.as_dataset(split='test')))
  assert sorted(row['id'] for row in rows) == [b'Track00000', b'Track00001']
  for row in rows:
    assert set(row) == {'audio', 'sequence', 'id'}
    track = slakh / 'test' / row['id'].decode()
    assert row['audio'] == (track / 'mix.flac').read_bytes()
    sequence = note_seq.NoteSequence.FromString(row['sequence'])
    assert len(sequence.notes) == len(SlakhFolder(str(slakh)).read_piece('test', track.name, RATE).notes)
    assert sequence.total_time >= 2.0


def test_bad_tracks_are_named_beside_the_records(built):
  lines = [json.loads(line) for line in (built / 'skipped.jsonl').read_text().splitlines()]
  found = {(line['piece'], line['problem'], line['count'], line['action']) for line in lines}
  assert found == {
    ('train/Track00003', 'unreadable', 1, 'left out'),
    ('train/Track00005', 'begins-after-end', 1, 'dropped'),
    ('train/Track00007', 'unreadable', 1, 'left out'),
  }


def test_built_again_only_from_the_same_tracks(slakh, built, tmp_path):
  from mrmt3.data.tfds_slakh import slakh_records

  file_format = 'array_record' if list(built.glob('*.array_record-*')) else 'tfrecord'
  before = sorted((path.name, path.stat().st_mtime_ns) for path in built.iterdir())
  assert slakh_records.build(slakh, built.parents[2], file_format=file_format) == built
  other = tmp_path / 'other'
  shutil.copytree(slakh / 'test', other / 'train')
  with pytest.raises(UserError, match='have changed since the records'):
    slakh_records.build(other, built.parents[2], file_format=file_format)
  assert before == sorted((path.name, path.stat().st_mtime_ns) for path in built.iterdir())


def left(folder):
  """Return the files in a folder, except TFDS's list of known configurations."""
  return [path for path in Path(folder).rglob('*') if path.is_file() and path.parent.name != '.config']


def test_nothing_is_left_of_a_build_that_fails(slakh, tmp_path):
  from mrmt3.data.tfds_slakh import slakh_records

  with pytest.raises(UserError, match=r'train/Track00003: .*mix\.flac.*\(strict\)'):
    slakh_records.build(slakh, tmp_path / 'a', strict=True)
  broken = tmp_path / 'broken'
  shutil.copytree(slakh / 'train' / 'Track00003', broken / 'train' / 'Track00003')
  with pytest.raises(UserError, match=r'no usable tracks in .*mix\.flac'):
    slakh_records.build(broken, tmp_path / 'a')
  with pytest.raises(UserError, match='no such folder'):
    slakh_records.build(tmp_path / 'nowhere', tmp_path / 'a')
  shutil.copytree(broken / 'train', tmp_path / 'duplicates' / 'omitted')
  with pytest.raises(UserError, match=r'no tracks in .*duplicates'):
    slakh_records.build(tmp_path / 'duplicates', tmp_path / 'a')
  with pytest.raises(UserError, match='number_of_shards'):
    slakh_records.build(slakh, tmp_path / 'a', num_shards=50)
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='cannot write'):
    slakh_records.build(slakh, tmp_path / 'file' / 'b')
  assert not left(tmp_path / 'a')


def test_manual_dir_of_tfds_works(slakh, tmp_path):
  import tensorflow_datasets as tfds

  from mrmt3.data.tfds_slakh.slakh_records import SlakhRecords

  shutil.copytree(slakh / 'test', tmp_path / 'music' / 'validation')
  builder = SlakhRecords(data_dir=str(tmp_path / 'out'))
  with pytest.raises(UserError, match='slakh_dir'):
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(tmp_path / 'none')))
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(tmp_path / 'music')))
  assert TfdsRecords(str(tmp_path / 'out')).splits() == ('validation',)


@pytest.fixture
def copy(built, tmp_path):
  return Path(shutil.copytree(built, tmp_path / '1.0.0'))


def test_damaged_record_is_named(copy):
  source = TfdsRecords(str(copy))
  before = source.fingerprint('test')
  path = sorted(copy.glob('*-test.*'))[0]
  data = bytearray(path.read_bytes())
  data[min(5000, len(data) // 2)] ^= 0x40
  path.write_bytes(data)
  outcomes = []
  for name in source.list_pieces('test'):
    try:
      outcomes.append(len(source.read_piece('test', name, RATE).notes) > 0)
    except UserError as error:
      outcomes.append(path.name in str(error) and 'record 0' in str(error) and '\n' not in str(error))
  assert outcomes == [True, True] and source.fingerprint('test') != before
  with pytest.raises(UserError, match='record 0'):
    source.read_piece('test', f'{path.name}#0', RATE)


def test_missing_files_and_records_are_named(copy):
  source = TfdsRecords(str(copy))
  path = sorted(copy.glob('*-test.*'))[1]
  with pytest.raises(UserError, match=r'no record 9|record 9: the file has only 1 records'):
    source.read_piece('test', f'{path.name}#9', RATE)
  path.unlink()
  with pytest.raises(UserError, match=f'{path.name} .* is missing'):
    source.list_pieces('test')
  for name in (f'{path.name}#0', 'x#y'):
    with pytest.raises(UserError, match='is not a record of'):
      source.read_piece('test', name, RATE)
  with pytest.raises(UserError, match="no split 'validation', only train, test"):
    source.list_pieces('validation')
  (copy / 'dataset_info.json').write_text('{}')
  with pytest.raises(UserError, match=r'is not a dataset_info\.json of TFDS'):
    source.splits()


def test_folder_of_the_records_is_found_from_above(built, tmp_path):
  assert TfdsRecords(str(built.parents[2])).list_pieces('test') == TfdsRecords(str(built)).list_pieces('test')
  with pytest.raises(UserError, match='no records at'):
    TfdsRecords(str(tmp_path)).splits()
  for name in 'ab':
    shutil.copytree(built, tmp_path / name)
  with pytest.raises(UserError, match='several data sets'):
    TfdsRecords(str(tmp_path)).splits()


def test_reading_needs_neither_tensorflow_nor_tfds(built):
  code = (
    'import sys\n'
    'from mrmt3.data.sources.tfds_records import TfdsRecords\n'
    f'source = TfdsRecords({str(built)!r})\n'
    'assert len(source.read_piece("test", source.list_pieces("test")[0], 16000).notes)\n'
    'assert not {"tensorflow", "tensorflow_datasets", "note_seq"} & set(sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_they_are_records_as_mt3s(built):
  files = 'slakh_records-test.tfrecord@2'
  if list(built.glob('*.tfrecord-*')):
    source = Mt3Records(str(built), 'maestro', {'test': files})
    for name in source.list_pieces('test'):
      one, other = source.read_piece('test', name, RATE), TfdsRecords(str(built)).read_piece('test', name, RATE)
      np.testing.assert_array_equal(one.samples, other.samples)
      np.testing.assert_array_equal(as_rows(one.notes), as_rows(other.notes))


def test_command_line(slakh, tmp_path, capsys):
  from mrmt3.data.tfds_slakh.__main__ import main

  shutil.copytree(slakh / 'test', tmp_path / 'music' / 'test')
  assert main([str(tmp_path / 'music'), str(tmp_path / 'out'), '--workers', '1']) == 0
  folder = capsys.readouterr().out.splitlines()[-1]
  assert folder == str(tmp_path / 'out' / 'slakh_records' / 'full' / '1.0.0')
  assert len(TfdsRecords(folder).list_pieces('test')) == 2
  assert main([str(tmp_path / 'nowhere'), str(tmp_path / 'out2')]) == 2
  assert 'error: no data set at' in capsys.readouterr().err.splitlines()[-1]
