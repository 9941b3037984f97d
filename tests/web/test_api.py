"""The HTTP API: jobs, events and results."""

import csv
import io
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import soundfile
from serving import FakeTranscriber, events, finished, notes_of_second, serving, submit, wav

from mrmt3.notes.midi import midi_bytes, read_midi
from mrmt3.notes.note_array import sort_notes
from mrmt3.web import rendering, wire


@pytest.fixture(scope='module')
def api():
  with serving() as (client, _):
    yield client


@pytest.fixture(scope='module')
def job(api):
  return finished(api, submit(api, wav(8.0)))


@pytest.fixture(scope='module')
def notes():
  return sort_notes(np.concatenate([notes_of_second(second) for second in range(8)]))


def test_job_is_done(job):
  assert job['state'] == 'done' and job['error'] is None and job['seconds'] == job['done_seconds'] == 8.0
  assert job['notes'] == 32
  assert [(one['program'], one['is_drum'], one['name'], one['notes']) for one in job['instruments']] == [
    (0, False, 'Acoustic Piano', 8),
    (33, False, 'Electric Bass', 8),
    (48, False, 'String Ensemble', 8),
    (0, True, 'Drums', 8),
  ]


def test_notes_and_events(api, job, notes):
  got = api.get(f'/api/jobs/{job["id"]}/notes').json()['notes']
  assert [note['onset'] for note in got] == notes['onset'].tolist()
  assert got[0] == {
    'onset': 0.0,
    'offset': 0.5,
    'pitch': 50,
    'velocity': 100,
    'program': 0,
    'is_drum': False,
    'instrument': 'Acoustic Piano',
  }
  kinds = [kind for kind, _ in events(api, job)]
  assert kinds == ['notes', 'end']


def test_events_come_while_decoding(api):
  transcriber = FakeTranscriber()
  transcriber.gate.clear()
  with serving(transcriber) as (client, _):
    begun = submit(client, wav(3.0))
    transcriber.gate.set()
    transcriber.delay = 0.1
    found = events(client, begun)
  assert [kind for kind, _ in found].count('notes') >= 2 and found[-1][0] == 'end'
  assert sum(len(data['notes']) for kind, data in found if kind == 'notes') == 12
  assert {'running'} <= {data['state'] for kind, data in found if kind == 'state'}
  assert [note['onset'] for kind, data in found if kind == 'notes' for note in data['notes']] == [
    onset for second in range(3) for onset in notes_of_second(second)['onset']
  ]


def test_events_go_on_where_a_client_was(api, job):
  (kind, data), end = events(api, job, **{'Last-Event-ID': '30'})
  assert kind == 'notes' and len(data['notes']) == 2 and end[0] == 'end'


def test_midi_is_that_of_the_writer(api, job, notes):
  answer = api.get(f'/api/jobs/{job["id"]}/midi')
  assert answer.headers['content-type'] == 'audio/midi'
  assert answer.headers['content-disposition'] == "attachment; filename*=UTF-8''song.mid"
  assert answer.content == midi_bytes(notes)


def test_rendered_notes_equal_the_results(api, job):
  sent = api.get(f'/api/jobs/{job["id"]}/notes').json()['notes']
  for kind in ('midi', 'musicxml', 'csv', 'json'):
    body = {'notes': sent, 'title': 'song.wav', 'seconds': job['seconds']}
    if kind != 'json':
      body['title'] = 'song'
    answer = api.post(f'/api/render/{kind}', json=body)
    assert answer.status_code == 200, answer.text
    direct = api.get(f'/api/jobs/{job["id"]}/{kind}').content
    if kind == 'json':
      assert json.loads(answer.content)['notes'] == json.loads(direct)['notes']
    else:
      assert answer.content == direct


def test_musicxml_csv_and_json(api, job, notes):
  sheet = api.get(f'/api/jobs/{job["id"]}/musicxml', params={'tempo': '120'}).content
  assert ET.fromstring(sheet).tag == 'score-partwise'
  table = list(csv.DictReader(io.StringIO(api.get(f'/api/jobs/{job["id"]}/csv').text)))
  assert len(table) == len(notes) and table[0]['instrument'] == 'Acoustic Piano'
  assert len(json.loads(api.get(f'/api/jobs/{job["id"]}/json').content)['notes']) == len(notes)


def test_bars_in_midi(api, job, tmp_path):
  answer = api.get(f'/api/jobs/{job["id"]}/midi', params={'tempo': '100', 'quantize': '1/16'})
  (tmp_path / 'bars.mid').write_bytes(answer.content)
  assert len(read_midi(tmp_path / 'bars.mid')) == 32
  assert b'\xff\x51\x03\x09\x27\xc0' in answer.content  # 600,000 us a beat


def test_svg(api, job):
  pytest.importorskip('verovio')
  answer = api.get(f'/api/jobs/{job["id"]}/svg', params={'tempo': '120'})
  assert answer.status_code == 200 and answer.content.startswith(b'<svg')


