"""`mrmt3 transcribe` without -o, and names of outputs that are refused before anything is decoded."""

import os
import shutil

import numpy as np
import pytest

from mrmt3.audio import files as audio_files
from mrmt3.cli.main import main
from mrmt3.inference import transcriber
from mrmt3.inference.jobs import plan_jobs


@pytest.fixture
def album(tmp_path):
  rng = np.random.default_rng(0)
  for name in ('a.wav', 'live/b.wav', 'live/b.flac'):
    path = tmp_path / 'album' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    audio_files.write_audio(path, rng.normal(0, 0.1, 9000).astype(np.float32))
  return tmp_path / 'album'


@pytest.fixture
def run(small_model):
  return lambda *arguments: main(['transcribe', *map(str, arguments), '--checkpoint', str(small_model), '--quiet'])


@pytest.fixture
def no_decoding(monkeypatch):
  def fail(*args, **kwargs):
    raise AssertionError('decoded')

  monkeypatch.setattr(transcriber.Transcriber, 'run', fail)


def tree(folder):
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def error_of(capsys):
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1 and lines[0].startswith('mrmt3: error: ')
  return lines[0]


def test_the_midi_file_is_next_to_the_audio(run, album):
  assert run(album / 'a.wav', '--json', '--csv') == 0
  assert tree(album) == ['a.csv', 'a.json', 'a.mid', 'a.wav', 'live/b.flac', 'live/b.wav']


def test_a_folder_is_transcribed_in_place(run, album):
  assert run(album) == 0
  assert [name for name in tree(album) if name.endswith('.mid')] == ['a.mid', 'live/b.flac.mid', 'live/b.wav.mid']


@pytest.mark.parametrize('kind', ['file', 'link', 'other output'])
def test_labels_are_never_replaced(run, album, capsys, no_decoding, kind):
  labels = album / ('a.json' if kind == 'other output' else 'a.mid')
  labels.symlink_to('nowhere') if kind == 'link' else labels.write_bytes(b'labels')
  for options in (['--json'], ['--json', '--resume']):
    assert run(album / 'a.wav', *options) == 2
    line = error_of(capsys)
    assert str(labels) in line and '-o' in line and '--force' in line
  assert labels.is_symlink() if kind == 'link' else labels.read_bytes() == b'labels'
  assert len(tree(album)) == 3 + (kind != 'link')


def test_one_of_many_outputs_in_the_way_ends_it_before_any(run, album, capsys, no_decoding):
  (album / 'live' / 'b.wav.mid').write_bytes(b'labels')
  assert run(album) == 2
  assert '1 of 3 outputs' in error_of(capsys)


def test_force_replaces(run, album):
  (album / 'a.mid').write_bytes(b'old')
  assert run(album / 'a.wav', '--force') == 0
  assert (album / 'a.mid').read_bytes()[:4] == b'MThd'


def test_resume_knows_its_own_outputs(run, album, capsys, monkeypatch):
  assert run(album, '--resume') == 0
  written = {path: path.read_bytes() for path in album.rglob('*.mid')}
  with monkeypatch.context() as patch:
    patch.setattr(transcriber.Transcriber, 'decode_rows', lambda *args: pytest.fail('decoded'))
    assert run(album, '--resume') == 0  # all are there
  (album / 'a.mid').unlink()
  os.utime(album / 'live' / 'b.wav', (2**31, 2**31))  # newer than its output, which is ours: made again
  assert run(album, '--resume') == 0
  assert {path: path.read_bytes() for path in album.rglob('*.mid')} == written
  (album / 'a.mid').write_bytes(b'edited')
  assert run(album, '--resume') == 2
  assert '1 of 3 outputs exist already' in error_of(capsys)
  assert (album / 'a.mid').read_bytes() == b'edited'
  assert run(album) == 2


def test_inputs_of_one_name_need_no_output_folder(album, tmp_path):
  shutil.copytree(album, tmp_path / 'other')
  jobs = plan_jobs([str(album / 'a.wav'), str(tmp_path / 'other' / 'a.wav')], None, {})
  assert [job.midi for job in jobs] == [album / 'a.mid', tmp_path / 'other' / 'a.mid']


@pytest.mark.parametrize(
  ('output', 'named'),
  [
    ('song.txt', '.mid'),
    ('song.wav', '.mid'),
    ('song.MP3', '.mid'),
    ('out/song.pdf', '--pdf out/song.pdf'),
    ('song.json', '--json song.json'),
  ],
)
def test_unknown_kinds_of_files_are_refused(run, album, capsys, no_decoding, monkeypatch, tmp_path, output, named):
  monkeypatch.chdir(tmp_path)
  assert run(album / 'a.wav', '-o', output) == 2
  assert named in error_of(capsys)
  assert tree(tmp_path) == [f'album/{name}' for name in tree(album)]


@pytest.mark.parametrize('output', ['v1.2', 'song.txt/', 'there.txt'])
def test_folders_may_have_dots(run, album, monkeypatch, tmp_path, output):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'there.txt').mkdir()
  assert run(album / 'a.wav', '-o', output) == 0
  assert (tmp_path / output / 'a.mid').is_file()


def test_outputs_that_cannot_be_written_are_refused_first(run, album, capsys, no_decoding, tmp_path):
  (tmp_path / 'file').write_bytes(b'')
  (tmp_path / 'a.json').mkdir()
  for options, named in (
    (['-o', tmp_path / 'file' / 'deep' / 'a.mid'], 'is a file'),
    (['-o', tmp_path / 'out', '--csv', tmp_path / 'file' / 'a.csv'], 'is a file'),
    (['-o', tmp_path / 'out', '--json', tmp_path / 'a.json'], 'is a folder'),
  ):
    assert run(album / 'a.wav', *options) == 2
    assert named in error_of(capsys)
  assert not (tmp_path / 'out').exists()
