"""Sound sources: checks of notes, preparation, held-out sources, licences, and what goes wrong."""

import dataclasses
import shutil

import numpy as np
import pytest
import soundfile

from mrmt3.dataset_builder import prepare_sounds, sound_palette
from mrmt3.dataset_builder.licences import is_permissive, music_licence
from mrmt3.dataset_builder.recipes import RECIPES
from mrmt3.dataset_builder.shared_samples import SampleIndex
from mrmt3.dataset_builder.sound_checks import RATE, check_note
from mrmt3.dataset_builder.sound_sources import registry
from mrmt3.dataset_builder.sound_sources.folders import find_path, package_folder
from mrmt3.dataset_builder.sound_sources.hydrogen import percussion_of
from mrmt3.dataset_builder.sound_sources.sample_folder import pitch_of_name
from mrmt3.dataset_builder.sound_sources.source import RECORDED, SourceSpec
from mrmt3.dataset_builder.sound_store import read_store, store_folder
from mrmt3.errors import UserError
from mrmt3.notes.instruments import SLAKH_CLASSES, slakh_class_program


def tone(pitch, seconds=1.5, rate=RATE, gain=0.3, lead=0.0, harmonics=6, seed=None):
  times = np.arange(round(seconds * rate)) / rate
  f0 = 440 * 2 ** ((pitch - 69) / 12)
  audio = sum(np.sin(2 * np.pi * f0 * h * times) / h for h in range(1, harmonics + 1) if f0 * h < 0.45 * rate)
  if seed is not None:  # breath: a noise of its own in each recording
    audio = audio + np.random.default_rng(seed).normal(0, 0.3, len(audio)) * np.exp(-3 * times)
  return np.concatenate([np.zeros(round(lead * rate)), gain * audio]).astype(np.float32)


@pytest.mark.parametrize('pitch', [33, 48, 60, 72, 88])
@pytest.mark.parametrize('cents', [-45, -20, 0, 25, 45])
def test_the_pitch_is_measured(pitch, cents):
  found = check_note(tone(pitch + cents / 100), RATE, pitch)
  assert abs(found.cents - cents) < 4
  assert found.octave == 0


@pytest.mark.parametrize('octave', [-1, 1])
def test_a_wrong_octave_is_found(octave):
  assert check_note(tone(60 + 12 * octave), RATE, 60).octave == octave


