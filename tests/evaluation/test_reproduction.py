"""`mrmt3 reproduce slakh` on a small folder in Slakh2100's layout."""

import json
import types

import command_line
import jax
import numpy as np
import pytest
import yaml

from mrmt3.audio import files as audio_files
from mrmt3.checkpoints import fetch as checkpoint_fetch
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints import published
from mrmt3.cli import reproduce
from mrmt3.errors import UserError
from mrmt3.evaluation import reproduction
from mrmt3.inference import transcriber
from mrmt3.notes import midi
from mrmt3.notes.note_array import as_notes

PIANO = [(0.0, 0.4, 60, 100, 0, 0), (0.5, 0.9, 64, 100, 0, 0)]
BASS = [(0.0, 0.4, 40, 100, 33, 0), (0.5, 0.9, 43, 100, 33, 0)]
DRUMS = [(0.25, 0.3, 38, 100, 0, 1)]
LOST = [(0.1, 0.2, 72, 100, 73, 0)]  # in the MIDI files, but not in the mix
# The stems in the mix, with Slakh classes: program 36 is a slap bass, an electric bass (33).
MIXED = as_notes(PIANO + BASS + DRUMS)


def write_track(folder, seconds):
  stems = {'S00': (PIANO, 0, True), 'S01': (BASS, 36, True), 'S02': (DRUMS, 128, True), 'S03': (LOST, 73, False)}
  metadata = {'stems': {}}
  for name, (rows, program, rendered) in stems.items():
    notes = as_notes(rows)
    notes['program'] = 0 if program == 128 else program
    midi.write_midi(notes, folder / 'MIDI' / f'{name}.mid')
    metadata['stems'][name] = {
      'audio_rendered': rendered,
      'integrated_loudness': -20.0 if rendered else None,
      'is_drum': program == 128,
      'program_num': program,
      'midi_saved': True,
      'inst_class': 'x',
    }
  (folder / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
  audio_files.write_audio(folder / 'mix.wav', np.zeros(int(16000 * seconds), np.float32))


@pytest.fixture
def data(tmp_path):
  for number in (1, 2, 3):
    write_track(tmp_path / 'slakh' / 'test' / f'Track{number:05}', seconds=number / 4)
  return tmp_path / 'slakh'


@pytest.fixture
def model(tmp_path, small_spec):
  rng = np.random.default_rng(0)
  shapes = small_spec.parameter_shapes()
  params = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)
  orbax_checkpoints.save_checkpoint(tmp_path / 'model', 4, {'target': params}, small_spec)
  return tmp_path / 'model'


def run(*arguments):
  return command_line.run(reproduce, 'reproduce', 'slakh', *arguments)


def predict_with(monkeypatch, notes_of):
  """Make every model predict `notes_of(samples)`; return the lengths, in samples, of its inputs."""
  asked = []

  def transcribe(self, samples, progress=None):
    asked.append(len(samples))
    return types.SimpleNamespace(notes=notes_of(samples))

  monkeypatch.setattr(transcriber.Transcriber, 'transcribe', transcribe)
  return asked


def rows_of(text):
  rows = [line for line in text.splitlines() if '  ' in line and any(mark in line for mark in ('(', 'PUBLISHED:'))]
  return {line.split('  ')[0].strip(): line.split('  ', 1)[1].split() for line in rows if not line.startswith('Means')}


def test_a_perfect_transcription_in_both_ways(data, model, tmp_path, monkeypatch, capsys):
  asked = predict_with(monkeypatch, lambda _: MIXED)
  assert run('--data', data, '--checkpoint', model, '-o', tmp_path / 'out') == 0
  assert sorted(asked) == [4000, 8000, 12000]
  out = capsys.readouterr().out
  rows = rows_of(out)
  assert rows['model (default)'] == ['1.000'] * 6
  # The published references have the flute, which is not in the mix, and slap bass instead of program 33: 5 of 6 notes
  # match by onset and by family. Of the programs 0 (with drums), 36 and 73 only 0 is detected, together with a 33.
  f1 = f'{2 * 5 / 11:.3f}'
  assert rows['model (published)'][:2] == [f1, f1]
  assert rows['model (published)'][3:] == ['1.000', f'{2 / 3:.3f}', f'{2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3):.3f}']
  assert rows['PUBLISHED: MT3, official checkpoint [1]'] == ['0.7595', '0.7296', '0.5797', '0.7687', '-', '-']
  assert rows['PUBLISHED: MR-MT3 [3]'] == ['-', '0.664', '-', '-', '1.05', '-']
  assert len({len(line) for line in out.splitlines()[1:9]}) == 1, 'columns are not aligned'
  assert out.startswith('3 pieces of the split test')
  report = json.loads((tmp_path / 'out' / 'model' / 'scores.json').read_text())
  assert report['scores']['default'].keys() == {'Track00001', 'Track00002', 'Track00003'}
  assert report['means']['default']['onset_f1'] == 1


def test_goes_on_where_it_was_stopped(data, model, tmp_path, monkeypatch, capsys):
  arguments = ('--data', data, '--checkpoint', model, '-o', tmp_path / 'out', '--quiet')

  def stopped(samples):
    if len(samples) > 4000:
      raise KeyboardInterrupt
    return MIXED

  predict_with(monkeypatch, stopped)
  with pytest.raises(KeyboardInterrupt):
    run(*arguments)
  asked = predict_with(monkeypatch, lambda _: MIXED)
  run(*arguments)
  assert asked == [8000, 12000]
  assert run(*arguments) == 0
  assert asked == [8000, 12000]
  assert rows_of(capsys.readouterr().out)['model (default)'] == ['1.000'] * 6


