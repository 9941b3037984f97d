"""What the server refuses, and how it fails."""

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from paths import ROOT
from serving import FakeTranscriber, events, finished, serving, submit, wav

from mrmt3.errors import UserError
from mrmt3.web import jobs
from mrmt3.web.fair_queue import FairQueue
from mrmt3.web.settings import Settings
from mrmt3.web.store import Store


@pytest.fixture(scope='module')
def api():
  with serving(max_megabytes=1, max_minutes=0.5) as (client, _):
    yield client


def error(answer, status):
  """Check that an answer is an error of one clear line, and return it."""
  assert answer.status_code == status, answer.text
  text = answer.json()['error']
  assert text and '\n' not in text and 'Traceback' not in text and '/tmp' not in text
  return text


@pytest.mark.parametrize('data', [b'', b'no audio', b'RIFF' + b'\0' * 100, b'<html><script>', b'\0' * 5000])
def test_content_counts_and_not_the_name(api, data):
  text = error(api.post('/api/jobs?name=song.wav', content=data), 422)
  assert 'song.wav' in text or 'empty' in text


def test_truncated_audio_is_used_with_a_warning(api):
  job = finished(api, submit(api, wav(3.0)[:40000]))
  assert job['state'] == 'done' and 'truncated' in job['warnings'][0] and 'song.wav' in job['warnings'][0]


def test_other_warnings_are_of_the_right_job(api):
  data = io.BytesIO()
  soundfile.write(data, np.zeros(32000), 16000, format='WAV')
  quiet, other = submit(api, data.getvalue(), 'quiet.wav'), submit(api, wav(2.0), 'other.wav')
  assert any('quiet.wav' in text for text in finished(api, quiet)['warnings'])
  assert finished(api, other)['warnings'] == []


def test_too_large(api):
  assert '1 MiB' in error(api.post('/api/jobs', content=b'\0' * (3 * 2**20)), 413)

  def chunks():  # no Content-Length
    for _ in range(40):
      yield b'\0' * 65536

  assert '1 MiB' in error(api.post('/api/jobs', content=chunks()), 413)
  assert '1 MiB' in error(api.post('/api/jobs', files={'file': ('a.wav', b'\0' * (2**20 + 5000))}), 413)


def test_too_long(api):
  assert '0.5 minutes' in error(api.post('/api/jobs', content=wav(31.0, 8000)), 422)


def test_too_long_in_spite_of_its_header(api, monkeypatch):
  data = bytearray(wav(31.0, 8000))
  data[40:44] = (16000).to_bytes(4, 'little')  # the header tells 1 s
  assert '0.5 minutes' in error(api.post('/api/jobs', content=bytes(data)), 422)
  monkeypatch.setattr('mrmt3.audio.files.promised_seconds', lambda path: None)
  job = finished(api, submit(api, wav(31.0, 8000)))
  assert job['state'] == 'failed' and '0.5 minutes' in job['error']


@pytest.mark.parametrize(
  ('query', 'named'),
  [
    ('memory=some', 'memory must be predicted or none'),
    ('instruments=kazoo', "'kazoo' is unknown"),
    ('instruments=', 'no name is given'),
    ('unknown=1', "unknown parameter 'unknown'"),
    ('instruments=' + 'a' * 3000, 'a parameter is too long'),
  ],
)
def test_bad_options(api, query, named):
  assert named in error(api.post(f'/api/jobs?{query}', content=wav(1.0)), 422)


@pytest.mark.parametrize(
  'name',
  ['../../etc/passwd', '..\\..\\boot.ini', '/etc/passwd', 'a/b/c.wav', '\x1b[31m.wav', '\u202ecod.wav', 'x' * 5000],
)
def test_names_are_never_paths(api, name):
  if len(name) > 2000:
    error(api.post('/api/jobs', params={'name': name}, content=wav(1.0)), 422)
    return
  job = submit(api, wav(1.0), name)
  assert '/' not in job['name'] and '\x1b' not in job['name'] and '\u202e' not in job['name']
  assert len(job['name']) <= jobs.MAX_NAME * 6


@pytest.mark.parametrize('path', ['..%2f..%2fetc', 'A' * 22, '%00', 'A' * 22 + '/midi', 'x/notes'])
def test_unknown_jobs(api, path):
  assert error(api.get(f'/api/jobs/{path}'), 404).startswith(('no such job', 'there is nothing at this address'))


def test_static_stays_inside(api):
  for path in ('..%2fapp.py', '%2e%2e/app.py', '....//app.py', '%2fetc%2fpasswd'):
    assert api.get(f'/static/{path}').status_code == 404


NOTE = {'onset': 0.0, 'offset': 1.0, 'pitch': 60, 'velocity': 100, 'program': 0, 'is_drum': False}


