"""Tests of ComMU and NSynth in their published layouts: pieces, splits, notes, programs and audio."""

import csv
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import small_datasets
from command_line import run

from mrmt3.cli import dataset
from mrmt3.data.convert import commu as commu_rendering
from mrmt3.data.piece_source import PieceSource
from mrmt3.data.sources import commu as commu_folder
from mrmt3.data.sources import nsynth
from mrmt3.data.sources.commu import CommuFolder, split_clips
from mrmt3.data.sources.nsynth import NsynthFolder, NsynthRecords
from mrmt3.errors import UserError
from mrmt3.evaluation.references import find_references
from mrmt3.notes.midi import read_midi
from mrmt3.notes.note_array import as_rows, labels_of

RATE = 16000


@pytest.fixture
def commu(tmp_path):
  return small_datasets.write_commu(tmp_path / 'dataset', clips=40)


def test_commu_is_read_as_published(commu):
  source = pickle.loads(pickle.dumps(CommuFolder(str(commu))))
  assert isinstance(source, PieceSource) and source.splits() == ('train', 'validation', 'test')
  names = {split: source.list_pieces(split) for split in source.splits()}
  assert sorted(name for own in names.values() for name in own) == [f'commu{number:05d}' for number in range(1, 41)]
  with open(commu / 'commu_meta.csv') as file:
    instruments = {row['id']: row['inst'] for row in csv.DictReader(file)}
  programs = {'acoustic_piano': 0, 'string_violin-1': 40, 'synth_bell': 14, 'bell': 14}
  for split, own in names.items():
    name = own[0]
    content = source.read_piece(split, name, RATE)
    assert set(content.notes['program']) == {programs[instruments[name]]}
    (midi,) = commu.glob(f'commu_midi/*/raw/{name}.mid')
    for field in ('onset', 'offset', 'pitch', 'velocity'):
      np.testing.assert_array_equal(content.notes[field], read_midi(midi)[field])
    assert content.samples.shape == (small_datasets.SECONDS * RATE,) and content.stems is None


def test_commu_is_divided_90_5_5_by_instrument():
  clips = {f'commu{number:05d}': 'acoustic_piano' if number <= 40 else 'string_violin-2' for number in range(60, 0, -1)}
  divided = split_clips(clips)
  counts = {
    split: [sum(program == wanted for program in own.values()) for wanted in (0, 40)] for split, own in divided.items()
  }
  assert counts == {'train': [36, 18], 'validation': [2, 1], 'test': [2, 1]}
  assert {'commu00037', 'commu00038', 'commu00059'} == set(divided['validation'])  # in order of ids
  # 'synth_bell' clips match 'bell', too; the instrument with fewer clips decides. Unknown instruments are left out.
  clips = (
    {f'b{number:02d}': 'bell' for number in range(20)}
    | {f'a{number}': 'synth_bell' for number in range(10)}
    | {'x': 'kazoo'}
  )
  divided = split_clips(clips)
  assert len(divided['train']) + len(divided['validation']) + len(divided['test']) == 30
  assert divided['test'].keys() == {'a9', 'b18', 'b19'} and divided['validation'].keys() == {'b17'}


def test_commu_as_mr_mt3_keeps_it(commu, tmp_path):
  """MR-MT3's folder names give the same pieces."""
  other = tmp_path / 'processed'
  source = CommuFolder(str(commu))
  for split, own in {'train': 'train', 'validation': 'val', 'test': 'test'}.items():
    for name in source.list_pieces(split):
      for folder, suffix in (('commu_midi_v2', '.mid'), ('commu_audio_v2', '_16k.wav')):
        (other / folder / own).mkdir(parents=True, exist_ok=True)
        (old,) = commu.rglob(f'{name}{suffix[-4:]}')
        (other / folder / own / f'{name}{suffix}').write_bytes(old.read_bytes())
  (other / 'commu_meta_v2.csv').write_text((commu / 'commu_meta.csv').read_text())
  moved = CommuFolder(str(other))
  for split in source.splits():
    assert moved.list_pieces(split) == source.list_pieces(split)
    for name in source.list_pieces(split)[:2]:
      one, two = (each.read_piece(split, name, RATE) for each in (source, moved))
      np.testing.assert_array_equal(one.samples, two.samples)
      np.testing.assert_array_equal(as_rows(one.notes), as_rows(two.notes))


