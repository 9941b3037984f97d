"""`mrmt3 serve` and `mrmt3 transcribe --html` with a small model, as commands."""

import json
import os
import signal
import subprocess
import sys
import time

import command_line
import httpx
import network_fixture as fixture
import numpy as np
import pytest
from paths import ROOT
from serving import finished

from mrmt3.audio import files as audio_files
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.cli import serve, transcribe
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.spectrograms import SpectrogramConfig


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp('model')
  spec = ModelSpec(fixture.CONFIG, SpectrogramConfig(num_mel_bins=64), segment_frames=40, targets_length=48)
  orbax_checkpoints.save_checkpoint(folder, 3, {'target': fixture.params()}, spec)
  return folder


@pytest.fixture(scope='module')
def song(tmp_path_factory):
  path = tmp_path_factory.mktemp('songs') / 'song.wav'
  audio_files.write_audio(path, np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32))
  return path


class Running:
  """A `mrmt3 serve` process; `base` is its address."""

  def __init__(self, tmp_path, *arguments):
    environment = {**os.environ, 'TMPDIR': str(tmp_path), 'PYTHONPATH': str(ROOT)}
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'mrmt3', 'serve', '--no-browser', '--port', '0', *map(str, arguments)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=environment,
    )
    line = self.process.stdout.readline()
    assert line.startswith('mrmt3 serves http://'), self.process.communicate()
    self.base = line.split()[2].partition('?')[0].rstrip('/')

  def end(self, how):
    """Send a signal; returns (exit code, stderr)."""
    self.process.send_signal(how)
    _, stderr = self.process.communicate(timeout=60)
    return self.process.returncode, stderr


def test_as_transcribe_and_over_a_kill(model, song, tmp_path):
  assert command_line.run(transcribe, 'transcribe', song, '-o', tmp_path / 'song.mid', '--checkpoint', model) == 0
  tmp_path = tmp_path / 'tmp'
  tmp_path.mkdir()
  kept = tmp_path / 'kept'
  running = Running(tmp_path, '--checkpoint', model, '--data', kept)
  with httpx.Client(base_url=running.base, timeout=60) as client:
    job = finished(client, client.post('/api/jobs?name=song.wav', content=song.read_bytes()).json(), 120)
    assert job['state'] == 'done' and job['notes'] > 0
    midi = client.get(f'/api/jobs/{job["id"]}/midi').content
    without = client.post(f'/api/jobs/{job["id"]}/again?memory=none').json()
    assert finished(client, without, 120)['state'] == 'done'
  assert midi == (tmp_path.parent / 'song.mid').read_bytes()
  assert running.end(signal.SIGKILL)[0] == -signal.SIGKILL
  running = Running(tmp_path, '--checkpoint', model, '--data', kept)
  with httpx.Client(base_url=running.base, timeout=60) as client:
    assert client.get(f'/api/jobs/{job["id"]}').json() == job
    assert client.get(f'/api/jobs/{job["id"]}/midi').content == midi
  code, stderr = running.end(signal.SIGINT)
  assert code == 0 and stderr.splitlines()[-1] == 'mrmt3: stopped' and 'Traceback' not in stderr


def test_temporary_files_go(model, song, tmp_path):
  running = Running(tmp_path, '--checkpoint', model)
  httpx.post(f'{running.base}/api/jobs', content=song.read_bytes())
  assert list(tmp_path.rglob('mrmt3-serve-*/jobs/*/audio'))
  running.end(signal.SIGKILL)
  assert list(tmp_path.rglob('mrmt3-serve-*/jobs/*'))
  running = Running(tmp_path, '--checkpoint', model)
  (folder,) = tmp_path.rglob('mrmt3-serve-*')
  assert not list(folder.glob('jobs/*'))
  for number in range(3):  # at work while it is stopped
    httpx.post(f'{running.base}/api/jobs?name=song{number}.wav', content=song.read_bytes())
  begin = time.monotonic()
  code, stderr = running.end(signal.SIGTERM)
  assert code in (0, 130) and 'Traceback' not in stderr and time.monotonic() - begin < 30
  assert not list(tmp_path.rglob('mrmt3-serve-*'))


def test_stops_although_a_client_listens(model, song, tmp_path):
  running = Running(tmp_path, '--checkpoint', model, '--max-jobs', '1')
  with httpx.Client(base_url=running.base, timeout=60) as client:
    jobs = [client.post('/api/jobs', content=song.read_bytes()).json() for _ in range(4)]
    with client.stream('GET', f'/api/jobs/{jobs[-1]["id"]}/events') as answer:
      next(answer.iter_lines())
      begin = time.monotonic()
      code, stderr = running.end(signal.SIGINT)
  assert code in (0, 130) and 'Traceback' not in stderr and time.monotonic() - begin < 15, stderr


@pytest.mark.parametrize(
  ('options', 'text'),
  [
    (['--host', '0.0.0.0'], 'add --token'),
    (['--token', 'short'], '--token is too short'),
    (['--max-queue', '0'], '--max-queue is 0'),
    (['--port', '99999'], '--port is 99999'),
    (['--max-minutes', 'nan'], '--max-minutes is nan'),
    (['--host', 'no.such.host.invalid', '--token', 'long enough'], 'cannot listen on'),
  ],
)
def test_bad_options_are_one_line(options, text):
  with pytest.raises(UserError, match=text):
    command_line.run(serve, 'serve', '--no-browser', *options)


def test_a_port_that_is_taken(model):
  import socket

  with socket.create_server(('127.0.0.1', 0)) as other, pytest.raises(UserError, match='choose another --port'):
    command_line.run(serve, 'serve', '--no-browser', '--port', other.getsockname()[1])


def test_html_of_transcribe(model, song, tmp_path):
  pytest.importorskip('symusic')
  out = tmp_path / 'song.mid'
  assert command_line.run(transcribe, 'transcribe', song, '-o', out, '--checkpoint', model, '--html') == 0
  text = (tmp_path / 'song.html').read_text()
  _, _, rest = text.partition('id="song-data">')
  data = json.loads(rest.partition('</script>')[0])
  assert data['name'] == 'song.wav' and data['seconds'] == 1.25 and len(data['notes']) > 0
  assert 'id="sound-original"' in text and 'id="midi"' in text
  assert 'src="' not in text and 'https:' not in text  # nothing is loaded