@pytest.mark.parametrize(
  'change',
  [
    {'onset': -1},
    {'onset': 'x'},
    {'onset': None},
    {'onset': 1e300},
    {'offset': 0.0},
    {'pitch': 128},
    {'pitch': 60.5},
    {'pitch': 10**400},
    {'program': -1},
    {'velocity': 0},
    {'is_drum': 1},
    {'onset': True},
  ],
)
def test_bad_notes(api, change):
  assert 'notes[0]' in error(api.post('/api/render/midi', json={'notes': [{**NOTE, **change}]}), 422)


@pytest.mark.parametrize(
  ('body', 'named'),
  [
    (b'', 'not JSON'),
    (b'[]', 'must be an object'),
    (b'{', 'not JSON'),
    (b'{"notes": 1}', 'a list of objects is needed'),
    (b'{"notes": [1]}', 'notes[0]'),
    (b'[' * 100000, 'not JSON'),
    (b'{"notes": [NaN]}', 'not JSON'),
    (b'\xff', 'not JSON'),
  ],
)
def test_bad_bodies(api, body, named):
  assert named in error(api.post('/api/render/midi', content=body), 422)


def test_bad_render_options(api):
  for more in ({'title': 1}, {'seconds': -1}, {'seconds': 'x'}, {'tempo': 3}, {'tempo': 'fast'}, {'quantize': 'x'}):
    assert next(iter(more)) in error(api.post('/api/render/midi', json={'notes': [NOTE], **more}), 422)
  assert 'limited to 30 s' in error(api.post('/api/render/sound', json={'notes': [NOTE], 'seconds': 1000}), 422)
  assert 'no such output' in error(api.post('/api/render/pdf', json={'notes': [NOTE]}), 404)
  assert 'no notes' in error(api.post('/api/render/musicxml', json={'notes': []}), 422)


def test_render_without_notes(api):
  assert api.post('/api/render/midi', json={'notes': []}).content.startswith(b'MThd')


@pytest.mark.parametrize(
  ('headers', 'status'),
  [
    ({'origin': 'http://evil.example'}, 403),
    ({'origin': 'null'}, 403),
    ({'origin': 'http://127.0.0.1:1'}, 403),
    ({'sec-fetch-site': 'cross-site'}, 403),
    ({'sec-fetch-site': 'same-site'}, 403),
    ({'host': 'evil.example'}, 421),
    ({'host': 'localhost.evil.example:80'}, 421),
    ({'host': ''}, 421),
  ],
)
def test_other_sites_are_refused(api, headers, status):
  named = {403: 'other sites', 421: 'does not answer to the name'}[status]
  assert named in error(api.post('/api/jobs', content=wav(1.0), headers=headers), status)
  if status == 421:
    assert named in error(api.get('/api/jobs', headers=headers), status)


def test_own_page_may_post(api):
  own = {'origin': str(api.base_url).rstrip('/'), 'sec-fetch-site': 'same-origin'}
  assert api.post('/api/jobs', content=wav(1.0), headers=own).status_code == 201


def test_headers(api):
  for path in ('/', '/api/jobs', '/static/main.js', '/nothing'):
    headers = api.get(path).headers
    assert "default-src 'none'" in headers['content-security-policy']
    assert headers['x-content-type-options'] == 'nosniff' and 'access-control-allow-origin' not in headers
    assert 'unsafe-' not in headers['content-security-policy'] and 'server' not in list(headers)
  assert 'access-control-allow-origin' not in api.options('/api/jobs', headers={'origin': 'http://a.b'}).headers


def test_token():
  with serving(token='correct horse') as (client, _):
    assert client.get('/health').status_code == 200
    for headers in ({}, {'authorization': 'Bearer wrong'}, {'authorization': 'correct horse'}, {'cookie': 'a=b; ;;='}):
      error(client.get('/api/jobs', headers=headers), 401)
      error(client.get('/', headers=headers), 401)
    assert client.get('/api/jobs', headers={'authorization': 'Bearer correct horse'}).status_code == 200
    error(client.get('/?token=wrong'), 401)
    answer = client.get('/?token=correct+horse')
    assert answer.status_code == 303 and answer.headers['location'] == '/'
    assert {'HttpOnly', 'SameSite=Strict'} <= set(answer.headers['set-cookie'].split('; '))


def test_other_addresses_need_a_token():
  with pytest.raises(UserError, match='--token'):
    Settings(host='0.0.0.0').check()
  Settings(host='0.0.0.0', token='long enough').check()
  with pytest.raises(UserError, match='too short'):
    Settings(token='abc').check()
  for host in ('127.0.0.1', '127.1.2.3', '::1', 'localhost'):
    assert Settings(host=host).is_local
  for host in ('0.0.0.0', '::', '192.168.0.1', 'example.org'):
    assert not Settings(host=host).is_local


