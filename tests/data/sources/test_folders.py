"""Tests of the folder sources: Slakh2100's layout with its special cases, and a user's own audio and MIDI files."""

import pickle
import shutil
import unicodedata
from pathlib import Path

import mido
import numpy as np
import odd_audio
import pytest
import soundfile
import yaml

from mrmt3.data.piece_source import PieceSource
from mrmt3.data.sources.audio_midi_folder import OwnFolder
from mrmt3.data.sources.slakh import SlakhFolder
from mrmt3.dataset_builder.layout import Stem, write_track
from mrmt3.errors import UserError
from mrmt3.notes.instruments import map_to_slakh_classes
from mrmt3.notes.midi import read_midi, write_midi
from mrmt3.notes.note_array import as_notes, as_rows, empty_notes

RATE = 16000
GUITAR = as_notes([(0.1, 0.5, 64, 90, 30, 0), (0.5, 1.25, 67, 80, 30, 0)])
BASS = as_notes([(0.0, 1.0, 40, 70, 35, 0)])
DRUMS = as_notes([(0.0, 0.1, 36, 100, 0, 1), (0.5, 0.6, 38, 100, 0, 1)])


def tone(frequency, seconds=1.5):
  return (0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def edit(folder, change):
  path = folder / 'metadata.yaml'
  metadata = yaml.safe_load(path.read_text())
  change(metadata['stems'])
  path.write_text(yaml.safe_dump(metadata))


@pytest.fixture(scope='module')
def master(tmp_path_factory):
  stems = [
    Stem(30, False, GUITAR, tone(330)),
    Stem(35, False, BASS, tone(82, 1.0)),
    Stem(0, True, DRUMS, tone(1000, 0.7)),
    Stem(73, False, GUITAR, None),  # not rendered
    Stem(40, False, empty_notes(), tone(500, 0.2)),  # a MIDI file without notes
  ]
  return write_track(tmp_path_factory.mktemp('master') / 'Track00001', stems)


@pytest.fixture
def data(master, tmp_path):
  root = tmp_path / 'slakh'
  for split, number in (('train', 1), ('train', 10), ('train', 9), ('test', 3)):
    shutil.copytree(master, root / split / f'Track{number:05d}')
  return root


def test_slakh_lists_splits_and_tracks_by_number(data):
  source = pickle.loads(pickle.dumps(SlakhFolder(str(data))))
  assert isinstance(source, PieceSource) and source == SlakhFolder(str(data))
  assert source.splits() == ('train', 'test')
  assert source.list_pieces('train') == ['Track00001', 'Track00009', 'Track00010']
  with pytest.raises(UserError, match="no split 'validation'"):
    source.list_pieces('validation')
  assert SlakhFolder(str(data / 'train')).splits() == ('train',)
  with pytest.raises(UserError, match='no splits'):
    SlakhFolder(str(data / 'train' / 'Track00001')).splits()
  with pytest.raises(UserError, match='no such folder'):
    SlakhFolder(str(data / 'nowhere')).splits()


def test_slakh_mix_and_stems_hold_the_same_music(data):
  source = SlakhFolder(str(data))
  mix = source.read_piece('train', 'Track00001', RATE)
  apart = source.read_piece('train', 'Track00001', RATE, stems=True)
  assert mix.stems is None and mix.note_stem is None and mix.samples.dtype == np.float32
  expected = as_notes(
    [
      (0.0, 1.0, 40, 70, 33, 0),
      (0.0, 0.1, 36, 100, 0, 1),
      (0.1, 0.5, 64, 90, 29, 0),
      (0.5, 1.25, 67, 80, 29, 0),
      (0.5, 0.6, 38, 100, 0, 1),
    ]
  )
  for content in (mix, apart):
    np.testing.assert_allclose(as_rows(content.notes), as_rows(expected), atol=1e-6)
    assert content.lost_notes == 0
  assert apart.stems.shape == (4, len(mix.samples)) and apart.stems.dtype == np.float32
  np.testing.assert_array_equal(apart.note_stem, [1, 2, 0, 0, 2])
  np.testing.assert_allclose(apart.samples, mix.samples, atol=1e-7)
  np.testing.assert_array_equal(apart.samples, apart.stems.sum(axis=0))


def test_slakh_resamples_and_fills_short_stems(data):
  folder = data / 'train' / 'Track00001'
  samples, _ = soundfile.read(folder / 'stems' / 'S01.flac')
  soundfile.write(folder / 'stems' / 'S01.flac', samples[:8000], RATE)
  half = SlakhFolder(str(data)).read_piece('train', 'Track00001', RATE // 2, stems=True)
  whole = SlakhFolder(str(data)).read_piece('train', 'Track00001', RATE, stems=True)
  assert half.stems.shape == (4, 12000) and whole.stems.shape == (4, 24000)
  assert not whole.stems[1, 8000:].any() and whole.stems[1, :8000].any()


def test_slakh_leaves_out_silent_and_unsaved_stems(data):
  def change(stems):
    stems['S01']['integrated_loudness'] = float('-inf')
    stems['S02']['midi_saved'] = False

  edit(data / 'train' / 'Track00001', change)
  content = SlakhFolder(str(data)).read_piece('train', 'Track00001', RATE, stems=True)
  assert len(content.stems) == 2 and set(content.notes['program']) == {29} and set(content.note_stem) == {0}


def test_slakh_counts_audible_stems_without_labels(data):
  from mrmt3.data.piece_validation import check_piece

  source = SlakhFolder(str(data))
  assert source.read_piece('train', 'Track00001', RATE).unlabelled_stems == ()

  def unsave(stems):
    stems['S02']['midi_saved'] = False
    stems['S03']['midi_saved'] = False  # not rendered, so not audible

  edit(data / 'train' / 'Track00001', unsave)
  content = source.read_piece('train', 'Track00001', RATE)
  assert len(content.unlabelled_stems) == 1 and content.unlabelled_stems[0].startswith('S02 (')
  (problem,) = [p for p in check_piece(content, RATE).problems if p.name == 'unlabelled-stem']
  assert (problem.count, problem.action) == (1, 'kept') and 'S02' in problem.text


def test_slakh_counts_notes_that_its_midi_loses(data):
  path = data / 'train' / 'Track00001' / 'MIDI' / 'S01.mid'
  midi = mido.MidiFile(path)
  midi.tracks[-1][-1:] = [
    mido.Message('note_on', note=50, velocity=9, time=1),
    mido.Message('note_off', note=50, time=0),
    mido.Message('note_on', note=51, velocity=9, time=1),
  ]
  midi.save(path)
  content = SlakhFolder(str(data)).read_piece('train', 'Track00001', RATE)
  assert content.lost_notes == 2 and len(content.notes) == 5


@pytest.mark.parametrize(
  ('file', 'stems'), [('mix.flac', False), ('stems/S01.flac', True), ('MIDI/S02.mid', False), ('metadata.yaml', True)]
)
@pytest.mark.parametrize('how', ['missing', 'garbage'])
def test_one_broken_slakh_track_is_named_and_the_others_are_read(data, file, stems, how):
  path = data / 'train' / 'Track00009' / file
  path.unlink() if how == 'missing' else path.write_bytes(b'\x00\xffjunk' * 50)
  source = SlakhFolder(str(data))
  for name in ('Track00001', 'Track00010'):
    assert len(source.read_piece('train', name, RATE, stems).notes) == 5
  with pytest.raises(UserError, match='Track00009') as caught:
    source.read_piece('train', 'Track00009', RATE, stems)
  assert '\n' not in str(caught.value)


def test_slakh_track_without_audible_stem(data):
  edit(data / 'train' / 'Track00001', lambda stems: [stem.update(audio_rendered=False) for stem in stems.values()])
  source = SlakhFolder(str(data))
  assert not len(source.read_piece('train', 'Track00001', RATE).notes)
  with pytest.raises(UserError, match='no audible stem'):
    source.read_piece('train', 'Track00001', RATE, stems=True)


def test_slakh_fingerprint_changes_with_the_files(data):
  source = SlakhFolder(str(data))
  first = source.fingerprint('train')
  assert first == source.fingerprint('train') != source.fingerprint('test')
  (data / 'train' / 'Track00001' / 'MIDI' / 'S01.mid').touch()
  second = source.fingerprint('train')
  shutil.rmtree(data / 'train' / 'Track00009')
  assert len({first, second, source.fingerprint('train')}) == 3


def add_pair(folder, name, notes=GUITAR, audio='.wav', midi='.mid', rate=RATE):
  path = Path(folder) / name
  path.parent.mkdir(parents=True, exist_ok=True)
  soundfile.write(path.with_name(path.name + audio), tone(440), rate, format=audio[1:].upper())
  write_midi(notes, path.with_name(path.name + midi))


def test_own_folder_pairs_at_any_depth(tmp_path):
  add_pair(tmp_path, 'song')
  add_pair(tmp_path, 'album/v1.2 take', audio='.flac', midi='.midi', rate=8000)
  add_pair(tmp_path, 'album/cd2/song', audio='.ogg')
  add_pair(tmp_path, 'tape', audio='.mp3')
  (tmp_path / '.hidden.wav').touch()
  (tmp_path / 'notes.txt').touch()
  source = pickle.loads(pickle.dumps(OwnFolder(str(tmp_path), (1.0, 0.0, 0.0))))
  assert isinstance(source, PieceSource) and source.splits() == ('train',)
  assert source.list_pieces('train') == ['album/cd2/song', 'album/v1.2 take', 'song', 'tape']
  for name in source.list_pieces('train'):
    content = source.read_piece('train', name, RATE, stems=True)
    assert content.stems is None and content.samples.dtype == np.float32
    assert len(content.samples) == pytest.approx(48000 if 'take' in name else 24000, abs=2000 * (name == 'tape'))
    np.testing.assert_allclose(as_rows(content.notes), as_rows(map_to_slakh_classes(GUITAR)), atol=1e-9)


def test_own_folder_ignores_hidden_files_and_the_case_of_suffixes(tmp_path):
  add_pair(tmp_path, 'song')
  add_pair(tmp_path, 'album/other')
  for path in (tmp_path / 'album').iterdir():
    path.rename(path.with_suffix(path.suffix.upper()))
  for name in ('._song.mid', '._song.wav', 'album/._other.MID', '._album', '.DS_Store'):
    (tmp_path / name).write_bytes(b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ')
  add_pair(tmp_path, '.Trashes/old')
  add_pair(tmp_path, 'album/.old/song')
  source = OwnFolder(str(tmp_path), (1.0, 0.0, 0.0))
  assert source.list_pieces('train') == ['album/other', 'song']
  for name in source.list_pieces('train'):
    assert len(source.read_piece('train', name, RATE).notes) == len(GUITAR)


def test_a_broken_piece_of_ones_own_is_named_and_the_others_are_described(tmp_path, capsys):
  import command_line

  from mrmt3.cli import dataset, evaluate

  for name in 'abc':
    add_pair(tmp_path / 'own', name)
    write_midi(map_to_slakh_classes(GUITAR), tmp_path / 'est' / f'{name}.mid')
  (tmp_path / 'own' / 'b.mid').write_bytes(b'MThd')
  assert command_line.run(dataset, 'dataset', 'report', tmp_path / 'own', '--task', 'own_folder') == 2
  captured = capsys.readouterr()
  assert '2 tracks of 2 pieces' in captured.out and 'b.mid' in captured.err and len(captured.err.splitlines()) == 1
  words = (tmp_path / 'own', tmp_path / 'est', '--task', 'own_folder')
  assert command_line.run(evaluate, 'evaluate', *words) == 2
  captured = capsys.readouterr()
  assert 'mean of 2 pieces' in captured.out and 'b is left out: ' in captured.err


def test_own_folder_keeps_general_midi_programs_when_asked(tmp_path):
  add_pair(tmp_path, 'song')
  for classes, program in ((True, 29), (False, 30)):
    assert set(OwnFolder(str(tmp_path), slakh_classes=classes).read_piece('train', 'song', RATE).notes['program']) == {
      program
    }


def test_own_folder_takes_its_splits_from_folders(tmp_path):
  add_pair(tmp_path, 'train/a')
  add_pair(tmp_path, 'train/x/b')
  add_pair(tmp_path, 'test/a', BASS)
  add_pair(tmp_path, 'elsewhere/c')
  source = OwnFolder(str(tmp_path))
  assert source.splits() == ('train', 'test')
  assert source.list_pieces('test') == ['a'] and source.read_piece('test', 'a', RATE).notes['pitch'] == [40]
  assert source.list_pieces('train') == ['../elsewhere/c', 'a', 'x/b']
  with pytest.raises(UserError, match=r'elsewhere/c is outside the split folders train, test'):
    source.read_piece('train', '../elsewhere/c', RATE)
  with pytest.raises(UserError, match="'validation'"):
    source.list_pieces('validation')
  with pytest.raises(UserError, match="'validation'"):
    source.read_piece('validation', 'a', RATE)


def test_own_folder_splits_by_name_alone(tmp_path):
  for number in range(60):
    for suffix in ('wav', 'mid'):
      (tmp_path / f'piece {number}.{suffix}').touch()
  source = OwnFolder(str(tmp_path), (0.5, 0.3, 0.2))
  splits = {split: set(source.list_pieces(split)) for split in source.splits()}
  assert list(splits) == ['train', 'validation', 'test'] and len(set.union(*splits.values())) == 60
  assert sum(map(len, splits.values())) == 60
  for split, share in (('train', 30), ('validation', 18), ('test', 12)):
    assert abs(len(splits[split]) - share) < 12
  for suffix in ('wav', 'mid'):
    (tmp_path / f'another.{suffix}').touch()
  for split in source.splits():
    assert set(source.list_pieces(split)) - {'another'} == splits[split]


def test_own_folder_always_trains_on_something(tmp_path):
  add_pair(tmp_path, 'a')
  add_pair(tmp_path, 'b')
  source = OwnFolder(str(tmp_path), (0.0, 0.5, 0.5))
  assert len(source.list_pieces('train')) == 1
  with pytest.raises(UserError, match='sum to 1'):
    OwnFolder(str(tmp_path), (0.5, 0.5, 0.5))


def test_own_folder_of_two_pieces_or_more_has_something_to_validate_on(tmp_path):
  for count in range(1, 7):
    for number in range(count):
      add_pair(tmp_path / str(count), f'song{number}')
    source = OwnFolder(str(tmp_path / str(count)))
    assert ('validation' in source.splits()) == (count > 1) and 'train' in source.splits()
    everything = [name for split in source.splits() for name in source.list_pieces(split)]
    assert sorted(everything) == [f'song{number}' for number in range(count)]
  assert 'validation' not in OwnFolder(str(tmp_path / '6'), fractions=(1.0, 0.0, 0.0)).splits()


def test_own_folder_names_files_without_a_partner_and_doubled_ones(tmp_path):
  add_pair(tmp_path, 'good')
  add_pair(tmp_path, 'twice')
  (tmp_path / 'twice.flac').touch()
  (tmp_path / 'silent.mid').touch()
  (tmp_path / 'deaf.wav').touch()
  source = OwnFolder(str(tmp_path), (1.0, 0.0, 0.0))
  assert source.list_pieces('train') == ['deaf', 'good', 'silent', 'twice']
  for name, text in (
    ('deaf', r'deaf has no MIDI file: expected deaf.mid, .midi, .kar, .rmi in'),
    ('silent', r'silent has no audio file: expected silent.wav'),
    ('twice', r'twice has 2 audio files, twice.flac and twice.wav'),
  ):
    with pytest.raises(UserError, match=text):
      source.read_piece('train', name, RATE)
  assert len(source.read_piece('train', 'good', RATE).notes) == 2


def test_own_folder_without_pairs(tmp_path):
  (tmp_path / 'deaf.wav').touch()
  with pytest.raises(UserError, match=r'no pieces in .*song\.wav and song.mid'):
    OwnFolder(str(tmp_path)).splits()
  with pytest.raises(UserError, match='no such folder'):
    OwnFolder(str(tmp_path / 'nowhere')).list_pieces('train')


@pytest.mark.parametrize('suffix', ['.wav', '.mid'])
def test_broken_file_of_ones_own_is_named(tmp_path, suffix):
  add_pair(tmp_path, 'good')
  add_pair(tmp_path, 'bad')
  (tmp_path / f'bad{suffix}').write_bytes(b'junk' * 100)
  source = OwnFolder(str(tmp_path), (1.0, 0.0, 0.0))
  assert len(source.read_piece('train', 'good', RATE).notes) == 2
  with pytest.raises(UserError, match=f'bad{suffix}'):
    source.read_piece('train', 'bad', RATE)


def test_own_folder_fingerprint_changes_with_the_files(tmp_path):
  add_pair(tmp_path, 'a')
  source = OwnFolder(str(tmp_path))
  first = source.fingerprint('train')
  assert first == source.fingerprint('train')
  (tmp_path / 'a.mid').touch()
  assert source.fingerprint('train') != first


def test_read_midi_is_not_changed_by_counting(tmp_path):
  write_midi(GUITAR, tmp_path / 'a.mid')
  np.testing.assert_allclose(as_rows(read_midi(tmp_path / 'a.mid')), as_rows(GUITAR), atol=1e-9)


def test_links_that_lead_back_up_are_no_trap(tmp_path):
  add_pair(tmp_path, 'album/a')
  (tmp_path / 'album' / 'loop').symlink_to(tmp_path)
  assert OwnFolder(str(tmp_path), (1.0, 0.0, 0.0)).list_pieces('train') == ['album/a']


def test_recording_that_is_cut_off_is_named(tmp_path):
  add_pair(tmp_path, 'a')
  path = tmp_path / 'a.wav'
  path.write_bytes(path.read_bytes()[:30000])
  with pytest.raises(UserError, match=r'a\.wav is truncated or damaged: 0\.9 of 1\.5 s can be read'):
    OwnFolder(str(tmp_path)).read_piece('train', 'a', RATE)


@pytest.mark.parametrize('suffix', ['.m4a', '.webm', '.FLAC'])
def test_own_folder_takes_the_formats_of_transcribe(tmp_path, suffix):
  pytest.importorskip('av')
  add_pair(tmp_path, 'song')
  if suffix in odd_audio.CONTAINERS:
    odd_audio.encode(tmp_path / f'song{suffix}', odd_audio.tone(), suffix)
  else:
    odd_audio.write(tmp_path / f'song{suffix}', odd_audio.tone())
  (tmp_path / 'song.wav').unlink()
  piece = OwnFolder(str(tmp_path), (1.0, 0.0, 0.0)).read_piece('train', 'song', RATE)
  assert len(piece.samples) == pytest.approx(2 * RATE, abs=RATE // 20)


@pytest.mark.parametrize('split', ['', 'train/album Café'])
def test_own_folder_pairs_names_in_different_normal_forms(tmp_path, split):
  composed, decomposed = (unicodedata.normalize(form, 'Café') for form in ('NFC', 'NFD'))
  folder = tmp_path / unicodedata.normalize('NFD', split)
  folder.mkdir(parents=True, exist_ok=True)
  add_pair(folder, decomposed)
  (folder / f'{decomposed}.wav').rename(folder / f'{composed}.wav')
  source = OwnFolder(str(tmp_path), (1.0, 0.0, 0.0))
  (name,) = source.list_pieces('train')
  assert name == (f'album {composed}/{composed}' if split else composed)
  assert len(source.read_piece('train', name, RATE).notes) == 2