@pytest.mark.parametrize('lead', [0.028, 0.1, 0.24])
def test_the_lead_in_is_trimmed(lead):
  audio = tone(60, lead=lead) + np.random.default_rng(0).normal(0, 1e-4, RATE * 3 // 2 + round(lead * RATE))
  found = check_note(audio, RATE, 60)
  assert abs(found.lead - lead) < 0.008


def test_silent_clipped_and_broken_notes_are_named():
  assert check_note(np.zeros(RATE, np.float32), RATE, 60).problem == 'inaudible'
  assert check_note(np.clip(tone(60, gain=2.0), -1, 1), RATE, 60).problem == 'clipped'
  assert check_note(np.full(RATE, np.nan), RATE, 60).problem == 'no usable samples'
  assert check_note(np.zeros(0), RATE, 60).problem == 'no usable samples'


def test_copies_are_found_and_other_recordings_are_not():
  rng = np.random.default_rng(1)
  recordings = [tone(60, seed=seed) * np.exp(-np.arange(24000) / 9000) for seed in range(4)]
  index = SampleIndex(recordings)
  assert index.find(-0.2 * recordings[2][300:]) == 2
  assert index.find(recordings[1] + rng.normal(0, 1e-6, 24000)) == 1
  for seed in range(10, 16):
    assert index.find(tone(60, seed=seed) * np.exp(-np.arange(24000) / 9000)) is None
    assert index.find(tone(60, seed=seed, harmonics=4)) is None


def test_names_of_files_and_drums():
  assert [pitch_of_name(name) for name in ('A4', 'As3', 'C#5', 'Bb2', 'C-1', 'A0v7', 'README')] == [
    69, 58, 73, 46, 0, 21, None,
  ]  # fmt: skip
  names = ('Kick', 'Snare Jazz', 'Closed HH', 'Hat Pedal', 'Open HH', 'Tom Hi', 'Ride Jazz', 'Crash', 'Zap 1', 'FX')
  assert [percussion_of(name) for name in names] == [36, 38, 42, 44, 46, 50, 51, 49, None, None]


SPEC = SourceSpec(
  'test-violin',
  RECORDED,
  'CC-BY-3.0',
  'by a test',
  'npm:test-violin@1',
  'package',
  'sample_folder:open_samples',
  (('program', 40),),
  (40,),
)


@pytest.fixture
def samples(tmp_path, monkeypatch):
  monkeypatch.setenv('MRMT3_CACHE', str(tmp_path))
  monkeypatch.setattr(registry, 'SOURCES', (SPEC,))
  folder = package_folder(SPEC.package) / 'package'
  folder.mkdir(parents=True)
  for name, pitch in (('A3', 57), ('C4', 60), ('E4', 64), ('G4', 67)):
    soundfile.write(folder / f'{name}.wav', tone(pitch, rate=44100, lead=0.1), 44100)
  return folder


def test_a_source_is_prepared_and_bad_notes_are_dropped(samples):
  soundfile.write(samples / 'A4.wav', tone(69.6, rate=44100), 44100)
  soundfile.write(samples / 'C5.wav', tone(60, rate=44100), 44100)
  soundfile.write(samples / 'E5.wav', np.zeros(44100), 44100)
  prepared = prepare_sounds.prepare_source(SPEC)
  assert [zone.pitch for zone in prepared.presets[0].zones] == [57, 60, 64, 67]
  text = '\n'.join(prepared.dropped)
  assert '69 (' in text and '72 (-12 semitones)' in text and 'inaudible, notes 76' in text
  before = (prepared.folder / 'manifest.json').read_bytes(), (prepared.folder / 'audio.npy').read_bytes()
  again = prepare_sounds.prepare_source(SPEC, force=True)
  assert before == ((again.folder / 'manifest.json').read_bytes(), (again.folder / 'audio.npy').read_bytes())


def test_a_changed_package_is_prepared_again(samples):
  assert len(prepare_sounds.prepare_source(SPEC).presets[0].zones) == 4
  soundfile.write(samples / 'A4.wav', tone(69, rate=44100), 44100)
  assert len(prepare_sounds.prepare_source(SPEC).presets[0].zones) == 5


def test_programs_with_recordings_of_a_held_out_source_are_dropped(samples, monkeypatch):
  held = dataclasses.replace(SPEC, name='test-held', package='npm:test-held@1', held_out='test')
  folder = package_folder(held.package) / 'package'
  folder.mkdir(parents=True)
  for pitch, name in ((57, 'A3'), (60, 'C4')):
    soundfile.write(folder / f'{name}.wav', tone(pitch, rate=44100, seed=3), 44100)
  monkeypatch.setattr(registry, 'SOURCES', (SPEC, held))
  prepare_sounds._index_of.cache_clear()
  assert not prepare_sounds.prepare_source(SPEC).shared
  audio, _ = soundfile.read(folder / 'A3.wav')
  soundfile.write(samples / 'A3.wav', 0.5 * audio[2000:], 44100)
  with pytest.raises(UserError, match='shares recordings with test-held'):
    prepare_sounds.prepare_source(SPEC)
  prepare_sounds._index_of.cache_clear()


def test_missing_broken_and_empty_sources_are_one_line(samples):
  (samples / 'A3.wav').write_bytes((samples / 'A3.wav').read_bytes()[:30])
  with pytest.raises(UserError, match=r'A3.wav'):
    prepare_sounds.prepare_source(SPEC)
  for path in samples.iterdir():
    path.unlink()
  with pytest.raises(UserError, match='no recordings'):
    prepare_sounds.prepare_source(SPEC)
  shutil.rmtree(samples)
  with pytest.raises(UserError, match='is missing; get it with: mrmt3 dataset sounds --fetch'):
    prepare_sounds.prepare_source(SPEC)
  assert not store_folder(SPEC.name).exists()


def test_a_full_disk_leaves_the_old_store(samples, monkeypatch):
  before = prepare_sounds.prepare_source(SPEC)

  def fail(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(np, 'save', fail)
  with pytest.raises(UserError, match='No space left on device'):
    prepare_sounds.prepare_source(SPEC, force=True)
  assert read_store(SPEC.name) == before
  assert [path.name for path in before.folder.parent.iterdir()] == [SPEC.name]


def test_a_broken_store_is_one_line(samples):
  folder = prepare_sounds.prepare_source(SPEC).folder
  (folder / 'manifest.json').write_text('{"format": 1')
  with pytest.raises(UserError, match='are broken; remove that folder'):
    read_store(SPEC.name)


def test_held_out_sources_are_not_trained_on():
  held = {spec.name for spec in registry.held_out_specs()}
  assert held == {'generaluser', 'freepats'}
  assert not held & {spec.name for spec in sound_palette.specs_of(sound_palette.TRAINING)}
  for recipe in (RECIPES['wide'],):
    assert recipe.sounds['train'] == recipe.sounds['validation'] == sound_palette.TRAINING
    assert recipe.sounds['test'] in {spec.held_out for spec in registry.held_out_specs()}


def test_the_permissive_sources_cover_all_classes():
  specs = registry.training_specs(permissive=True)
  assert all(is_permissive(spec.licence) for spec in specs)
  assert {slakh_class_program(program) for spec in specs for program in spec.programs} == set(SLAKH_CLASSES.values())
  assert sum(spec.drum_kits for spec in specs) >= 2


def test_every_source_has_a_licence_and_a_unique_name():
  names = [spec.name for spec in registry.SOURCES]
  assert len(set(names)) == len(names)
  assert all(spec.licence and spec.attribution for spec in registry.SOURCES)
  assert sum(spec.drum_kits for spec in registry.training_specs()) >= 15
  assert music_licence('freedoom/freedoom1.wad/D_E1M1')[0] == 'BSD-3-Clause'
  assert not is_permissive(music_licence('music21/bach/bwv227.1.mxl')[0])


def test_sonivox_is_in_tune():
  spec = registry.find_spec('sonivox')
  path = find_path(spec.package, spec.path)
  if path is None:
    pytest.skip('sonivox is not here; mrmt3 dataset sounds --fetch brings it')
  source = registry.open_source(spec, path)
  preset = next(preset for preset in source.presets() if preset.program == 73)
  assert source.waveforms(preset)
  for note in source.notes(preset, 64, 76):
    found = check_note(note.audio, note.sample_rate, note.pitch)
    assert not found.problem and found.octave == 0 and abs(found.cents) < 30


def test_a_build_is_reproducible_and_names_its_licences(samples, monkeypatch, tmp_path):
  from mrmt3.dataset_builder.sampled_stems import render_pitched
  from mrmt3.notes.note_array import empty_notes

  sources = (prepare_sounds.prepare_source(SPEC),)
  notes = empty_notes(8)
  notes['onset'] = 0.5 * np.arange(8)
  notes['offset'] = notes['onset'] + 0.4
  notes['pitch'], notes['velocity'] = [57, 60, 62, 64, 65, 67, 69, 60], 90
  first, second = (render_pitched(sources, 41, notes, None, 5.0, np.random.default_rng(0)) for _ in range(2))
  assert first is None and second is None  # a viola has no source
  first, second = (render_pitched(sources, 40, notes, None, 5.0, np.random.default_rng(0)) for _ in range(2))
  assert first.audio.tobytes() == second.audio.tobytes()
  assert (first.program, first.licence, first.attribution) == (40, 'CC-BY-3.0', 'by a test')
