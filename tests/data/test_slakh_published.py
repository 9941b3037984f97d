"""Slakh2100 as published and as it is found on disks, not as `mrmt3 dataset build` writes it.

fixtures/slakh_metadata.yaml is the metadata of Slakh2100's Track00001 (CC BY 4.0) with some stems marked as not
rendered, see shared/real/README.md. Its stems have one note each here: the pitch is 40 + the number of the stem.
"""

import json
import shutil

import command_line
import numpy as np
import paths
import pytest
import soundfile
import yaml

from mrmt3.cli import dataset, evaluate
from mrmt3.data import slakh_layout
from mrmt3.data.convert.slakh2100 import Slakh2100
from mrmt3.data.sources.slakh import SlakhFolder
from mrmt3.errors import UserError
from mrmt3.notes.midi import write_midi
from mrmt3.notes.note_array import as_notes

RATE = 16000
RENDERED = {'S00': 29, 'S02': 0, 'S03': 33, 'S04': 52, 'S07': 26, 'S08': 29, 'S10': 16}  # Slakh classes
DRUMS = 'S01'
APPLE_DOUBLE = b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        '


def write_track(folder, audio='flac'):
  """Write a track with the published metadata."""
  (folder / 'stems').mkdir(parents=True)
  shutil.copyfile(paths.FIXTURES / 'slakh_metadata.yaml', folder / 'metadata.yaml')
  stems = yaml.safe_load((folder / 'metadata.yaml').read_text())['stems']
  mix = np.zeros(RATE)
  for name, stem in stems.items():
    pitch = 40 + int(name[1:])
    # The program in the file is wrong on purpose: that of the metadata counts.
    notes = as_notes([(0.1, 0.9, pitch, 100, 0, stem['is_drum'])])
    if stem['midi_saved']:
      write_midi(notes, folder / 'MIDI' / f'{name}.mid')
    if stem['audio_rendered']:
      samples = 0.1 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * np.arange(RATE) / RATE)
      samples[: RATE // 10] = 0
      mix += samples
      soundfile.write(folder / 'stems' / f'{name}.{audio}', samples, RATE)
  write_midi(as_notes([(0.0, 0.5, 100, 100, 0, 0)]), folder / 'all_src.mid')
  soundfile.write(folder / f'mix.{audio}', mix, RATE)
  return slakh_layout.Track(folder)


@pytest.fixture
def track(tmp_path):
  return write_track(tmp_path / 'slakh' / 'train' / 'Track00001')


def edit(track, change):
  """Change the stems in a track's metadata."""
  metadata = yaml.safe_load(track.metadata_path.read_text())
  change(metadata['stems'])
  track.metadata_path.write_text(yaml.safe_dump(metadata))


def labels(track):
  """Return stem -> (Slakh class, is_drum) of the labelled stems, after a check of the notes."""
  notes, stems = slakh_layout.read_notes(track), {}
  assert np.all(notes['onset'] == 0.1)
  for note in notes:
    stems[f'S{note["pitch"] - 40:02d}'] = int(note['program']), bool(note['is_drum'])
  assert sorted(stems) == [stem.name for stem in slakh_layout.read_stems(track)]
  return stems


PUBLISHED = {name: (program, False) for name, program in RENDERED.items()}


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'midi_dir': '/Volumes/Samsung_T5/slakh/train/Track00001/MIDI', 'audio_dir': 'Volumes/Samsung_T5/stems'},
    {'midi_dir': '../Track00002/MIDI', 'audio_dir': None},
    {'midi_dir': 3, 'audio_dir': ['stems']},
  ],
)
@pytest.mark.parametrize('audio', ['flac', 'wav'])
def test_midi_and_stems_are_those_of_the_track(tmp_path, fields, audio):
  track = write_track(tmp_path / 'train' / 'Track00001', audio)
  metadata = yaml.safe_load(track.metadata_path.read_text())
  assert metadata['midi_dir'] == 'Track00001/MIDI' and metadata['audio_dir'] == 'Track00001/stems'
  track.metadata_path.write_text(yaml.safe_dump({**metadata, **fields}))
  assert labels(track) == PUBLISHED
  assert all(stem.audio_path.is_file() for stem in slakh_layout.read_stems(track))
  published = slakh_layout.read_published_notes(track)
  assert sorted(published['pitch']) == [40, 41, 42, 43, 44, 45, 47, 48, 49, 50]  # all files, also of silent stems


def test_hidden_files_are_ignored(track):
  for name in ('MIDI/._S00.mid', 'stems/._S00.flac', '._metadata.yaml', '._mix.flac', '../._Track00001'):
    (track.path / name).write_bytes(APPLE_DOUBLE)
  shutil.copytree(track.path, track.path.parent / '.Track00002')
  assert [each.name for each in slakh_layout.find_tracks(track.path.parents[1])] == ['Track00001']
  assert labels(track) == PUBLISHED and len(slakh_layout.read_published_notes(track)) == 10
  content = SlakhFolder(str(track.path.parents[1])).read_piece('train', 'Track00001', RATE, stems=True)
  assert len(content.stems) == len(RENDERED)


