import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import FIXTURES

from mrmt3 import spectrograms
from mrmt3.errors import UserError

FIXTURE = np.load(FIXTURES / 'spectrogram.npz')


def of_tensor(samples, config):
  import tensorflow as tf

  return spectrograms.compute_spectrogram(tf.constant(samples), config).numpy()


IMPLEMENTATIONS = {'numpy': spectrograms.compute_spectrogram, 'jax': spectrograms.log_mel, 'tensor': of_tensor}


PUBLISHED = ('mt3', 'mr_mt3')


def assert_agrees(actual, expected):
  error = np.abs(np.asarray(actual, np.float64) - expected)
  assert error.mean() <= 3e-5
  assert (error > 1e-4).mean() <= 0.02
  assert error.max() <= 2e-3


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('front_end', PUBLISHED)
@pytest.mark.parametrize(('samples', 'suffix'), [('samples', ''), ('short_samples', '_short')])
def test_fixture(implementation, front_end, samples, suffix):
  config = spectrograms.SpectrogramConfig(front_end=front_end)
  actual = IMPLEMENTATIONS[implementation](FIXTURE[samples], config)
  expected = FIXTURE[front_end + suffix]
  assert actual.dtype == np.float32
  assert actual.shape == expected.shape
  assert_agrees(actual, expected)


@pytest.mark.parametrize('front_end', PUBLISHED)
def test_two_filters_are_empty(front_end):
  weights = spectrograms.mel_filterbank(spectrograms.SpectrogramConfig(front_end=front_end))
  assert weights.shape == (1025, 512)
  assert (weights.max(axis=0) == 0).sum() == 2
  assert weights.max() <= 1


def test_unit_scaling_maps_the_range_to_0_1():
  raw = spectrograms.compute_spectrogram(FIXTURE['samples'], spectrograms.SpectrogramConfig())
  config = spectrograms.SpectrogramConfig(scaling='unit')
  scaled = spectrograms.compute_spectrogram(FIXTURE['samples'], config)
  np.testing.assert_allclose(scaled, (np.clip(raw, -12, 5) + 12) / 17, atol=1e-6)
  silence = spectrograms.compute_spectrogram(np.zeros(256, np.float32), config)
  np.testing.assert_allclose(silence, (np.log(1e-5) + 12) / 17, atol=1e-6)


@pytest.mark.parametrize('front_end', PUBLISHED)
def test_fewer_mel_bins_peak_at_the_tone(front_end):
  config = spectrograms.SpectrogramConfig(num_mel_bins=128, front_end=front_end)
  tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 16000).astype(np.float32)
  batch = np.stack([tone, 0.5 * tone])
  mel = spectrograms.compute_spectrogram(batch, config)
  assert mel.shape == (2, 63, 128)
  centre_mel = 2595 * np.log10(1 + 20 / 700) + (mel[0, 10].argmax() + 1) * (
    (2595 * np.log10(1 + 7600 / 700) - 2595 * np.log10(1 + 20 / 700)) / 129
  )
  assert abs(700 * (10 ** (centre_mel / 2595) - 1) - 1000) < 30
  np.testing.assert_allclose(mel[0, 10, 40:60] - mel[1, 10, 40:60], np.log(2), atol=1e-3)
  np.testing.assert_allclose(mel, spectrograms.log_mel(batch, config), atol=5e-3)


@settings(max_examples=50, deadline=None)
@given(length=st.integers(0, 3000), segment_frames=st.integers(1, 9))
def test_segments_hold_the_piece_and_its_padding(length, segment_frames):
  config = spectrograms.SpectrogramConfig()
  samples = np.arange(1, length + 1, dtype=np.float32)
  segments, valid = spectrograms.piece_segments(samples, config, segment_frames)
  assert segments.shape == (len(valid), segment_frames * 128)
  assert valid.sum() == length // 128 + 1 == spectrograms.num_frames(length, config)
  assert (valid[:-1] == segment_frames).all()
  assert valid[-1] >= 1
  np.testing.assert_array_equal(segments.ravel()[:length], samples)
  assert not segments.ravel()[length:].any()
  frames = spectrograms.split_audio(samples, config)
  assert frames.shape == (-(-length // 128), 128)
  np.testing.assert_array_equal(spectrograms.flatten_frames(frames)[:length], samples)


def test_segment_inputs_see_only_their_own_samples():
  config = spectrograms.SpectrogramConfig(num_mel_bins=64)
  samples = FIXTURE['samples'][:5000]
  inputs = spectrograms.segment_inputs(samples, config, 16)
  assert inputs.shape == (3, 16, 64)
  np.testing.assert_array_equal(inputs[1], spectrograms.compute_spectrogram(samples[2048:4096], config))
  assert (inputs[2, :8] != 0).all(axis=-1).all()  # 40 frames: 16 + 16 + 8
  assert not inputs[2, 8:].any()


def test_no_samples_give_no_frames():
  assert spectrograms.compute_spectrogram(np.zeros((2, 0)), spectrograms.SpectrogramConfig()).shape == (2, 0, 512)


@pytest.mark.parametrize(
  'bad',
  [
    {'front_end': 'torch'},
    {'scaling': 'db'},
    {'num_mel_bins': 0},
    {'hop_width': 1.5},
    {'mel_hi_hz': 9000.0},
    {'mel_lo_hz': 8000.0},
  ],
)
def test_nonsense_is_refused(bad):
  with pytest.raises(UserError, match=next(iter(bad)).split('_')[0]):
    spectrograms.SpectrogramConfig(**bad)


def test_tensors_are_cut_and_joined_as_arrays_are():
  import tensorflow as tf

  config = spectrograms.SpectrogramConfig(hop_width=64, scaling='unit')
  samples = FIXTURE['short_samples']
  frames = spectrograms.split_audio(tf.constant(samples), config)
  np.testing.assert_array_equal(frames, spectrograms.split_audio(samples, config))
  np.testing.assert_array_equal(spectrograms.flatten_frames(frames)[: len(samples)], samples)
  made = tf.function(lambda x: spectrograms.compute_spectrogram(x, config))(tf.constant(samples))
  np.testing.assert_allclose(made, spectrograms.compute_spectrogram(samples, config), atol=2e-4)


def test_names_of_configurations():
  assert spectrograms.SpectrogramConfig().abbrev_str == ''
  assert spectrograms.SpectrogramConfig(22050, 256, 229).abbrev_str == 'sr22050hw256mb229'
  assert spectrograms.SpectrogramConfig(22050, 300).frames_per_second == 73.5


@settings(max_examples=50, deadline=None)
@given(length=st.integers(0, 3000), size=st.integers(1, 900), own=st.integers(1, 4), context=st.integers(0, 3))
def test_segments_overlap_by_their_context(length, size, own, context):
  config = spectrograms.SpectrogramConfig()
  samples = np.arange(1, length + 1, dtype=np.float32)
  blocks = [samples[start : start + size] for start in range(0, length, size)]
  cut = list(spectrograms.cut_segments(blocks, config, own + 2 * context, context))
  assert len(cut) == -(-(length // 128 + 1) // own)
  assert [is_last for *_, is_last in cut] == [False] * (len(cut) - 1) + [True]
  before = np.zeros(context * 128, np.float32)
  whole = np.concatenate([before, samples, np.zeros((own + 2 * context) * 128, np.float32)])
  for k, (found, count, _) in enumerate(cut):
    start = k * own * 128
    np.testing.assert_array_equal(found, whole[start:][: (own + 2 * context) * 128])
    assert count == min(len(found), len(before) + length - start)
