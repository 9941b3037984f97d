"""The harmonic front end: frequencies, receptive fields, weight sharing over pitches, and its norm."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from mrmt3 import spectrograms
from mrmt3.framewise import harmonic_stacking
from mrmt3.framewise.harmonic_stacking import HarmonicStacking
from mrmt3.nn import layers

CHANNELS = (2, 4, 3, 2)
MELS = spectrograms.SpectrogramConfig(hop_width=256, num_mel_bins=256)


def init(module, *inputs):
  return jax.jit(module.init)(jax.random.key(0), *inputs)


def apply(module, params, *inputs, method=None):
  return jax.jit(functools.partial(module.apply, method=method))(params, *inputs)


@pytest.mark.parametrize('pitch', [45, 57, 69, 81, 100])
def test_a_sine_peaks_at_its_semitone(pitch):
  hz = 440 * 2 ** ((pitch - 69) / 12)
  samples = np.sin(2 * np.pi * hz * np.arange(16000) / 16000).astype(np.float32)
  thirds = np.asarray(spectrograms.compute_spectrogram(samples, MELS))[20] @ harmonic_stacking.semitone_weights(256)
  levels = np.where(thirds == 0, -np.inf, thirds).reshape(-1, 3)
  assert harmonic_stacking.LOWEST_PITCH - 12 + levels.max(axis=1).argmax() == pitch
  if pitch > 60:  # lower down, mel bins are wider than semitones
    assert levels[pitch - harmonic_stacking.LOWEST_PITCH + 12].argmax() == 1


def test_semitone_weights_are_zero_beyond_the_mel_range():
  weights = harmonic_stacking.semitone_weights(256)
  assert weights.min() >= 0 and weights.max() <= 1 and weights.sum(axis=0).max() <= 1 + 1e-6
  hz = 440 * 2 ** ((harmonic_stacking.LOWEST_PITCH - 12 - 1 / 3 + np.arange(weights.shape[1]) / 3 - 69) / 12)
  assert not weights[:, (hz < 20) | (hz > 7700)].any()
  assert weights[:, (hz > 30) & (hz < 7500)].sum(axis=0) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('stride', [1, 2])
def test_receptive_field_covers_the_onset_and_what_was_before(stride):
  front = HarmonicStacking(8, CHANNELS, stride)
  frames = np.random.default_rng(0).normal(-4, 4, (1, 48, 64)).astype(np.float32)
  params = init(front, frames)
  before = apply(front, params, frames)
  changed = frames.copy()
  changed[0, 24] += 3
  pairs = zip(before, apply(front, params, changed), strict=True)
  hidden, pitches = (np.abs(np.asarray(x - y)) for x, y in pairs)
  hidden, pitches = (np.flatnonzero(x > 1e-6) for x in (hidden[0].max(axis=-1), pitches.max(axis=(0, 1))[:, 0]))
  place = 24 // stride
  # The features of a pitch are joined with those of one encoder frame before and one after.
  assert set(pitches) <= set(hidden)
  assert min(pitches) >= place - 2 - 1 and max(pitches) <= place + 9 // stride + 1
  assert {place, place + 1} <= set(pitches)


def test_all_pitches_share_the_same_view_of_harmonics():
  front = HarmonicStacking(8, CHANNELS, 2)
  rng = np.random.default_rng(1)
  params = init(front, np.zeros((1, 16, 256), np.float32))
  semitones = rng.normal(size=(2, 12 + harmonic_stacking.PITCHES + 36, 5, 1)).astype(np.float32)
  stacked = apply(front, params, semitones, method=lambda module, x: module._harmonics(x))
  moved = apply(front, params, np.roll(semitones, 5, axis=1), method=lambda module, x: module._harmonics(x))
  np.testing.assert_array_equal(stacked[:, 20:60], moved[:, 25:65])
  # An octave below, the pitch itself, an octave above, a twelfth, and so on.
  wanted = [semitones[:, 12 + 40 + above, 3, 0] for above in (-12, 0, 12, 19, 24, 28, 31, 34, 36)]
  np.testing.assert_array_equal(stacked[:, 40, 3, 0], np.concatenate(wanted))


def test_neighbours_are_adjacent_frames_and_octaves():
  local = np.random.default_rng(2).normal(size=(3, harmonic_stacking.PITCHES, 4, 1)).astype(np.float32)
  front = HarmonicStacking(8, CHANNELS)
  params = init(front, np.zeros((1, 4, 64), np.float32))
  joined = np.asarray(apply(front, params, local, method=lambda module, x: module._neighbours(x)))
  wanted = [local[:, pitch, frame, 0] for pitch, frame in ((30, 2), (30, 1), (30, 3), (18, 2), (42, 2))]
  np.testing.assert_array_equal(joined[:, 30, 2, 0], np.concatenate(wanted))
  # Beyond the first frame and the lowest octave there is nothing.
  assert not joined[3:6, 5, 0].any() and not joined[9:12, 5, 0].any()


def test_channels_first_dense_equals_dense_with_channels_last():
  x = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
  sizes = (4, ('embed', 'mlp'), nn.initializers.he_normal())
  first, last = layers.ChannelsFirstDense(*sizes), layers.Dense(*sizes)
  params = first.init(jax.random.key(0), x)['params']
  wanted = np.moveaxis(last.apply({'params': params}, np.moveaxis(x, 0, -1)), -1, 0)
  np.testing.assert_allclose(first.apply({'params': params}, x), wanted, atol=1e-5)


def test_norm_is_over_all_pitches_of_a_frame():
  front = HarmonicStacking(8, CHANNELS)
  frames = np.random.default_rng(3).normal(-4, 4, (2, 4, 64)).astype(np.float32)
  params = init(front, frames)['params']
  rng = np.random.default_rng(4)
  params = jax.tree.map(lambda x: x + rng.normal(0, 0.3, x.shape).astype(np.float32), params)
  hidden, pitches = apply(front, {'params': params}, frames)
  assert hidden.shape == (2, 4, 8) and pitches.shape == (CHANNELS[2], harmonic_stacking.PITCHES, 4, 2)
  flat = np.asarray(pitches).transpose(3, 2, 1, 0).reshape(2, 4, -1)
  normal = layers.LayerNorm().apply({'params': params['layer_norm']}, flat)
  # Without the layer that reads whole frames nothing else is left.
  params = {**params, 'whole': jax.tree.map(np.zeros_like, params['whole'])}
  wanted = normal @ params['pitches']['kernel']
  np.testing.assert_allclose(apply(front, {'params': params}, frames)[0], wanted, atol=1e-3)


def test_parameter_shapes_follow_the_channels():
  params = jax.eval_shape(HarmonicStacking(8, CHANNELS).init, jax.random.key(0), np.zeros((1, 4, 64)))['params']
  assert params['harmonics']['kernel'].shape == (9 * CHANNELS[0], CHANNELS[1])
  assert params['notes']['kernel'].shape == (CHANNELS[1], CHANNELS[2])
  assert params['whole']['kernel'].shape == (CHANNELS[3], 8)
