"""Fuzzing with broken audio files and random tokens: no traceback, no hang. Slow tests run the full numbers."""

import io
import time

import numpy as np
import pytest
import soundfile

from mrmt3.audio import files as audio_files
from mrmt3.errors import UserError
from mrmt3.note_sequences import decode_piece
from mrmt3.notes import midi
from mrmt3.vocabularies import VocabularyConfig, build_codec

FORMATS = {
  'wav': 'PCM_16',
  'flac': 'PCM_16',
  'ogg': 'VORBIS',
  'mp3': None,
  'aiff': 'PCM_24',
  'w64': 'FLOAT',
  'au': 'ULAW',
}
LIMIT = 10  # s, for a file of one second


def sounds():
  """Return one second of noise in each format."""
  noise = np.random.default_rng(0).normal(0, 0.2, (11025, 2)).clip(-1, 1)
  made = {}
  for name, subtype in FORMATS.items():
    file = io.BytesIO()
    soundfile.write(file, noise, 11025, format=name.upper(), subtype=subtype)
    made[name] = file.getvalue()
  return made


def mutated(data, rng):
  """Return a file with bytes modified (most of them in the header), deleted, inserted or repeated, or truncated."""
  data = bytearray(data)
  for _ in range(rng.integers(1, 6)):
    kind = rng.integers(6)
    place = int(rng.integers(0, 64 if rng.random() < 0.6 else max(1, len(data))))
    if kind == 0:
      data[place : place + 1] = bytes([rng.integers(256)])
    elif kind == 1:
      data[place : place + 4] = rng.choice([b'\xff' * 4, b'\0' * 4, b'\x80\0\0\0', b'\0\0\0\x7f'])
    elif kind == 2:
      del data[place : place + int(rng.integers(1, 200))]
    elif kind == 3:
      data[place:place] = rng.bytes(int(rng.integers(1, 50)))
    elif kind == 4:
      data[place:place] = data[: int(rng.integers(1, 2000))]
    else:
      del data[place + int(rng.integers(0, 4000)) :]
  return bytes(data)


def read_mutated(folder, count, seed):
  """Return how many of `count` broken files were read, and how many raised a UserError."""
  rng = np.random.default_rng(seed)
  originals = sounds()
  outcomes = {'read': 0, 'refused': 0}
  for number in range(count):
    name = list(originals)[number % len(originals)]
    path = folder / f'{number}.{name}'
    path.write_bytes(mutated(originals[name], rng))
    begin = time.monotonic()
    try:
      samples = audio_files.read_audio(path)
      assert samples.dtype == np.float32 and samples.ndim == 1 and len(samples) and np.isfinite(samples).all()
      outcomes['read'] += 1
    except UserError as error:
      assert '\n' not in str(error) and path.name in str(error)
      outcomes['refused'] += 1
    assert time.monotonic() - begin < LIMIT, path
    path.unlink()
  return outcomes['read'], outcomes['refused']


def decode_senseless(count, seed):
  """Return the numbers of notes and of invalid events in `count` pieces of random tokens."""
  codec = build_codec(VocabularyConfig(num_velocity_bins=1))
  rng = np.random.default_rng(seed)
  notes = invalid = 0
  for _ in range(count):
    segments = rng.integers(1, 5)
    rows = []
    for _ in range(segments):
      length = int(rng.integers(0, 300))
      tokens = rng.integers(-5, 1600, length)
      likely = rng.integers(1004, 1391, length)  # all events but time shifts
      short = rng.integers(3, 150, length)
      kinds = rng.choice(3, length, p=[0.1, 0.7, 0.2])
      rows.append(np.select([kinds == 0, kinds == 1], [tokens, likely], short))
    table, stats = decode_piece(rows, [256 * k for k in range(segments)], codec)
    assert stats.segments == segments
    assert (table['offset'] - table['onset'] >= 0.01 - 1e-9).all() and (np.diff(table['onset']) >= 0).all()
    assert len(midi.midi_bytes(table)) > 20  # every table is a MIDI file
    notes, invalid = notes + len(table), invalid + stats.invalid_events
  return notes, invalid


# The files are neither all whole nor all hopeless, the tokens neither all valid nor all invalid.
def test_mutated_audio_files(tmp_path):
  read, refused = read_mutated(tmp_path, 140, seed=1)
  assert read + refused == 140 and min(read, refused) > 7


def test_random_tokens():
  notes, invalid = decode_senseless(60, seed=1)
  assert notes > 60 and invalid > 60


@pytest.mark.slow
def test_2000_mutated_audio_files(tmp_path):
  read, refused = read_mutated(tmp_path, 2000, seed=2)
  assert read + refused == 2000 and min(read, refused) > 100


@pytest.mark.slow
def test_5000_random_token_streams():
  notes, invalid = decode_senseless(5000, seed=2)
  assert notes > 5000 and invalid > 5000