def test_what_commu_lacks_is_named(commu, tmp_path):
  source = CommuFolder(str(commu))
  before = source.fingerprint('test')
  name = source.list_pieces('test')[0]
  (commu / 'commu_audio' / f'{name}.wav').unlink()
  assert source.fingerprint('test') != before
  commu_folder._find_files.cache_clear()  # as in a new process
  with pytest.raises(UserError, match=f'{name} has no audio .* mrmt3 dataset commu'):
    source.read_piece('test', name, RATE)
  next(commu.glob(f'commu_midi/*/raw/{name}.mid')).unlink()
  commu_folder._find_files.cache_clear()
  with pytest.raises(UserError, match=f'the MIDI file of {name} is missing'):
    source.read_piece('test', name, RATE)
  with pytest.raises(UserError, match='no clip'):
    source.read_piece('test', 'commu99999', RATE)
  with pytest.raises(UserError, match="no split 'dev'"):
    source.list_pieces('dev')
  with pytest.raises(UserError, match=r'expected commu_meta\.csv'):
    CommuFolder(str(tmp_path)).splits()
  with pytest.raises(UserError, match='no such folder'):
    CommuFolder(str(tmp_path / 'nowhere')).splits()
  (commu / 'commu_meta.csv').write_text('id,instrument\n1,piano\n')
  with pytest.raises(UserError, match="no column 'inst'"):
    source.splits()


def test_commu_is_rendered(tmp_path, capsys):
  pytest.importorskip('symusic')
  root = small_datasets.write_commu(tmp_path / 'dataset', clips=9, audio=False)
  next(root.rglob('commu00003.mid')).write_bytes(b'junk')
  next(root.rglob('commu00004.mid')).unlink()
  made = commu_rendering.render(root, workers=1, progress=False)
  assert (made.made, made.kept, len(made.left_out)) == (7, 0, 2) and made.seconds == pytest.approx(7 * 3.5, abs=0.1)
  commu_folder._find_files.cache_clear()
  source = CommuFolder(str(root))
  content = source.read_piece('train', 'commu00001', RATE)
  onset = content.notes['onset'][0]
  assert np.abs(content.samples[: int(onset * RATE)]).max() < 0.01 < np.abs(content.samples[int(onset * RATE) :]).max()
  again = commu_rendering.render(root, workers=1, progress=False)
  assert (again.made, again.kept) == (0, 7)
  assert run(dataset, 'dataset', 'commu', root, '--workers', 1) == 0
  printed = capsys.readouterr()
  assert '7 existed already' in printed.out and 'commu00004 has no MIDI file' in printed.err
  with pytest.raises(UserError, match='no such soundfont'):
    commu_rendering.render(root, soundfont=tmp_path / 'no.sf2')
  with pytest.raises(UserError, match=r'expected commu_meta\.csv'):
    commu_rendering.render(tmp_path)


def nsynth_expected(name):
  family, pitch, velocity = small_datasets.NSYNTH[name]
  return (0.05, 4.05, pitch, velocity, {'bass': 32, 'flute': 72, 'mallet': 8}[family], False)