def test_queue_is_limited():
  transcriber = FakeTranscriber()
  transcriber.gate.clear()
  with serving(transcriber, max_queue=2, max_jobs=1) as (client, _):
    running = submit(client)
    while client.get(f'/api/jobs/{running["id"]}').json()['state'] != 'running':
      time.sleep(0.01)
    waiting = [submit(client), submit(client)]
    assert [job['position'] for job in waiting] == [1, 2]
    answer = client.post('/api/jobs', content=wav())
    assert '2 jobs are waiting' in error(answer, 429) and answer.headers['retry-after']
    client.delete(f'/api/jobs/{waiting[0]["id"]}')
    assert client.get(f'/api/jobs/{waiting[1]["id"]}').json()['position'] == 1
    submit(client)
    transcriber.gate.set()
    assert finished(client, waiting[1])['state'] == 'done'


def test_clients_take_turns():
  queue = FairQueue()
  for item in range(3):
    queue.add('a', '1', f'a1{item}')
  queue.add('a', '2', 'a20')
  for item in range(2):
    queue.add('b', '1', f'b1{item}')
  order = queue.order()
  assert order == ['a10', 'b10', 'a20', 'b11', 'a11', 'a12'] and len(queue) == 6
  assert queue.remove('a11') and not queue.remove('a11')
  assert [queue.take() for _ in range(6)] == ['a10', 'b10', 'a20', 'b11', 'a12', None] and len(queue) == 0


def test_a_short_song_overtakes_a_long_one():
  transcriber = FakeTranscriber(delay=0.02)
  with serving(transcriber, max_jobs=2) as (client, _):
    long, short = submit(client, wav(20.0, 8000), 'long.wav'), submit(client, wav(2.0), 'short.wav')
    finished(client, short)
    assert client.get(f'/api/jobs/{long["id"]}').json()['state'] == 'running'
    finished(client, long)
  names = [name for name, _ in transcriber.steps]
  assert names.count('long.wav') == 20 and names.index('short.wav') < 10


