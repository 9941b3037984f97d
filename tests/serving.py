"""A server in a thread with a model that needs no network, for tests of the API and of the page."""

import contextlib
import io
import json
import threading
import time
import types
from collections.abc import Iterator

import httpx
import numpy as np
import soundfile

from mrmt3.errors import UserError
from mrmt3.inference.batched_pieces import Update
from mrmt3.note_sequences import DecodingStats
from mrmt3.notes.note_array import as_notes
from mrmt3.web import server as web_server
from mrmt3.web.app import Server
from mrmt3.web.settings import Settings
from mrmt3.web.store import Store

RATE = 16000
PROGRAMS = (0, 33, 48)


def notes_of_second(second: int) -> np.ndarray:
  """The notes that `FakeTranscriber` finds in a second of any audio: one for each instrument, and a drum."""
  rows = [(second + 0.1 * n, second + 0.1 * n + 0.5, 50 + second % 12 + n, 100, p, 0) for n, p in enumerate(PROGRAMS)]
  return as_notes([*rows, (second + 0.25, second + 0.26, 38, 90, 0, 1)])


class FakeTranscriber:
  """Finds the same notes in any audio, a second at a time; without memory, on other instruments.

  Attributes:
    gate: if cleared, decoding waits.
    steps: (key of a job, second) in the order of decoding.
    fault: an exception to raise in the second of this number, as (second, exception).
  """

  sample_rate = RATE

  def __init__(self, delay: float = 0.0):
    network = types.SimpleNamespace(uses_prior=True, has_decoder=False)
    self.spec = types.SimpleNamespace(network=network)
    self.delay, self.gate, self.steps, self.fault = delay, threading.Event(), [], None
    self.gate.set()

  def run(self, pieces, *, hop=None, instruments=None, has_memory=True):
    for piece in pieces:
      try:
        count = sum(len(block) for block in piece.blocks)
      except UserError as error:
        yield Update(piece, error=error)
        continue
      seconds = max(1, -(-count // RATE))
      for second in range(seconds):
        self.gate.wait(30)
        time.sleep(self.delay)
        if self.fault is not None and self.fault[0] == second:
          raise self.fault[1]
        self.steps.append((piece.key.name, second))
        notes = notes_of_second(second)
        if not has_memory and second % 2:
          notes['program'][1] = 40
        stats = DecodingStats(0, 0, 0, 0) if second == seconds - 1 else None
        end = count / RATE if second == seconds - 1 else second + 1.0
        yield Update(piece, notes=notes, seconds=end, stats=stats)


def wav(seconds: float = 3.0, rate: int = RATE) -> bytes:
  """A tone as the bytes of a wav file."""
  data = io.BytesIO()
  time_axis = np.arange(round(seconds * rate)) / rate
  soundfile.write(data, 0.3 * np.sin(2 * np.pi * 440 * time_axis), rate, format='WAV')
  return data.getvalue()


@contextlib.contextmanager
def serving(transcriber=None, data=None, **settings) -> Iterator[tuple[httpx.Client, Server]]:
  """Run a server on a free port; yields a client and the server."""
  transcriber = transcriber or FakeTranscriber()
  settings = Settings(**{'port': 0, **settings})
  settings.check()
  whole = Server(transcriber, Store(data), settings, 'a model for tests')
  listening = web_server.listen(settings)
  runner = web_server.make(whole.app())
  thread = threading.Thread(target=runner.run, kwargs={'sockets': [listening]})
  thread.start()
  try:
    while not runner.started:
      assert thread.is_alive()
      time.sleep(0.01)
    port = listening.getsockname()[1]
    with httpx.Client(base_url=f'http://127.0.0.1:{port}', timeout=30) as client:
      yield client, whole
  finally:
    transcriber.gate.set()
    runner.should_exit = True
    thread.join(20)
    listening.close()
  assert not thread.is_alive()


def submit(client: httpx.Client, data: bytes | None = None, name: str = 'song.wav', **query) -> dict:
  """Upload audio; returns the job."""
  answer = client.post('/api/jobs', params={'name': name, **query}, content=wav() if data is None else data)
  assert answer.status_code == 201, answer.text
  return answer.json()


def finished(client: httpx.Client, job: dict, seconds: float = 30) -> dict:
  """Wait until a job is finished; returns it."""
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    job = client.get(f'/api/jobs/{job["id"]}').json()
    if job['state'] in ('done', 'failed', 'cancelled'):
      return job
    time.sleep(0.02)
  raise AssertionError(f'not finished: {job}')


def events(client: httpx.Client, job: dict, **headers) -> list[tuple[str, dict]]:
  """Return all events of a job until it ends."""
  found = []
  with client.stream('GET', f'/api/jobs/{job["id"]}/events', headers=headers) as answer:
    assert answer.headers['content-type'].startswith('text/event-stream')
    name = None
    for line in answer.iter_lines():
      if line.startswith('event: '):
        name = line[7:]
      elif line.startswith('data: '):
        found.append((name, json.loads(line[6:])))
  return found
