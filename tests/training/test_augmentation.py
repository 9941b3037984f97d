import jax
import numpy as np
import pytest

from mrmt3.errors import UserError
from mrmt3.spectrograms import SpectrogramConfig, compute_spectrogram
from mrmt3.training.augmentation import LogMelAugmentation

CONFIG = SpectrogramConfig(num_mel_bins=64)
LOG_MEL = np.random.default_rng(0).normal(-2, 1, (4, 20, 64)).astype(np.float32)


def change(augmentation, log_mel=LOG_MEL, frames=None, seed=0):
  return np.asarray(augmentation(log_mel, frames, jax.random.key(seed), CONFIG)) - log_mel


def test_gain_is_one_number_an_example_within_its_range():
  changed = change(LogMelAugmentation(gain_db=6, tone_db=0, noise_db=0))
  gains = changed[:, 0, 0]
  np.testing.assert_allclose(changed, np.broadcast_to(gains[:, None, None], changed.shape), atol=1e-5)
  assert len(set(gains.round(4).tolist())) == 4
  assert np.abs(gains).max() <= 6 * np.log(10) / 20


def test_a_gain_in_db_is_that_of_the_samples():
  samples = np.random.default_rng(1).normal(0, 0.1, 4000).astype(np.float32)
  louder = compute_spectrogram(samples * 10 ** (6 / 20), CONFIG) - compute_spectrogram(samples, CONFIG)
  np.testing.assert_allclose(louder, 6 * np.log(10) / 20, atol=1e-3)


def test_tone_is_a_smooth_curve_over_the_bins_the_same_in_all_frames():
  changed = change(LogMelAugmentation(gain_db=0, tone_db=3, noise_db=0))
  assert np.ptp(changed, axis=1).max() < 1e-5
  assert np.abs(np.diff(changed[:, 0], axis=-1)).max() < 0.2 < np.abs(changed).max()


def test_noise_raises_what_is_quiet_only():
  changed = change(LogMelAugmentation(gain_db=0, tone_db=0, noise_db=40), np.full_like(LOG_MEL, -11.5))
  assert changed.min() >= 0 and 0.5 < changed.max() < 8
  assert np.abs(change(LogMelAugmentation(gain_db=0, tone_db=0, noise_db=20), np.full_like(LOG_MEL, 2.0))).max() == 0


def test_padding_stays_padding_and_a_seed_says_it_all():
  augmentation, frames = LogMelAugmentation(), np.array([[20], [5], [0], [20]])
  found = LOG_MEL + change(augmentation, frames=frames)
  assert not found[1, 5:].any() and not found[2].any() and found[1, :5].all()
  np.testing.assert_array_equal(change(augmentation), change(augmentation))
  assert np.abs(change(augmentation) - change(augmentation, seed=1)).max() > 0.1


def test_nonsense_is_named():
  with pytest.raises(UserError, match='gain_db'):
    LogMelAugmentation(gain_db=-1)
  with pytest.raises(UserError, match='tone_points'):
    LogMelAugmentation(tone_points=1)
  with pytest.raises(UserError, match='scaling'):
    LogMelAugmentation()(LOG_MEL, None, jax.random.key(0), SpectrogramConfig(num_mel_bins=64, scaling='unit'))
