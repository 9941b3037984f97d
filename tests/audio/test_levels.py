"""Odd levels: float samples in the range of integers, channels of opposite polarity, near silence."""

import warnings

import numpy as np
import odd_audio
import pytest

from mrmt3.audio import files as audio_files
from mrmt3.audio import levels
from mrmt3.errors import DataWarning, UserError


def noise(frames, channels=1, seed=0):
  return np.random.default_rng(seed).uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


def read(path):
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    samples = audio_files.read_audio(path)
  return samples, [str(warning.message) for warning in caught]


@pytest.mark.parametrize('bits', [16, 24, 32])
@pytest.mark.parametrize('subtype', ['FLOAT', 'DOUBLE'])
def test_float_files_in_the_range_of_integers(tmp_path, bits, subtype):
  sound = noise(40000)
  sound[:39000] = 0  # a silent beginning does not decide
  path = odd_audio.write(tmp_path / 'a.wav', sound * 2.0 ** (bits - 1), 16000, subtype=subtype)
  samples, lines = read(path)
  np.testing.assert_allclose(samples, sound[:, 0], rtol=1e-6)
  assert len(lines) == 1 and f'{bits}-bit integers' in lines[0] and str(path) in lines[0]


def test_loud_float_files_stay_as_they_are(tmp_path):
  sound = 4 * noise(40000)
  samples, lines = read(odd_audio.write(tmp_path / 'a.wav', sound, 16000, subtype='FLOAT'))
  np.testing.assert_array_equal(samples, sound[:, 0])
  assert not lines


def test_single_loud_samples_are_clipped(tmp_path):
  sound = noise(40000)
  sound[777] = -9e6
  samples, lines = read(odd_audio.write(tmp_path / 'a.wav', sound, 16000, subtype='FLOAT'))
  assert samples[777] == -1 and len(lines) == 1 and '1 samples far above' in lines[0]
  np.testing.assert_array_equal(np.delete(samples, 777), np.delete(sound[:, 0], 777))


def test_a_range_beyond_integers_is_an_error(tmp_path):
  path = odd_audio.write(tmp_path / 'a.wav', noise(4000) * 1e20, 16000, subtype='FLOAT')
  with pytest.raises(UserError, match='full scale'):
    audio_files.read_audio(path)


@pytest.mark.parametrize('channels', [2, 4])
def test_channels_of_opposite_polarity(tmp_path, channels):
  one = noise(40000)
  sound = np.concatenate([one * 0.9, -one] * (channels // 2), axis=1)
  samples, lines = read(odd_audio.write(tmp_path / 'a.wav', sound, 16000, subtype='FLOAT'))
  np.testing.assert_array_equal(samples, -one[:, 0])
  assert len(lines) == 1 and 'opposite polarity' in lines[0] and 'channel 2 is used' in lines[0]


@pytest.mark.parametrize('channels', [1, 2, 6, 64])
def test_other_channels_are_averaged(channels):
  for sound in (noise(20000, channels), np.eye(1, channels) * noise(20000), np.zeros((20000, channels), np.float32)):
    sound = sound.astype(np.float32)
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      for downmix in (levels.Downmix('a', 16000), levels.StreamDownmix('a', 16000)):
        np.testing.assert_array_equal(downmix.block(sound), sound[:, 0] if channels == 1 else sound.mean(axis=1))


def test_a_stream_is_judged_by_its_past_however_it_is_cut():
  one = noise(50000)
  sound = np.concatenate([one, -one], axis=1)
  mixed = []
  for places in ([], [1, 2, 700, 15999, 16001, 40000], range(100, 50000, 100)):
    downmix = levels.StreamDownmix('the stream', 16000)
    with pytest.warns(DataWarning, match='opposite polarity'):
      mixed.append(np.concatenate([downmix.block(block) for block in np.split(sound, places)]))
  np.testing.assert_array_equal(mixed[0], mixed[1])
  np.testing.assert_array_equal(mixed[0], mixed[2])
  assert not mixed[0][:16000].any()
  np.testing.assert_array_equal(mixed[0][16000:], one[16000:, 0])


@pytest.mark.parametrize('decibels, line', [(-200, 'is silent'), (-60, 'peak -60 dB'), (-36, 'peak -36 dB'), (-24, '')])
def test_near_silence(decibels, line):
  blocks = [np.zeros(9, np.float32), np.full(9, 10 ** (decibels / 20) if decibels > -200 else 0, np.float32)]
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    assert len(list(levels.watched(blocks, 'a'))) == 2
    assert not list(levels.watched([], 'a'))
  assert [line in str(warning.message) for warning in caught] == ([True] if line else [])
