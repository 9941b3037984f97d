"""Loads `mrmt3 serve`: many clients with a song each at once.

  python benchmarks/serve_load.py --clients 50 --seconds 30 --rounds 3 [--audio song.flac]

Each round uploads a song from every client, follows its events to the end and reads the MIDI file. It prints

- how many jobs were lost, and how many notes differ from those of the first client,
- the time until all were done, and the multiple of real time,
- the longest time that /health took,
- the server's memory after each round,
- whether the order was fair: the greatest difference between a client's place in line and its place at the finish.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
import time

import httpx
import numpy as np
import soundfile

from mrmt3.audio import files as audio_files


def make_song(seconds: float, path: str | None) -> bytes:
  """Return a song as the bytes of a 44.1 kHz wav file: the start of an audio file, or chords of decaying tones."""
  rate = 44100
  if path is not None:
    samples = audio_files.read_audio(path, rate)[: round(seconds * rate)]
  else:
    rng, samples = np.random.default_rng(0), np.zeros(round(seconds * rate))
    for start in np.arange(0, seconds - 1, 0.25):
      at = np.arange(round(0.8 * rate)) / rate
      for pitch in rng.integers(40, 80, 3):
        tone = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * at) * np.exp(-4 * at) * 0.1
        begin = round(start * rate)
        samples[begin : begin + len(tone)] += tone
  data = io.BytesIO()
  soundfile.write(data, samples, rate, format='WAV')
  return data.getvalue()


@contextlib.contextmanager
def running_server(*options: str):
  """Start `mrmt3 serve` in a process of its own; yields its address."""
  command = [sys.executable, '-m', 'mrmt3', 'serve', '--no-browser', '--port', '0', *options]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      yield process.stdout.readline().split()[2].rstrip('/')
    finally:
      process.terminate()


def transcribe(base: str, song: bytes, number: int, results: dict, begin: float) -> None:
  """Upload a song as a client of its own, wait for its end, and keep (place in line, finish, notes)."""
  with httpx.Client(base_url=base, timeout=600, cookies={'mrmt3_browser': f'client{number}'}) as client:
    job = client.post(f'/api/jobs?name=song{number}.wav', content=song).raise_for_status().json()
    with client.stream('GET', f'/api/jobs/{job["id"]}/events') as answer:
      lines = [line for line in answer.iter_lines() if line.startswith('data: ')]
    last = json.loads(lines[-1][6:])
    if last.get('state') == 'done':
      midi = client.get(f'/api/jobs/{job["id"]}/midi').raise_for_status().content
      results[number] = last['created'], last['finished'], last['notes'], midi, time.perf_counter() - begin


def watch(base: str, stop: threading.Event, slowest: list[float]) -> None:
  """Measure /health until stopped."""
  with httpx.Client(base_url=base, timeout=60) as client:
    while not stop.wait(0.05):
      begin = time.perf_counter()
      client.get('/health').raise_for_status()
      slowest[0] = max(slowest[0], time.perf_counter() - begin)


def memory_of(base: str) -> float:
  """Return the server's resident memory, MiB."""
  for line in httpx.get(f'{base}/metrics').text.splitlines():
    if line.startswith('mrmt3_resident_bytes'):
      return float(line.split()[1]) / 2**20
  return float('nan')


def main() -> None:
  """Run the rounds and print their figures."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--clients', type=int, default=50)
  parser.add_argument('--seconds', type=float, default=30.0)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--audio', help='an audio file; default: decaying tones')
  parser.add_argument('--keep', default='50', help='of the server')
  args = parser.parse_args()
  song = make_song(args.seconds, args.audio)
  with tempfile.TemporaryDirectory(), running_server('--keep', args.keep) as base:
    transcribe(base, song, -1, {}, 0.0)  # compile
    print(f'memory before: {memory_of(base):.0f} MiB')
    for number in range(args.rounds):
      results, slowest, stop, begin = {}, [0.0], threading.Event(), time.perf_counter()
      watcher = threading.Thread(target=watch, args=(base, stop, slowest))
      watcher.start()
      threads = [
        threading.Thread(target=transcribe, args=(base, song, client, results, begin)) for client in range(args.clients)
      ]
      for thread in threads:
        thread.start()
      for thread in threads:
        thread.join()
      took = time.perf_counter() - begin
      stop.set()
      watcher.join()
      created = sorted(results, key=lambda client: results[client][0])
      finished = sorted(results, key=lambda client: results[client][1])
      moved = max((abs(created.index(client) - finished.index(client)) for client in results), default=0)
      different = len({midi for *_, midi, _ in results.values()}) - 1
      print(
        f'round {number + 1}: {args.clients - len(results)} of {args.clients} lost, {different} other results, '
        f'{took:.1f} s ({args.clients * args.seconds / took:.0f} times real time), /health at most '
        f'{1000 * slowest[0]:.0f} ms, memory {memory_of(base):.0f} MiB, places moved at most {moved}',
        flush=True,
      )


if __name__ == '__main__':
  main()
