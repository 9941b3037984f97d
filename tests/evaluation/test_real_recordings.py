"""Scores on real recordings: what is found in a folder, the scores by kind, and the command."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import SHARED

from mrmt3.audio import files as audio_files
from mrmt3.cli.main import main
from mrmt3.errors import UserError
from mrmt3.evaluation import basic_pitch, real_recordings
from mrmt3.notes import midi
from mrmt3.notes.note_array import as_notes

PIANO = as_notes([(0.02, 0.5, 60, 40, 0, 0), (0.6, 1.0, 64, 80, 0, 0), (1.1, 1.8, 67, 120, 0, 0)])
DRUMS = as_notes([(0.5 * k, 0.5 * k + 0.1, 36, 100, 0, 1) for k in range(4)])


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / 'real'
  rng = np.random.default_rng(0)
  for name, notes in {'piano_one': PIANO, 'drums_one': DRUMS, 'take7': DRUMS}.items():
    for part in ('audio', 'ref'):
      (folder / part).mkdir(parents=True, exist_ok=True)
    audio_files.write_audio(folder / 'audio' / f'{name}.wav', rng.normal(0, 0.05, 32000).astype(np.float32))
    midi.write_midi(notes, folder / 'ref' / f'{name}.mid')
  (folder / 'kinds.json').write_text('{"take7": "band"}')
  (folder / 'audio' / '._piano_one.wav').write_bytes(b'')
  return folder


def test_recordings_their_kinds_and_what_has_no_partner(folder):
  (folder / 'ref' / 'lost.mid').write_bytes((folder / 'ref' / 'piano_one.mid').read_bytes())
  audio_files.write_audio(folder / 'audio' / 'alone.flac', np.zeros(100, np.float32))
  found, lines = real_recordings.find_recordings(folder)
  assert [(r.name, r.kind) for r in found] == [('drums_one', 'drums'), ('piano_one', 'piano'), ('take7', 'band')]
  assert np.array_equal(found[1].read_notes(), midi.read_midi(folder / 'ref' / 'piano_one.mid'))
  assert ['alone.flac has no reference' in lines[0], 'lost.mid has no recording' in lines[1]] == [True, True]
  with pytest.raises(UserError, match='no recordings with references'):
    real_recordings.find_recordings(folder / 'audio')
  with pytest.raises(UserError, match='no folder'):
    real_recordings.find_recordings(folder / 'nowhere')


@pytest.mark.parametrize('text', ['{', '[]', '{"a": 1}'])
def test_a_broken_table_of_kinds_is_one_line(folder, text):
  (folder / 'kinds.json').write_text(text)
  with pytest.raises(UserError, match=r'kinds\.json'):
    real_recordings.find_recordings(folder)


def test_scores_of_a_perfect_and_of_a_leaking_transcription():
  perfect = real_recordings.score(PIANO, PIANO, 'piano', 1.5)
  assert perfect['onset_f1'] == perfect['class_f1'] == perfect['leakage_ratio'] == perfect['instrument_recall'] == 1
  assert perfect['velocity_correlation'] == pytest.approx(1) and perfect['ends_at_border'] == 0
  assert (perfect['first_found'], perfect['first_all']) == (1, 1)
  leaking = PIANO.copy()
  leaking['program'][1:] = 40, 73
  leaking['offset'][0] = 1.5
  scores = real_recordings.score(PIANO, leaking, 'piano', 1.5)
  assert scores['onset_f1'] == 1 and scores['class_f1'] == pytest.approx(1 / 3)
  assert scores['leakage_ratio'] == 3 and scores['instrument_precision'] == pytest.approx(1 / 3)
  assert scores['ends_at_border'] == pytest.approx(1 / 3)
  late = PIANO.copy()
  late['onset'] += 0.08
  assert real_recordings.score(PIANO, late, 'violin', None)['onset_f1'] == 0
  assert real_recordings.score(PIANO, late, 'violin', None)['onset_f1_100ms'] == 1
  plain = real_recordings.score(PIANO, PIANO, 'piano', None, names_instruments=False)
  assert plain['onset_f1'] == 1 and np.isnan(plain['class_f1']) and np.isnan(plain['leakage_ratio'])


def test_of_a_band_only_the_drums_recall_counts():
  both = np.concatenate([PIANO, DRUMS[:3]])
  assert real_recordings.score(DRUMS, both, 'band', 1.5) == {'notes': 6, 'drum_recall': 0.75}


def test_means_leave_out_what_does_not_apply():
  rows = [
    {'name': 'a', 'kind': 'x', 'f': 0.5},
    {'name': 'b', 'kind': 'x', 'f': np.nan},
    {'name': 'c', 'kind': 'y', 'g': 1},
  ]
  means = real_recordings.mean_by_kind(rows)
  assert list(means) == ['x', 'y', 'all'] and means['x']['n'] == 2
  assert means['x']['f'] == 0.5 and np.isnan(means['y']['f']) and means['all']['g'] == 1


def test_cases_change_the_sound_and_give_times_back():
  samples = np.ones(1600, np.float32)
  assert len(real_recordings.prepared(samples, 16000, 'silence')) == 3200
  assert real_recordings.prepared(samples, 16000, '-60 dB')[0] == pytest.approx(0.001)
  later = PIANO.copy()
  later['onset'] += 0.1
  later['offset'] += 0.1
  assert np.allclose(real_recordings.shifted(later, 'silence')['onset'], PIANO['onset'])
  assert real_recordings.shifted(PIANO, 'silence')['onset'].min() == 0


def test_the_command_scores_a_folder_of_midi(folder, tmp_path, capsys):
  given = tmp_path / 'given'
  given.mkdir()
  for name, notes in (('piano_one', PIANO), ('take7', DRUMS[:2])):
    midi.write_midi(notes, given / f'{name}.mid')
  assert main(['bench', 'real', str(folder), '--midi', str(given), '--json', str(tmp_path / 'scores.json')]) == 2
  captured = capsys.readouterr()
  assert (
    captured.err.splitlines()[-1] == 'mrmt3: error: 1 recording could not be scored' and 'drums_one.mid' in captured.err
  )
  rows = {line.split()[0]: line.split() for line in captured.out.splitlines() if line.strip()}
  assert rows['piano'][1:4] == ['1', '3', '1.000'] and rows['band'][-1] == '0.500'
  assert 'development set' in captured.out
  scores = json.loads((tmp_path / 'scores.json').read_text())[str(given)]
  assert [row['name'] for row in scores] == ['piano_one', 'take7'] and scores[0]['onset_f1_100ms'] is None


def test_the_command_runs_the_bundled_model_and_a_peer(folder, tmp_path, capsys):
  peer = tmp_path / 'python'
  peer.write_text(f'#!/bin/sh\ncp {folder}/ref/piano_one.mid "$4"\n')
  peer.chmod(0o755)
  arguments = ['bench', 'real', str(folder), '--only', 'piano_one', '--peer-python', str(peer), '--case', 'silence']
  assert main(arguments) == 0
  out = capsys.readouterr().out
  assert 'mrmt3, silence' in out and 'basic-pitch, silence' in out and 'times as fast' in out
  assert [line.split()[3] for line in out.splitlines() if line.startswith('piano')][1] == '1.000'


@pytest.mark.parametrize(
  ('arguments', 'named'),
  [
    (['--case', 'loud'], '--case loud'),
    (['--only', 'nothing'], 'no such recording'),
    (['--midi', 'x', '--case', 'silence'], 'leave --midi out'),
  ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, named):
  assert main(['bench', 'real', str(folder), *arguments]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert named in line


def test_a_peer_that_is_not_there_is_one_line(tmp_path):
  with pytest.raises(UserError, match='name a Python'):
    basic_pitch.transcribe(str(tmp_path / 'python'), tmp_path / 'a.wav')
  with pytest.raises(UserError, match='basic-pitch failed'):
    basic_pitch.transcribe(sys.executable, tmp_path / 'a.wav')


def test_the_recordings_are_all_read():
  folder = Path(os.environ.get('MRMT3_REAL') or SHARED / 'real')
  if not (folder / 'audio').is_dir():
    pytest.skip('no recordings: MRMT3_REAL names none')
  found, lines = real_recordings.find_recordings(folder)
  assert found and not lines
  assert all(len(recording.read_notes()) for recording in found)