def test_names_in_upper_case(track):
  for path in [*track.path.glob('MIDI/*'), *track.path.glob('stems/*'), track.path / 'mix.flac']:
    path.rename(path.with_name(path.name.upper()))
  (track.path / 'MIDI').rename(track.path / 'midi')
  (track.path / 'stems').rename(track.path / 'STEMS')
  assert labels(track) == PUBLISHED and len(slakh_layout.read_published_notes(track)) == 10
  assert track.audio_path.name == 'MIX.FLAC'
  assert all(stem.audio_path.is_file() for stem in slakh_layout.read_stems(track))


@pytest.mark.parametrize('value', [True, 'true', 'True', ' TRUE ', 'yes', 1, '1', 1.0, 'on', None, 'missing'])
def test_flags_that_are_true(track, value):
  def change(stems):
    stems[DRUMS].update(program_num=0, is_drum=value, audio_rendered=value, midi_saved=value)
    soundfile.write(track.path / 'stems' / f'{DRUMS}.flac', np.full(RATE, 0.1), RATE)
    if value == 'missing':
      for field in ('is_drum', 'audio_rendered', 'midi_saved'):
        del stems[DRUMS][field]

  edit(track, change)
  assert labels(track) == {**PUBLISHED, DRUMS: (0, True)}  # inst_class is Drums


@pytest.mark.parametrize('value', [False, 'false', 'False', 'no', 0, '0', 0.0, 'off'])
def test_flags_that_are_false(track, value):
  def change(stems):
    stems['S00']['audio_rendered'] = value
    stems['S02']['is_drum'] = value
    stems['S03']['midi_saved'] = value

  edit(track, change)
  assert labels(track) == {name: label for name, label in PUBLISHED.items() if name not in ('S00', 'S03')}
  assert slakh_layout.unlabelled_stems(track) == ('S03 (Bass)',)


@pytest.mark.parametrize('field', ['is_drum', 'audio_rendered', 'midi_saved', 'integrated_loudness'])
@pytest.mark.parametrize('value', ['maybe', '2+1j', [True], {'a': 1}])
def test_values_that_cannot_be_understood_are_named(track, field, value):
  edit(track, lambda stems: stems['S02'].update({field: value}))
  with pytest.raises(UserError, match=f'stem S02 has {field}') as caught:
    slakh_layout.read_notes(track)
  assert 'Track00001' in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('program', ['30', 30.0, '30.0', 30])
def test_programs_may_be_quoted(track, program):
  edit(track, lambda stems: stems['S02'].update(program_num=program))
  assert labels(track)['S02'] == (29, False)


@pytest.mark.parametrize('program', ['128', 128.0, 128])
def test_program_128_is_drums(track, program):
  edit(track, lambda stems: stems['S02'].update(program_num=program, is_drum=False))
  assert labels(track)['S02'] == (0, True)


@pytest.mark.parametrize('program', [None, 'loud', 129, -1, 30.5, True, float('nan'), float('inf')])
def test_programs_that_cannot_be_understood_are_named(track, program):
  edit(track, lambda stems: stems['S02'].update(program_num=program))
  with pytest.raises(UserError, match='stem S02 has program_num'):
    slakh_layout.read_notes(track)


def test_stems_without_loudness_are_audible_if_their_audio_is(track):
  def drop(stems):
    for stem in stems.values():
      stem.pop('integrated_loudness', None)

  edit(track, drop)
  assert labels(track) == PUBLISHED
  soundfile.write(track.path / 'stems' / 'S00.flac', np.zeros(RATE), RATE)  # rendered, but silent
  (track.path / 'stems' / 'S02.flac').unlink()
  assert sorted(labels(track)) == ['S03', 'S04', 'S07', 'S08', 'S10']
  shutil.rmtree(track.path / 'stems')  # mixes only: the metadata is all there is
  assert labels(track) == PUBLISHED


@pytest.mark.parametrize('loudness', [float('-inf'), '-inf', float('nan'), 'nan'])
def test_stems_of_no_loudness_are_silent(track, loudness):
  edit(track, lambda stems: stems['S02'].update(integrated_loudness=loudness))
  assert 'S02' not in labels(track)


def test_only_the_stems_are_needed(track):
  metadata = yaml.safe_load(track.metadata_path.read_text())
  needed = ('program_num', 'audio_rendered')
  stems = {name: {key: stem[key] for key in needed} for name, stem in metadata['stems'].items()}
  track.metadata_path.write_text(yaml.safe_dump({'stems': stems}))
  assert labels(track) == PUBLISHED


def test_a_track_without_midi_has_no_published_notes(track):
  shutil.rmtree(track.path / 'MIDI')
  for read in (slakh_layout.read_notes, slakh_layout.read_published_notes):
    with pytest.raises(UserError, match='MIDI'):
      read(track)


@pytest.fixture
def babyslakh(tmp_path):
  for number in (1, 2):
    write_track(tmp_path / 'babyslakh_16k' / f'Track{number:05d}', 'wav')
  return tmp_path / 'babyslakh_16k'


