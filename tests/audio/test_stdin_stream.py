"""Streams of wav with wrong lengths, and without samples."""

import io
import struct
import warnings

import numpy as np
import pytest

from mrmt3.audio import stdin_stream
from mrmt3.errors import DataWarning, UserError

SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 20_000).astype('<i2')


def wav(length, after=b''):
  header = struct.pack('<HHIIHH', 1, 1, 16000, 32000, 2, 16)
  body = b'WAVEfmt ' + struct.pack('<I', 16) + header + b'data' + struct.pack('<I', length) + SAMPLES.tobytes() + after
  return b'RIFF' + struct.pack('<I', len(body)) + body


def read(data, **options):
  """Return (samples, messages of the warnings)."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    rate, blocks = stdin_stream.open_sound(io.BytesIO(data).read, **options)
    samples = np.concatenate(list(stdin_stream.mono_blocks(blocks, rate)))
  assert all(warning.category is DataWarning for warning in caught)
  return samples, [str(warning.message) for warning in caught]


@pytest.mark.parametrize('length', [1000, 1001, 20_000])
def test_samples_after_the_declared_length_are_read_with_a_word(length):
  samples, lines = read(wav(length))
  assert len(lines) == 1 and 'goes on after the length' in lines[0]
  np.testing.assert_array_equal(samples, (SAMPLES / 2**15).astype(np.float32))


@pytest.mark.parametrize('after', [b'', bytes(100), b'LIST' + struct.pack('<I', 20_000) + bytes(20_000)])
def test_other_chunks_and_padding_end_the_samples(after):
  samples, lines = read(wav(2 * len(SAMPLES), after))
  assert not lines and len(samples) == len(SAMPLES)


@pytest.mark.parametrize('length', [0, 0xFFFFFFFF])
def test_an_unknown_length_is_no_oddity(length):
  samples, lines = read(wav(length))
  assert not lines and len(samples) == len(SAMPLES)


@pytest.mark.parametrize(('data', 'options'), [(wav(0)[:44], {}), (b'', {'rate': 16000}), (b'\1', {'rate': 16000})])
def test_a_stream_without_samples_is_an_error(data, options):
  with pytest.raises(UserError, match='standard input has no audio samples'):
    read(data, **options)