def test_many_clients_at_once():
  transcriber = FakeTranscriber(delay=0.002)
  done = {}

  def transcribe(number):
    with httpx.Client(base_url=base, timeout=60, cookies={'mrmt3_browser': str(number)}) as own:
      (*_, (kind, last)) = events(own, submit(own, song, f'{number}.wav'))
      done[number] = kind, last['state'], last['notes'], own.get(f'/api/jobs/{last["id"]}/notes').json()['notes']

  song = wav(4.0, 8000)
  with serving(transcriber, max_jobs=2) as (client, server):
    base = client.base_url
    threads = [threading.Thread(target=transcribe, args=(number,)) for number in range(50)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert not list(server.store.uploads.iterdir())
  assert len(done) == 50 and all(result == done[0] for result in done.values())
  assert done[0][:3] == ('end', 'done', 16)
  assert len(transcriber.steps) == 200


def test_old_jobs_are_removed():
  with serving(keep=2) as (client, server):
    done = [finished(client, submit(client, wav(1.0))) for _ in range(4)]
    listed = {job['id'] for job in client.get('/api/jobs').json()['jobs']}
    assert listed == {job['id'] for job in done[2:]}
    assert len(list(server.store.root.glob('jobs/*'))) == 2


def test_a_fault_fails_one_job_only():
  transcriber = FakeTranscriber()
  with serving(transcriber) as (client, server):
    transcriber.fault = 1, RuntimeError('the device is gone\nwith details')
    job = submit(client)
    (_, last) = events(client, job)[-1]
    assert last['state'] == 'failed' and last['error'] == 'RuntimeError: the device is gone'
    transcriber.fault = 0, MemoryError()
    assert 'out of memory' in finished(client, submit(client))['error']
    transcriber.fault = None
    assert finished(client, submit(client))['state'] == 'done'
    assert client.get('/health').json()['status'] == 'ok'
    assert len(list(server.store.root.glob('jobs/*'))) == 1 and not list(server.store.uploads.iterdir())


def test_renderer_that_dies_or_hangs_is_replaced(api):
  with serving() as (client, server):
    job = finished(client, submit(client))
    assert client.get(f'/api/jobs/{job["id"]}/midi').status_code == 200
    server.renderer._child.kill()
    server.renderer._child.wait()
    assert client.get(f'/api/jobs/{job["id"]}/midi').status_code == 200
    server.renderer._timeout = 0.0
    assert 'in time' in error(client.get(f'/api/jobs/{job["id"]}/midi'), 422)
    server.renderer._timeout = 60.0
    assert client.get(f'/api/jobs/{job["id"]}/midi').status_code == 200


def test_a_full_disk_is_an_error_of_one_line(monkeypatch):
  with serving() as (client, server):
    monkeypatch.setattr(
      server.store, 'new_folder', lambda: (_ for _ in ()).throw(OSError(28, 'No space left on device'))
    )
    assert 'No space' in error(client.post('/api/jobs', content=wav()), 507)
    monkeypatch.undo()
    assert finished(client, submit(client))['state'] == 'done'
    assert not list(server.store.uploads.iterdir())


def test_an_aborted_upload_leaves_nothing():
  with serving() as (client, server):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
      connection.sendall(b'POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n' + b'\0' * 5000)
      end = time.monotonic() + 5
      while not list(server.store.uploads.iterdir()) and time.monotonic() < end:
        time.sleep(0.01)
      assert list(server.store.uploads.iterdir())
    end = time.monotonic() + 5
    while list(server.store.uploads.iterdir()) and time.monotonic() < end:
      time.sleep(0.01)
    assert not list(server.store.uploads.iterdir()) and client.get('/api/jobs').json()['jobs'] == []


def test_event_loop_answers_while_it_renders():
  pytest.importorskip('symusic')
  with serving() as (client, _):
    job = finished(client, submit(client, wav(200.0, 1000)))
    thread = threading.Thread(target=lambda: httpx.get(f'{client.base_url}/api/jobs/{job["id"]}/sound', timeout=60))
    thread.start()
    slow = 0
    while thread.is_alive():
      begin = time.perf_counter()
      client.get('/health')
      slow += time.perf_counter() - begin > 0.25
    thread.join()
  assert slow <= 2  # each of four instruments would hold Python's lock for longer


def test_finished_jobs_outlive_a_restart(tmp_path):
  with serving(data=tmp_path / 'kept') as (client, _):
    done = finished(client, submit(client, name='kept song.wav'))
    midi = client.get(f'/api/jobs/{done["id"]}/midi').content
    with pytest.raises(UserError, match='another server'):
      Store(tmp_path / 'kept')
  (tmp_path / 'kept' / 'jobs' / ('x' * 22)).mkdir()  # of a job that was not finished
  (tmp_path / 'kept' / 'uploads' / 'part').write_bytes(b'x')
  with serving(data=tmp_path / 'kept') as (client, server):
    (again,) = client.get('/api/jobs').json()['jobs']
    assert again == done and client.get(f'/api/jobs/{done["id"]}/midi').content == midi
    assert client.get(f'/api/jobs/{done["id"]}/audio').content == wav()
    assert [kind for kind, _ in events(client, done)] == ['notes', 'end']
    assert len(list((tmp_path / 'kept' / 'jobs').iterdir())) == 1 and not list(server.store.uploads.iterdir())


def test_damaged_records_are_dropped(tmp_path):
  with serving(data=tmp_path) as (client, _):
    jobs_ = [finished(client, submit(client)) for _ in range(3)]
  (tmp_path / 'jobs' / jobs_[0]['id'] / 'job.json').write_text('{"name": 1')
  (tmp_path / 'jobs' / jobs_[1]['id'] / 'audio').unlink()
  with serving(data=tmp_path) as (client, _):
    assert [job['id'] for job in client.get('/api/jobs').json()['jobs']] == [jobs_[2]['id']]


def test_temporary_folder_goes_at_the_end():
  with serving() as (client, server):
    finished(client, submit(client))
    root = server.store.root
    assert root.is_dir()
  assert not root.exists()


KILLED = """
import time
from serving import FakeTranscriber, serving, submit, wav
with serving(FakeTranscriber(delay=60)) as (client, server):
  submit(client)
  client.post('/api/render/midi', json={'notes': []})
  print(server.store.root, server.renderer._child.pid, flush=True)
  time.sleep(600)
"""


def test_a_killed_server_leaves_nothing_to_the_next_one(tmp_path, monkeypatch):
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  environment = {**os.environ, 'TMPDIR': str(tmp_path), 'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests"}'}
  with subprocess.Popen([sys.executable, '-c', KILLED], stdout=subprocess.PIPE, text=True, env=environment) as process:
    root, child = process.stdout.readline().split()
    os.kill(process.pid, signal.SIGKILL)
  assert os.path.isdir(root)
  store = Store()
  try:
    assert not os.path.exists(root) and store.root.is_dir()
  finally:
    store.close()
  end = time.monotonic() + 10
  while _is_running(child) and time.monotonic() < end:
    time.sleep(0.05)
  assert not _is_running(child)


def _is_running(process):
  try:
    return Path(f'/proc/{process}/stat').read_text().split()[2] != 'Z'
  except OSError:
    return False
