"""Static batching: pieces of unequal lengths, memories of the caller's choice, several devices."""

import os
import subprocess
import sys

import jax
import network_fixture as fixture
import numpy as np
import pytest
from paths import ROOT

from mrmt3 import spectrograms
from mrmt3.config import ModelSpec
from mrmt3.inference import memory, static_batching
from mrmt3.inference.static_batching import ConditionedPiece
from mrmt3.inference.transcriber import Transcriber
from mrmt3.spectrograms import SpectrogramConfig

SPEC = ModelSpec(fixture.CONFIG, SpectrogramConfig(num_mel_bins=64), segment_frames=40, targets_length=48)
SEGMENT = 40 * 128  # samples
LENGTHS = (3 * SEGMENT, SEGMENT // 2, 2 * SEGMENT + 9)
ROWS = 4


def samples_of(number):
  return np.random.default_rng(number).normal(0, 0.1, LENGTHS[number]).astype(np.float32)


def mel_of(number):
  return np.asarray(spectrograms.segment_inputs(samples_of(number), SPEC.spectrogram, SPEC.segment_frames))


def own_output(decoded):
  """The memory that a Transcriber carries."""
  if not decoded:
    return memory.empty(SPEC, 1)
  return memory.after(memory.empty(SPEC, 1), decoded[-1][None], SPEC)


def decode_all(transcriber):
  pieces = [ConditionedPiece(mel_of(number), own_output) for number in range(len(LENGTHS))]
  return [np.stack(tokens) for tokens in static_batching.decode(transcriber, pieces, ROWS)]


@pytest.fixture(scope='module')
def transcriber():
  return Transcriber(fixture.params(), SPEC)


def test_equals_each_piece_alone(transcriber):
  for number, tokens in enumerate(decode_all(transcriber)):
    expected = [transcriber.padded(s.tokens) for s in transcriber.transcribe(samples_of(number), 16000).segments]
    np.testing.assert_array_equal(tokens, expected)


def test_is_conditioned_on_what_the_caller_returns(transcriber, monkeypatch):
  asked, seen, decode = [], [], Transcriber.decode_rows

  def watch(self, inputs, remembered, active, allowed=None):
    seen.append((remembered.tokens[0], active.tolist()))
    return decode(self, inputs, remembered, active, allowed)

  def memory_of(decoded):
    asked.append(len(decoded))
    return memory.empty(SPEC, 1)._replace(tokens=np.full((1, SPEC.targets_length), 5 + len(decoded), np.int32))

  monkeypatch.setattr(Transcriber, 'decode_rows', watch)
  mel = mel_of(0)
  (tokens,) = static_batching.decode(transcriber, [ConditionedPiece(mel, memory_of)], 2)
  assert asked == list(range(len(mel))) and len(tokens) == len(mel)
  for number, (held, active) in enumerate(seen):
    assert (held == 5 + number).all() and active == [True, False]


def test_several_devices_share_the_rows(transcriber, tmp_path):
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={ROWS}'
  path = os.pathsep.join([str(ROOT), str(ROOT / 'tests'), os.environ.get('PYTHONPATH', '')])
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags, 'PYTHONPATH': path}
  subprocess.run([sys.executable, __file__, str(tmp_path / 'tokens.npz')], env=environment, check=True, timeout=300)
  found = np.load(tmp_path / 'tokens.npz')
  assert found['devices'] == ROWS
  for number, expected in enumerate(decode_all(transcriber)):
    np.testing.assert_array_equal(found[f'arr_{number}'], expected)


if __name__ == '__main__':  # run by test_several_devices_share_the_rows
  devices = len(static_batching._over_devices(np.zeros((ROWS, 2), np.float32)).sharding.device_set)
  assert jax.local_device_count() == ROWS
  np.savez(sys.argv[1], *decode_all(Transcriber(fixture.params(), SPEC)), devices=devices)