def test_tracks_without_split_folders_are_for_training(babyslakh):
  names = ['Track00001', 'Track00002']
  tracks = slakh_layout.find_tracks(babyslakh)
  assert [(track.split, track.name) for track in tracks] == [('train', name) for name in names]
  assert slakh_layout.find_tracks(babyslakh, 'train') == tracks
  source = SlakhFolder(str(babyslakh))
  assert source.splits() == ('train',) and source.list_pieces('train') == names
  assert len(source.read_piece('train', 'Track00002', RATE, stems=True).stems) == len(RENDERED)
  first = source.fingerprint('train')
  (babyslakh / 'Track00002' / 'MIDI' / 'S00.mid').touch()
  assert source.fingerprint('train') != first
  converted = Slakh2100(str(babyslakh))
  assert converted.splits()['train'] == ['train/Track00001', 'train/Track00002']
  assert len(converted.features('train/Track00002')['inst_names']) == len(RENDERED)
  with pytest.raises(UserError, match="no split 'test': its tracks are in no split folder and count as 'train'"):
    source.list_pieces('test')


@pytest.mark.parametrize('name', ['validation', 'omitted'])
def test_a_folder_of_tracks_is_the_split_it_is_named_after(babyslakh, name):
  folder = babyslakh.rename(babyslakh.with_name(name))
  assert SlakhFolder(str(folder)).splits() == (name,)
  assert [track.split for track in slakh_layout.find_tracks(folder)] == [name] * 2
  with pytest.raises(UserError, match='no split'):
    slakh_layout.find_tracks(folder, 'train')


def test_tracks_outside_of_split_folders_are_not_dropped(babyslakh):
  (babyslakh / 'train').mkdir()
  (babyslakh / 'Track00001').rename(babyslakh / 'train' / 'Track00001')
  with pytest.raises(UserError, match='Track00002 is in none of the split folders'):
    slakh_layout.find_tracks(babyslakh)


def run_dataset(*words):
  return command_line.run(dataset, 'dataset', *words)


def test_commands_read_tracks_as_published(track, babyslakh, tmp_path, capsys):
  estimates = tmp_path / 'est'
  for number in (1, 2):
    write_midi(slakh_layout.read_notes(track), estimates / f'Track{number:05d}.mid')
  for root, count in ((track.path.parents[1], 1), (babyslakh, 2), (track.path, 1)):
    assert run_dataset('report', root, '--json', tmp_path / 'report.json') == 0
    assert json.loads((tmp_path / 'report.json').read_text())['splits']['train']['tracks'] == count
    run_dataset('check', root, '--workers', 1)
    assert f'of {count} track' in capsys.readouterr().out
    assert command_line.run(evaluate, 'evaluate', root, estimates, '--json', tmp_path / 'scores.json') == 0
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert len(scores['pieces']) == count and scores['mean']['onset_program_f1'] == 1
    capsys.readouterr()
  for number, root in enumerate((track.path.parents[1], babyslakh)):
    assert run_dataset('convert', 'slakh', root, tmp_path / f'records{number}', '--workers', 1) == 0
    assert f'{number + 1} train records' in capsys.readouterr().out


def test_one_broken_track_is_named_and_the_others_are_scored(babyslakh, tmp_path, capsys):
  estimates = tmp_path / 'est'
  for number in (1, 2):
    write_midi(
      slakh_layout.read_notes(slakh_layout.Track(babyslakh / 'Track00001')), estimates / f'Track{number:05}.mid'
    )
  (babyslakh / 'Track00002' / 'metadata.yaml').unlink()
  assert command_line.run(evaluate, 'evaluate', babyslakh, estimates) == 2
  captured = capsys.readouterr()
  assert captured.out.splitlines()[-1].split()[:2] == ['Track00001', '1.000']
  assert 'Track00002 is left out: cannot read ' in captured.err and '1 of 2 references' in captured.err
  assert run_dataset('report', babyslakh) == 2
  assert 'Track00002' in capsys.readouterr().err


@pytest.mark.skipif(not (paths.SHARED / 'real' / 'slakh').is_dir(), reason='there is no ../shared/real/slakh')
def test_a_published_track():
  root = paths.SHARED / 'real' / 'slakh'
  (track,) = slakh_layout.find_tracks(root)
  stems = {
    stem.name: (stem.program, len(slakh_layout.read_stem_notes(stem))) for stem in slakh_layout.read_stems(track)
  }
  # The programs of metadata.yaml, and the numbers of notes in the MIDI files.
  assert stems == {
    'S00': (30, 108),
    'S02': (1, 401),
    'S03': (33, 361),
    'S04': (52, 68),
    'S07': (26, 208),
    'S08': (30, 130),
    'S10': (22, 212),
  }
  content = SlakhFolder(str(root)).read_piece('train', 'Track00001', RATE, stems=True)
  assert content.lost_notes == 0 and content.stems.shape[0] == 7
  mix = SlakhFolder(str(root)).read_piece('train', 'Track00001', RATE).samples
  assert np.mean((mix - content.samples) ** 2) < 1e-4 * np.mean(mix**2)
