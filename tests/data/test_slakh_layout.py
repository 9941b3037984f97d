"""Tests of the Slakh2100 layout, written by mrmt3.dataset_builder.layout and read by mrmt3.data.slakh_layout."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from mrmt3.data import slakh_layout
from mrmt3.dataset_builder.layout import STEM_LOUDNESS, Stem, integrated_loudness, mix_stems, write_track
from mrmt3.errors import UserError
from mrmt3.notes.note_array import as_notes, as_rows, empty_notes

RATE = 16000

GUITAR = as_notes([(0.1, 0.5, 64, 90, 30, 0), (0.5, 1.25, 67, 80, 30, 0)])
BASS = as_notes([(0.0, 1.0, 40, 70, 35, 0)])
DRUMS = as_notes([(0.0, 0.1, 36, 100, 0, 1), (0.5, 0.6, 38, 100, 0, 1)])


def tone(frequency, seconds=1.5, amplitude=0.3):
  return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def band(**changes):
  stems = {
    'guitar': Stem(30, False, GUITAR, tone(330), 'font.sf2'),
    'bass': Stem(35, False, BASS, tone(82, 1.0)),
    'drums': Stem(0, True, DRUMS, np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)),
  }
  return list({**stems, **changes}.values())


def edit(folder, change):
  path = folder / 'metadata.yaml'
  metadata = yaml.safe_load(path.read_text())
  change(metadata)
  path.write_text(yaml.safe_dump(metadata))


@pytest.fixture(scope='module')
def master(tmp_path_factory):
  return write_track(tmp_path_factory.mktemp('master') / 'Track00001', band(), source='test/band')


@pytest.fixture
def folder(master, tmp_path):
  return Path(shutil.copytree(master, tmp_path / 'set' / 'train' / 'Track00001'))


def test_files_are_those_of_slakh(folder):
  files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())
  stems = [f'stems/S0{i}.flac' for i in range(3)]
  midi = [f'MIDI/S0{i}.mid' for i in range(3)]
  assert files == sorted([*stems, *midi, 'all_src.mid', 'metadata.yaml', 'mix.flac'])


def test_metadata_has_slakhs_fields(folder):
  metadata = slakh_layout.read_metadata(slakh_layout.Track(folder))
  fields = 'UUID audio_dir lmd_midi_dir midi_dir normalization_factor normalized overall_gain stems target_peak'
  assert sorted(metadata) == fields.split()
  fields = 'audio_rendered inst_class integrated_loudness is_drum midi_program_name midi_saved plugin_name program_num'
  assert all(sorted(stem) == fields.split() for stem in metadata['stems'].values())
  assert metadata['stems']['S00']['midi_program_name'] == 'Distortion Guitar'
  assert metadata['stems']['S00']['inst_class'] == 'Guitar'
  assert metadata['stems']['S02']['program_num'] == 128 and metadata['stems']['S02']['inst_class'] == 'Drums'


def test_notes_come_back_with_slakh_classes(folder):
  notes = slakh_layout.read_notes(slakh_layout.Track(folder))
  expected = as_notes(
    [
      (0.0, 1.0, 40, 70, 33, 0),
      (0.0, 0.1, 36, 100, 0, 1),
      (0.1, 0.5, 64, 90, 29, 0),
      (0.5, 1.25, 67, 80, 29, 0),
      (0.5, 0.6, 38, 100, 0, 1),
    ]
  )
  np.testing.assert_allclose(as_rows(notes), as_rows(expected), atol=1e-6)


def test_mix_is_the_exact_sum_and_peaks_at_target(folder):
  mix, rate = soundfile.read(folder / 'mix.flac', dtype='int16')
  stems = [soundfile.read(path, dtype='int16')[0].astype(int) for path in sorted((folder / 'stems').iterdir())]
  assert rate == RATE and [len(stem) for stem in stems] == [len(mix)] * 3
  np.testing.assert_array_equal(sum(stems), mix)
  assert 20 * np.log10(np.abs(mix.astype(float)).max() / 32767) == pytest.approx(-1, abs=0.02)


def test_stems_have_one_loudness_before_the_overall_gain():
  quiet_and_loud = [tone(440, 2.0, 0.01), tone(440, 2.0, 0.5)]
  mixture = mix_stems(quiet_and_loud, RATE)
  levels = [integrated_loudness(stem / 32767 / mixture.overall_gain, RATE) for stem in mixture.stems]
  np.testing.assert_allclose(levels, STEM_LOUDNESS, atol=0.02)
  np.testing.assert_allclose(np.diff(mixture.loudness), 20 * math.log10(50), atol=0.02)


def test_loudness_of_bs1770_reference_tone():
  # BS.1770: a 997 Hz sine at full scale in one channel reads -3.01 LUFS.
  assert integrated_loudness(tone(997, 2.0, 1.0), RATE) == pytest.approx(-3.01, abs=0.15)
  assert integrated_loudness(np.zeros(RATE), RATE) is None
  assert integrated_loudness(np.zeros(0), RATE) is None
  assert integrated_loudness(tone(997, 2.0, 1e-5), RATE) is None
  assert integrated_loudness(tone(997, 0.1, 0.5), RATE) is not None


def test_stems_that_cancel_do_not_clip():
  mixture = mix_stems([tone(440), -tone(440)], RATE)
  assert np.abs(mixture.stems[0].astype(int)).max() < 32767 and np.abs(mixture.mix).max() <= 1


@pytest.mark.parametrize('audio', [None, np.zeros(RATE, np.float32)])
def test_inaudible_stem_is_listed_but_not_labelled(tmp_path, audio):
  folder = write_track(tmp_path / 'Track00001', band(guitar=Stem(30, False, GUITAR, audio)))
  metadata = slakh_layout.read_metadata(slakh_layout.Track(folder))
  assert metadata['stems']['S00']['audio_rendered'] is False
  assert not (folder / 'stems' / 'S00.flac').exists() and (folder / 'MIDI' / 'S00.mid').exists()
  assert [stem.name for stem in slakh_layout.read_stems(slakh_layout.Track(folder))] == ['S01', 'S02']
  assert set(slakh_layout.read_notes(slakh_layout.Track(folder))['program']) == {33, 0}


def test_reader_leaves_out_what_slakh_did_not_render(folder):
  track = slakh_layout.Track(folder)
  edit(folder, lambda metadata: metadata['stems']['S00'].update(integrated_loudness=float('nan')))
  assert [stem.name for stem in slakh_layout.read_stems(track)] == ['S01', 'S02']
  edit(folder, lambda metadata: metadata['stems']['S01'].update(integrated_loudness=float('-inf')))
  edit(folder, lambda metadata: metadata['stems']['S02'].update(audio_rendered=False))
  assert len(slakh_layout.read_notes(track)) == 0


def test_reader_takes_program_from_metadata_not_from_the_file(folder):
  edit(folder, lambda metadata: metadata['stems']['S00'].update(program_num=41))
  edit(folder, lambda metadata: metadata['stems']['S01'].update(program_num=128, is_drum=True))
  stems = slakh_layout.read_stems(slakh_layout.Track(folder))
  assert [(stem.program, stem.is_drum) for stem in stems] == [(41, False), (0, True), (0, True)]
  notes = slakh_layout.read_notes(slakh_layout.Track(folder))
  assert sorted(set(zip(notes['program'].tolist(), notes['is_drum'].tolist(), strict=True))) == [(0, True), (41, False)]


def test_all_src_is_never_read(folder):
  (folder / 'all_src.mid').write_bytes(b'garbage')
  assert len(slakh_layout.read_notes(slakh_layout.Track(folder))) == 5


def test_empty_midi_and_missing_numbers_are_fine(tmp_path):
  folder = write_track(tmp_path / 'Track00001', band(bass=Stem(35, False, empty_notes(), tone(82))))
  (folder / 'MIDI' / 'S00.mid').unlink()
  edit(folder, lambda metadata: metadata['stems'].pop('S00'))
  assert slakh_layout.read_notes(slakh_layout.Track(folder))['is_drum'].tolist() == [True, True]


def test_same_input_same_bytes(master, tmp_path):
  again = write_track(tmp_path / 'elsewhere' / 'Track00001', band(), source='test/band')
  for path in sorted(path for path in master.rglob('*') if path.is_file()):
    assert path.read_bytes() == (again / path.relative_to(master)).read_bytes(), path.name


def test_write_track_replaces_a_track(folder):
  (folder / 'stems' / 'S77.flac').write_bytes(b'left over')
  write_track(folder, band()[1:])
  assert sorted(path.name for path in (folder / 'stems').iterdir()) == ['S00.flac', 'S01.flac']
  assert [path.name for path in folder.parent.iterdir()] == ['Track00001']


@pytest.mark.parametrize(
  ('stems', 'words'),
  [
    ([], '0 stems'),
    ([Stem(130, False, BASS, tone(82))], 'program 130'),
    ([Stem(30, False, GUITAR, np.zeros(RATE, np.float32))], 'no stem of the track is audible'),
    ([Stem(30, False, GUITAR, np.full(RATE, np.nan, np.float32))], 'S00 has NaN'),
  ],
)
def test_bad_stems_are_refused_and_leave_nothing(tmp_path, stems, words):
  with pytest.raises(UserError, match=words):
    write_track(tmp_path / 'train' / 'Track00001', stems)
  assert not list(tmp_path.rglob('*Track*'))


def test_failure_while_writing_leaves_the_old_track_and_no_leftovers(folder, monkeypatch):
  def full_disk(*_args, **_kwargs):
    raise OSError(28, 'No space left on device')

  before = (folder / 'metadata.yaml').read_bytes()
  monkeypatch.setattr(Path, 'write_text', full_disk)
  with pytest.raises(UserError, match='No space left'):
    write_track(folder, band()[1:])
  assert (folder / 'metadata.yaml').read_bytes() == before
  assert [path.name for path in folder.parent.iterdir()] == ['Track00001']


def test_a_file_in_place_of_the_split_is_one_clear_error(tmp_path):
  (tmp_path / 'train').write_text('')
  with pytest.raises(UserError, match='cannot make the folder'):
    write_track(tmp_path / 'train' / 'Track00001', band())


def test_find_tracks_in_order_of_split_and_number(tmp_path):
  for name in ('test/Track00004', 'train/Track10', 'train/Track2', 'omitted/Track00009', 'validation/Track00003'):
    (tmp_path / name).mkdir(parents=True)
  (tmp_path / 'train' / '.Track00005.half').mkdir()
  (tmp_path / 'train' / 'Track00006').write_text('a file')
  (tmp_path / 'train' / 'notes').mkdir()
  names = [(track.split, track.name) for track in slakh_layout.find_tracks(tmp_path)]
  assert names == [('train', 'Track2'), ('train', 'Track10'), ('validation', 'Track00003'), ('test', 'Track00004')]
  assert [track.name for track in slakh_layout.find_tracks(tmp_path, 'omitted')] == ['Track00009']
  assert [track.name for track in slakh_layout.find_tracks(tmp_path / 'train')] == ['Track2', 'Track10']


def test_find_tracks_reports_what_is_missing(tmp_path):
  with pytest.raises(UserError, match='no such folder'):
    slakh_layout.find_tracks(tmp_path / 'nowhere')
  with pytest.raises(UserError, match='no tracks in'):
    slakh_layout.find_tracks(tmp_path)
  with pytest.raises(UserError, match="no split 'test'"):
    slakh_layout.find_tracks(tmp_path, 'test')
  (tmp_path / 'test').mkdir()
  with pytest.raises(UserError, match='no tracks in'):
    slakh_layout.find_tracks(tmp_path, 'test')


def test_audio_path_prefers_flac(tmp_path):
  track = slakh_layout.Track(tmp_path / 'Track00001')
  track.path.mkdir()
  with pytest.raises(UserError, match='has no mix'):
    _ = track.audio_path
  for name in ('mix_16k.wav', 'mix.wav', 'mix.flac'):
    (track.path / name).write_bytes(b'')
    assert track.audio_path.name == name


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('stems: [', 'is not YAML'),
    ('', 'no table of stems'),
    ('stems: 3', 'no table of stems'),
    ('stems: {S00: guitar}', 'no table of stems'),
    ('stems: {S00: {audio_rendered: true, integrated_loudness: -9.0, program_num: loud}}', "program_num 'loud'"),
    ('stems: {S00: {audio_rendered: true, integrated_loudness: -9.0, program_num: true}}', 'program_num True'),
    ('stems: {S00: {audio_rendered: true, integrated_loudness: -9.0, program_num: 128, is_drum: 0}, 1: {}}', None),
    ('a: &a [x]\nstems: {S00: {program_num: [*a, *a]}}', 'aliases'),
    ('stems: {S00: {}, S01: {}, S00: {}}', "'S00' is there twice"),
    ('stems: {../../S00: {}}', 'not the name of a stem'),
    ('stems: {/etc/passwd: {}}', 'not the name of a stem'),
    ('stems: ' + '{a: ' * 500 + '1' + '}' * 500, 'deeply'),
  ],
)
def test_broken_metadata_is_named(folder, text, words):
  (folder / 'metadata.yaml').write_text(text)
  if words is None:  # unusual but valid: 128 means drums
    assert slakh_layout.read_notes(slakh_layout.Track(folder))['is_drum'].all()
    return
  with pytest.raises(UserError, match=words) as caught:
    slakh_layout.read_notes(slakh_layout.Track(folder))
  assert 'Track00001' in str(caught.value) and '\n' not in str(caught.value)


def test_missing_files_are_named(folder):
  (folder / 'MIDI' / 'S01.mid').write_bytes(b'MThd garbage')
  with pytest.raises(UserError, match=r'S01\.mid'):
    slakh_layout.read_notes(slakh_layout.Track(folder))
  (folder / 'MIDI' / 'S01.mid').unlink()
  with pytest.raises(UserError, match='stem S01 is missing'):
    slakh_layout.read_notes(slakh_layout.Track(folder))
  (folder / 'metadata.yaml').unlink()
  with pytest.raises(UserError, match=r'metadata\.yaml'):
    slakh_layout.read_notes(slakh_layout.Track(folder))