def test_other_weights_do_not_mix(data, model, tmp_path, monkeypatch):
  predict_with(monkeypatch, lambda _: MIXED)
  run('--data', data, '--checkpoint', model, '-o', tmp_path / 'out', '--tracks', 1, '--quiet')
  params, spec, _ = orbax_checkpoints.restore_params(model)
  params['decoder']['decoder_norm']['scale'] = params['decoder']['decoder_norm']['scale'] + 1
  orbax_checkpoints.save_checkpoint(model, 5, {'target': params}, spec)
  with pytest.raises(UserError, match='by other weights'):
    run('--data', data, '--checkpoint', model, '-o', tmp_path / 'out', '--quiet')


def test_failed_pieces_count_as_empty_and_are_named(data, model, tmp_path, monkeypatch, capsys):
  predict_with(monkeypatch, lambda _: MIXED)
  (data / 'test' / 'Track00002' / 'mix.wav').write_text('not audio')
  assert run('--data', data, '--checkpoint', model, '-o', tmp_path / 'out', '--quiet') == 2
  captured = capsys.readouterr()
  assert 'Track00002 counts as empty' in captured.err and len(captured.err.splitlines()) == 1
  assert rows_of(captured.out)['model (default)'][:2] == ['0.667', '0.667']


def test_unreadable_references_are_left_out_and_named(data, model, tmp_path, monkeypatch, capsys):
  predict_with(monkeypatch, lambda _: MIXED)
  next((data / 'test' / 'Track00002' / 'MIDI').iterdir()).write_bytes(b'not MIDI')
  assert run('--data', data, '--checkpoint', model, '-o', tmp_path / 'out', '--quiet') == 2
  captured = capsys.readouterr()
  assert 'Track00002 is left out: ' in captured.err and len(captured.err.splitlines()) == 1
  assert captured.out.startswith('2 pieces of the split test')
  assert rows_of(captured.out)['model (default)'][:2] == ['1.000', '1.000']


def test_tracks_without_split_folders(data, model, tmp_path, monkeypatch, capsys):
  predict_with(monkeypatch, lambda _: MIXED)
  (data / 'test').rename(tmp_path / 'babyslakh_16k')
  for more in ((), ('--split', 'train')):
    words = ('--data', tmp_path / 'babyslakh_16k', '--checkpoint', model, '-o', tmp_path / 'out', '--quiet', *more)
    assert run(*words) == 0
    assert capsys.readouterr().out.startswith('3 pieces of the split train')
  with pytest.raises(UserError, match="no split 'test': its tracks are in no split folder and count as 'train'"):
    run(*words, '--split', 'test')


def test_two_checkpoints_with_a_real_network(data, model, tmp_path, capsys):
  (tmp_path / 'other').symlink_to(model)
  assert (
    run(
      '--data',
      data,
      '--checkpoint',
      model,
      '--checkpoint',
      tmp_path / 'other' / 'checkpoint_4',
      '-o',
      tmp_path / 'out',
      '--tracks',
      2,
      '--quiet',
    )
    == 0
  )
  rows = rows_of(capsys.readouterr().out)
  assert rows['model (default)'] == rows['checkpoint_4 (default)']
  assert (tmp_path / 'out' / 'model' / 'Track00002.mid').exists()
  assert not (tmp_path / 'out' / 'model' / 'Track00003.mid').exists()


def test_a_published_name_is_fetched_first(data, model, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('MRMT3_CACHE', str(tmp_path / 'cache'))
  predict_with(monkeypatch, lambda _: MIXED)
  fetched = []

  def fetch(what, quiet):
    fetched.append(what.name)
    params, spec, step = orbax_checkpoints.restore_params(model)
    orbax_checkpoints.save_checkpoint(published.checkpoint_folder(what.name), step, {'target': params}, spec)

  monkeypatch.setattr(checkpoint_fetch, 'fetch', fetch)
  assert run('--data', data, '-o', tmp_path / 'out', '--tracks', 1, '--quiet') == 0
  assert fetched == ['mt3', 'mr-mt3-0', 'mr-mt3-64-hop3']
  rows = rows_of(capsys.readouterr().out)
  assert [rows[f'{name} (default)'] for name in fetched] == [['1.000'] * 6] * 3


def test_mistakes_are_one_line(data, model, tmp_path, monkeypatch):
  monkeypatch.setenv('MRMT3_CACHE', str(tmp_path / 'cache'))
  for arguments, message in (
    (('--data', tmp_path / 'none'), 'no data set'),
    (('--data', data, '--split', 'validation'), 'no split'),
    (('--data', data, '--checkpoint', tmp_path / 'none'), 'no such checkpoint'),
    (('--data', data, '--checkpoint', 'mt4'), 'no such checkpoint'),
    (('--data', data, '--tracks', 0), '--tracks is 0'),
    (('--data', data, '--checkpoint', model, '-o', data / 'test' / 'Track00001' / 'mix.wav'), 'cannot make the folder'),
  ):
    with pytest.raises(UserError, match=message) as error:
      run(*arguments)
    assert '\n' not in str(error.value)


def test_a_broken_note_of_whose_transcriptions(data, model, tmp_path, monkeypatch):
  predict_with(monkeypatch, lambda _: MIXED)
  folder = tmp_path / 'out' / 'model'
  folder.mkdir(parents=True)
  (folder / reproduction.RUN_NAME).write_text('{')
  with pytest.raises(UserError, match='is broken'):
    run('--data', data, '--checkpoint', model, '-o', tmp_path / 'out')
