import json
import subprocess
import sys
import time
from pathlib import Path

import command_line
import network_fixture as fixture
import numpy as np
import pytest
from paths import ROOT

from mrmt3.audio import files as audio_files
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.cli import transcribe
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.inference import jobs
from mrmt3.notes import midi
from mrmt3.spectrograms import SpectrogramConfig


def run(*arguments):
  return command_line.run(transcribe, 'transcribe', *arguments)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp('model')
  spec = ModelSpec(fixture.CONFIG, SpectrogramConfig(num_mel_bins=64), segment_frames=40, targets_length=48)
  orbax_checkpoints.save_checkpoint(folder, 3, {'target': fixture.params()}, spec)
  return folder


@pytest.fixture(scope='module')
def songs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('songs')
  rng = np.random.default_rng(0)
  for name in ('a.wav', 'b.flac', 't1/mix.wav', 't2/mix.wav'):
    (folder / name).parent.mkdir(exist_ok=True)
    audio_files.write_audio(folder / name, rng.normal(0, 0.1, 9000).astype(np.float32))
  (folder / 'text.wav').write_text('not audio')
  return folder


def test_one_file(model, songs, tmp_path, capsys):
  out = tmp_path / 'x' / 'song.mid'
  assert run(songs / 'a.wav', '-o', out, '--checkpoint', model, '--json', '--plot') == 0
  notes = midi.read_midi(out)
  data = json.loads(out.with_suffix('.json').read_text())
  assert set(data) == {'audio', 'seconds', 'stats', 'notes', 'segments'}
  assert data['seconds'] == 9000 / 16000
  assert len(data['segments']) == data['stats']['segments'] == 2
  assert len(notes) > 0
  assert {(n['pitch'], n['is_drum']) for n in data['notes']} == {(n['pitch'], n['is_drum']) for n in notes}
  assert all(isinstance(n['instrument'], str) for n in data['notes'])
  assert out.with_suffix('.png').read_bytes().startswith(b'\x89PNG')
  captured = capsys.readouterr()
  assert captured.out == ''
  assert f'{out}: {len(data["notes"])} note' in captured.err


def test_quiet_and_json_on_stdout(model, songs, tmp_path, capsys):
  assert run(songs / 'a.wav', '-o', tmp_path, '--checkpoint', model, '--json', '-', '--quiet') == 0
  captured = capsys.readouterr()
  assert json.loads(captured.out)['notes']
  assert captured.err == ''
  assert [p.name for p in tmp_path.iterdir()] == ['a.mid']


def test_one_bad_file_among_several(model, songs, tmp_path, capsys):
  files = [songs / name for name in ('a.wav', 'text.wav', 'none.wav', 'b.flac')]
  assert run(*files, '-o', tmp_path / 'out', '--checkpoint', model, '--quiet') == 2
  assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['a.mid', 'b.mid']
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 2
  assert 'text.wav' in lines[0]
  assert 'none.wav' in lines[1]
  assert all(line.startswith('mrmt3: error: ') for line in lines)


def test_a_single_bad_file_is_an_error(model, songs, tmp_path):
  with pytest.raises(UserError, match=r'text\.wav'):
    run(songs / 'text.wav', '-o', tmp_path, '--checkpoint', model)
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file'):
    run(songs / 'a.wav', '-o', tmp_path / 'file' / 'a.mid', '--checkpoint', model, '--quiet')
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def plan(*names, out='out', json_file=None, plot_file=None):
  return jobs.plan_jobs(list(names), out, {'json': json_file, 'plot': plot_file})


def test_names(tmp_path):
  assert [str(j.midi) for j in plan('x/a.wav', 'y/b.c.mp3')] == ['out/a.mid', 'out/b.c.mid']
  assert [str(j.midi) for j in plan('x/T1/mix.flac', 'x/T2/mix.flac', 'z.wav')] == [
    'out/T1.mid',
    'out/T2.mid',
    'out/z.mid',
  ]
  assert str(plan('a.wav', out='b.MID')[0].midi) == 'b.MID'
  (tmp_path / 'folder.mid').mkdir()
  assert plan('a.wav', out=str(tmp_path / 'folder.mid'))[0].midi == tmp_path / 'folder.mid' / 'a.mid'
  job = plan('v1.2.wav', json_file='', plot_file='p.pdf')[0]
  assert {kind: str(file) for kind, file in job.outputs.items()} == {'json': 'out/v1.2.json', 'plot': 'p.pdf'}


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'names': ['a.wav', 'b.wav'], 'out': 'x.mid'}, 'give a folder'),
    ({'names': ['x/a.wav', 'x/a.flac']}, r'would both be written to x\.mid'),
    ({'names': ['a.wav', 'b.wav'], 'json_file': 'x.json'}, 'leave the name out'),
    ({'names': ['a.wav'], 'json_file': 'b.wav'}, r'must end in \.json'),
    ({'names': ['a.wav'], 'plot_file': '-'}, r'must end in \.png'),
  ],
)
def test_arguments_that_exclude_each_other(arguments, message):
  names = arguments.pop('names')
  with pytest.raises(UserError, match=message):
    plan(*names, **arguments)


def test_checkpoint_is_required(songs, tmp_path, monkeypatch):
  monkeypatch.setattr(orbax_checkpoints, 'BUNDLED_FOLDER', tmp_path / 'not installed')
  with pytest.raises(UserError, match='no checkpoint given'):
    run(songs / 'a.wav', '-o', tmp_path)
  with pytest.raises(UserError, match='not a checkpoint'):
    run(songs / 'a.wav', '-o', tmp_path, '--checkpoint', tmp_path)


def test_command_line_imports_nothing_heavy(model, songs, tmp_path):
  code = (
    'import sys; from mrmt3.cli import transcribe; heavy = ("jax", "numpy", "tensorflow", "seqio"); '
    'assert not [m for m in heavy if m in sys.modules]; import argparse; p = argparse.ArgumentParser(); '
    'transcribe.add_parser(p.add_subparsers()); a = p.parse_args(sys.argv[1:]); assert a.run(a) == 0; '
    'bad = [m for m in ("tensorflow", "seqio", "note_seq") if m in sys.modules]; assert not bad, bad'
  )
  arguments = ['transcribe', songs / 'a.wav', '-o', tmp_path / 'a.mid', '--checkpoint', model]
  result = subprocess.run(
    [sys.executable, '-c', code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
  assert len(result.stderr.splitlines()) == 1, result.stderr  # the summary


def test_broken_checkpoint_is_one_line(model, songs, tmp_path):
  import shutil

  folder = Path(shutil.copytree(model, tmp_path / 'model')) / 'checkpoint_3'
  for data in folder.glob('state/**/d/*'):
    data.write_bytes(b'')
  code = (
    'import sys; from mrmt3.cli import transcribe; from mrmt3.errors import UserError; import argparse\n'
    'p = argparse.ArgumentParser(); transcribe.add_parser(p.add_subparsers()); a = p.parse_args(sys.argv[1:])\n'
    'try: a.run(a)\n'
    'except UserError as e: print(e, file=sys.stderr); sys.exit(2)'
  )
  begin = time.monotonic()
  arguments = ['transcribe', songs / 'a.wav', '-o', tmp_path / 'a.mid', '--checkpoint', folder]
  result = subprocess.run(
    [sys.executable, '-c', code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert result.returncode == 2
  assert len(result.stderr.splitlines()) == 1, result.stderr
  assert 'checkpoint_3: state/ holds no parameters' in result.stderr
  assert time.monotonic() - begin < 60