def test_sound_of_one_instrument(api, job):
  pytest.importorskip('symusic')
  sounds = {}
  for name, query in (('all', {}), ('bass', {'program': 33}), ('drums', {'drums': 'true'})):
    answer = api.get(f'/api/jobs/{job["id"]}/sound', params=query)
    assert answer.headers['content-type'] == 'audio/flac'
    sounds[name], rate = soundfile.read(io.BytesIO(answer.content))
    assert rate == 44100 and len(sounds[name]) == 8 * 44100
  for sound in sounds.values():
    assert 0.02 < np.abs(sound).max() < 1
  assert np.abs(sounds['all']).mean() > np.abs(sounds['bass']).mean()


def test_audio_as_it_was_sent_and_as_flac(api, job):
  assert api.get(f'/api/jobs/{job["id"]}/audio').content == wav(8.0)
  part = api.get(f'/api/jobs/{job["id"]}/audio', headers={'range': 'bytes=0-3'})
  assert part.status_code == 206 and part.content == b'RIFF'
  sound, rate = soundfile.read(io.BytesIO(api.get(f'/api/jobs/{job["id"]}/audio?format=flac').content))
  assert rate == 44100 and len(sound) == 8 * 44100


def test_form_upload(api):
  answer = api.post('/api/jobs', files={'file': ('späte Lieder.wav', wav(1.0), 'text/html')})
  assert answer.status_code == 201 and answer.json()['name'] == 'späte Lieder.wav'
  assert finished(api, answer.json())['state'] == 'done'


def test_again_with_other_options(api, job):
  answer = api.post(f'/api/jobs/{job["id"]}/again', params={'memory': 'none', 'instruments': 'piano,bass'})
  other = answer.json()
  assert answer.status_code == 201 and answer.headers['location'] == f'/api/jobs/{other["id"]}'
  assert other['options'] == {'instruments': 'piano,bass', 'memory': 'none', 'of': job['id']}
  other = finished(api, other)
  assert [one['program'] for one in other['instruments']] == [0, 33, 40, 48, 0]


def test_list_is_newest_first(api, job):
  first, second = submit(api, name='a.wav'), submit(api, name='b.wav')
  listed = [one['id'] for one in api.get('/api/jobs').json()['jobs']]
  assert listed[:2] == [second['id'], first['id']] and job['id'] in listed


def test_remove(api):
  job = finished(api, submit(api))
  assert api.delete(f'/api/jobs/{job["id"]}').status_code == 204
  assert api.get(f'/api/jobs/{job["id"]}').status_code == 404


def test_results_wait_for_the_end():
  transcriber = FakeTranscriber()
  transcriber.gate.clear()
  with serving(transcriber) as (client, server):
    job = submit(client)
    answer = client.get(f'/api/jobs/{job["id"]}/midi')
    assert answer.status_code == 409 and 'done' in answer.json()['error']
    assert client.delete(f'/api/jobs/{job["id"]}').status_code == 204
    transcriber.gate.set()
    assert finished(client, job)['state'] == 'cancelled'
    assert client.post(f'/api/jobs/{job["id"]}/again').status_code == 409
    assert list(server.store.root.glob('jobs/*')) == []


def test_health_model_metrics_and_description(api, job):
  assert api.get('/health').json()['status'] == 'ok'
  model = api.get('/api/model').json()
  assert model['model'] == 'a model for tests' and model['uses_memory'] and model['max_bytes'] == 200 * 2**20
  lines = api.get('/metrics').text.splitlines()
  values = dict(line.rsplit(' ', 1) for line in lines if not line.startswith('#'))
  assert float(values['mrmt3_jobs_total{state="done"}']) >= 1
  assert float(values['mrmt3_audio_seconds_total']) >= 8 and float(values['mrmt3_resident_bytes']) > 1e6
  document = api.get('/api/openapi.json').json()
  assert document['openapi'].startswith('3.1') and '/api/jobs/{id}/{kind}' in document['paths']


def test_every_route_is_described(api):
  from mrmt3.web import openapi

  with serving() as (_, server):
    routes = {route.path for route in server.app()._app.routes if route.path not in ('/', '/static')}
  assert routes == set(openapi.document()['paths'])


def test_page_is_served(api):
  page = api.get('/')
  assert page.headers['content-type'].startswith('text/html') and 'mrmt3_browser' in page.headers['set-cookie']
  for name in ('main.js', 'style.css', 'recorder_worklet.js'):
    assert api.get(f'/static/{name}').status_code == 200
  for name in ('main.js', 'view.js', 'recorder_worklet.js'):
    assert 'javascript' in api.get(f'/static/{name}').headers['content-type']
  assert 'http' not in page.text.replace('http-equiv', '')  # no other server


def test_render_kinds_are_those_of_the_document(api):
  from mrmt3.web import openapi

  path = openapi.document()['paths']['/api/render/{kind}']['parameters'][0]
  assert path['schema']['enum'] == list(rendering.KINDS)


def test_confidence_is_passed_on(api):
  notes = notes_of_second(0)
  notes['confidence'] = [0.5, 0.0, np.nan, 1.0]
  records = wire.note_records(notes)
  assert [record.get('confidence', 'none') for record in records] == [0.5, 'none', 'none', 1.0]
  json.dumps(records, allow_nan=False)
  assert wire.notes_from_records(records)['confidence'].tolist() == [0.5, 0.0, 0.0, 1.0]
  table = api.post('/api/render/csv', json={'notes': records}).text
  assert [row['confidence'] for row in csv.DictReader(io.StringIO(table))] == ['0.5', '', '', '1.0']
