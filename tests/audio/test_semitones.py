"""The log-frequency spectrogram: pitches in their places, low ones told apart, the same in all libraries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3 import spectrograms
from mrmt3.audio import semitones
from mrmt3.errors import UserError

CONFIG = spectrograms.SpectrogramConfig(hop_width=250, num_mel_bins=semitones.FILTERS, front_end='semitones')
SHORT = semitones.SHORT_FILTERS


def tone(pitch, seconds=2.0):
  hertz = 440 * 2 ** ((pitch - 69) / 12)
  return np.sin(2 * np.pi * hertz * np.arange(round(seconds * 16000)) / 16000).astype(np.float32)


def place(pitch):
  return round((pitch - semitones.LOWEST) * semitones.PER_SEMITONE) + 1


@pytest.mark.parametrize('pitch', [45, 57, 60 + 1 / 3, 72, 78])
def test_a_tone_is_at_its_pitch_in_both_windows(pitch):
  frame = spectrograms.compute_spectrogram(tone(pitch), CONFIG)[60]
  assert frame[:SHORT].argmax() == pytest.approx(place(pitch), abs=1)
  assert frame[SHORT:].argmax() == place(pitch)


@pytest.mark.parametrize('pitch', [84, 96, 108, 118])
def test_a_high_tone_is_in_the_short_window_alone(pitch):
  frame = spectrograms.compute_spectrogram(tone(pitch), CONFIG)[60]
  assert frame[:SHORT].argmax() == place(pitch)
  assert frame[SHORT:].max() < frame[:SHORT].max() - np.log(100)  # 40 dB below: it does not alias


def test_the_long_window_tells_low_neighbours_apart():
  both = spectrograms.compute_spectrogram(tone(40) + tone(42), CONFIG)[60]
  dips = [part[place(41)] - min(part[place(40)], part[place(42)]) for part in (both[:SHORT], both[SHORT:])]
  assert dips[1] < -0.5 < dips[0]


def test_both_windows_have_one_centre():
  click = np.zeros(32000, np.float32)
  click[16000] = 1
  values = np.exp(spectrograms.compute_spectrogram(click, CONFIG))
  for part in (values[:, place(60)], values[:, SHORT + place(60)]):
    weights = part / part.sum()
    centre = (weights * np.arange(len(part))).sum() * 250 + semitones.WINDOW / 2
    assert centre == pytest.approx(16000, abs=250)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9000), st.sampled_from([128, 250]), st.integers(0, 2**32 - 1))
def test_the_same_in_numpy_and_jax(length, hop, seed):
  config = spectrograms.SpectrogramConfig(hop_width=hop, num_mel_bins=semitones.FILTERS, front_end='semitones')
  samples = np.random.default_rng(seed).normal(size=(2, length)).astype(np.float32)
  ours = spectrograms.compute_spectrogram(samples, config)
  assert ours.shape == (2, -(-length // hop), semitones.FILTERS) and ours.dtype == np.float32
  np.testing.assert_allclose(spectrograms.log_mel(samples, config), ours, atol=1e-3)


def test_the_same_in_tensorflow():
  tf = pytest.importorskip('tensorflow')
  samples = np.random.default_rng(0).normal(size=(2, 5001)).astype(np.float32)
  theirs = spectrograms.compute_spectrogram(tf.constant(samples), CONFIG).numpy()
  np.testing.assert_allclose(theirs, spectrograms.compute_spectrogram(samples, CONFIG), atol=1e-3)


def test_silence_is_the_floor():
  values = spectrograms.compute_spectrogram(np.zeros(4000, np.float32), CONFIG)
  assert np.all(values == np.float32(np.log(np.float32(spectrograms.LOG_FLOOR))))


@pytest.mark.parametrize(
  ('changes', 'named'),
  [({'num_mel_bins': 512}, 'num_mel_bins'), ({'hop_width': 125}, 'hop'), ({'fft_size': 1024}, 'fft')],
)
def test_other_sizes_are_errors(changes, named):
  sizes = {'hop_width': 250, 'num_mel_bins': semitones.FILTERS, **changes}
  with pytest.raises(UserError, match=named):
    spectrograms.SpectrogramConfig(front_end='semitones', **sizes)