def test_nsynth_is_read_as_published(tmp_path):
  root = small_datasets.write_nsynth(tmp_path / 'nsynth')
  source = pickle.loads(pickle.dumps(NsynthFolder(str(root))))
  assert isinstance(source, PieceSource) and source.splits() == ('validation',)
  assert source.list_pieces('validation') == ['bass_synthetic_033-022-050', 'flute_acoustic_002-077-100']  # as MR-MT3
  for name in source.list_pieces('validation'):
    for rate in (RATE, RATE // 2):
      content = source.read_piece('validation', name, rate)
      assert content.samples.shape == (round(4.05 * rate),) and not content.samples[: round(0.05 * rate)].any()
      assert np.abs(content.samples[round(0.05 * rate) :][:100]).max() > 0.01
      assert labels_of(content.notes).tolist() == [nsynth_expected(name)]
  within = NsynthFolder(str(root / 'nsynth-valid'), left_out=('vocal',))
  assert within.list_pieces('validation') == sorted(set(small_datasets.NSYNTH) - {'vocal_synthetic_003-050-025'})
  assert within.read_piece('validation', 'mallet_acoustic_062-060-127', RATE).notes['program'] == 8


def test_what_nsynth_lacks_is_named(tmp_path):
  root = small_datasets.write_nsynth(tmp_path / 'nsynth')
  source = NsynthFolder(str(root))
  before = source.fingerprint('validation')
  (root / 'nsynth-valid' / 'audio' / 'bass_synthetic_033-022-050.wav').unlink()
  assert source.fingerprint('validation') != before
  with pytest.raises(UserError, match=r'bass_synthetic_033-022-050\.wav'):
    source.read_piece('validation', 'bass_synthetic_033-022-050', RATE)
  with pytest.raises(UserError, match='no note'):
    source.read_piece('validation', 'kazoo', RATE)
  with pytest.raises(UserError, match="no split 'train'; it has validation"):
    source.list_pieces('train')
  with pytest.raises(UserError, match='vocals'):
    NsynthFolder(str(root), left_out=())
  with pytest.raises(UserError, match="no family 'drums'"):
    NsynthFolder(str(root), left_out=('vocal', 'drums'))
  with pytest.raises(UserError, match=r'nsynth-valid/examples\.json'):
    NsynthFolder(str(tmp_path)).splits()
  for text, words in (
    ('{"a": 1}', "is not NSynth's examples.json"),
    ('[', "is not NSynth's examples.json"),
    ('{"a": {"instrument_family_str": "kazoo", "pitch": 1, "velocity": 1}}', "unknown instrument family 'kazoo'"),
  ):
    (root / 'nsynth-valid' / 'examples.json').write_text(text)
    nsynth._read_notes.cache_clear()
    with pytest.raises(UserError, match=words):
      source.list_pieces('validation')


@pytest.fixture(scope='module')
def tfds_nsynth(tmp_path_factory):
  """Four records that TFDS writes, with the features of its NSynth builder."""
  return small_datasets.write_tfds_nsynth(tmp_path_factory.mktemp('tfds'))


def test_tfds_records_are_the_same_pieces(tfds_nsynth, tmp_path):
  folder = NsynthFolder(str(small_datasets.write_nsynth(tmp_path / 'nsynth')))
  source = pickle.loads(pickle.dumps(NsynthRecords(str(tfds_nsynth))))
  assert isinstance(source, PieceSource) and source.splits() == ('validation',)
  assert len(source.list_pieces('validation')) == 2
  expected = {}
  for name in folder.list_pieces('validation'):
    content = folder.read_piece('validation', name, RATE)
    expected[content.notes.tobytes()] = content.samples
  for name in source.list_pieces('validation'):
    content = source.read_piece('validation', name, RATE)
    np.testing.assert_allclose(content.samples, expected.pop(content.notes.tobytes()), atol=2**-14)
  assert not expected
  assert len(NsynthRecords(str(tfds_nsynth), left_out=('vocal',)).list_pieces('validation')) == 3
  assert source.fingerprint('validation') == NsynthRecords(str(tfds_nsynth)).fingerprint('validation')
  with pytest.raises(UserError, match="no split 'train'"):
    source.list_pieces('train')


def test_tfds_records_are_read_without_tensorflow(tfds_nsynth):
  code = (
    'import sys\n'
    'from mrmt3.data.sources.nsynth import NsynthRecords\n'
    f'source = NsynthRecords({str(tfds_nsynth)!r})\n'
    'assert len(source.read_piece("validation", source.list_pieces("validation")[0], 16000).notes) == 1\n'
    'assert not {"tensorflow", "tensorflow_datasets", "note_seq"} & set(sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_damaged_records_are_listed_and_named(tfds_nsynth, tmp_path):
  import shutil

  copy = tmp_path / '2.3.3'
  shutil.copytree(tfds_nsynth, copy)
  (path,) = copy.glob('*.tfrecord-*')
  data = bytearray(path.read_bytes())
  data[5000] ^= 1
  path.write_bytes(data)
  source = NsynthRecords(str(copy))
  names = source.list_pieces('validation')
  assert f'{path.name}#0' in names
  with pytest.raises(UserError, match='record 0'):
    source.read_piece('validation', f'{path.name}#0', RATE)


@pytest.mark.parametrize('task', ['commu', 'nsynth'])
def test_they_are_scored_by_evaluate(task, commu, tmp_path):
  root = commu if task == 'commu' else small_datasets.write_nsynth(tmp_path / 'nsynth')
  split = 'test' if task == 'commu' else 'validation'
  references = find_references(root, task=task, split=split)
  source = CommuFolder(str(root)) if task == 'commu' else NsynthFolder(str(root))
  assert list(references) == source.list_pieces(split)
  for name, reference in references.items():
    np.testing.assert_array_equal(as_rows(reference.read()), as_rows(source.read_piece(split, name, RATE).notes))
    assert len(reference.audio(RATE)) > RATE
  assert json.dumps(list(references))
