"""Properties of the audio effects: length, type, latency, silence, reproducibility, and what each one does."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT

from mrmt3.audio.effects import EffectsConfig, chain
from mrmt3.audio.effects import codec as codecs
from mrmt3.audio.effects.amplifier import distort
from mrmt3.audio.effects.band_limit import limit_band
from mrmt3.audio.effects.biquads import apply_sections, peaking, shelf
from mrmt3.audio.effects.clipping import clip
from mrmt3.audio.effects.compressor import compress
from mrmt3.audio.effects.config import COMMON_SPEED, MIX, SPEED, STEM, effect_module, effect_names
from mrmt3.audio.effects.gain import apply_gain
from mrmt3.audio.effects.hum import hum
from mrmt3.audio.effects.impulse_responses import convolve, load_folder, room, room_numbers
from mrmt3.audio.effects.noise_level import add_noise
from mrmt3.audio.effects.pink_noise import add_pink_noise
from mrmt3.audio.effects.reverb import random_response, reverberate
from mrmt3.audio.effects.stereo_downmix import downmix, widen
from mrmt3.audio.effects.unseen_rooms import place_in_room
from mrmt3.audio.effects.wow import warp
from mrmt3.errors import UserError

RATE = 16000
NOISES = {'pink_noise', 'hum', 'crowd'}
SOUND_EFFECTS = effect_names(MIX) + effect_names(STEM)


DEFAULTS = EffectsConfig()


def run(name, samples, seed=0, config=DEFAULTS):
  module = importlib.import_module(effect_module(name))
  return module.random_effect(samples, RATE, np.random.default_rng(seed), config)


def tone(frequency=440.0, seconds=1.0, level=0.3):
  return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def peak_frequency(samples):
  spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 2**18))
  return spectrum.argmax() * RATE / 2**18


def level(samples):
  return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20)


@pytest.mark.parametrize('name', SOUND_EFFECTS)
@given(
  seed=st.integers(0, 2**32),
  size=st.sampled_from([1, 2, 3, 100, 4000, 16001]),
  loud=st.sampled_from([0.0, 1e-4, 0.3, 4.0]),
)
@settings(max_examples=12, deadline=None)
def test_length_type_and_bytes(name, seed, size, loud):
  samples = (loud * np.random.default_rng(seed).uniform(-1, 1, size)).astype(np.float32)
  given_samples = samples.copy()
  changed = run(name, samples, seed)
  assert changed.dtype == np.float32 and changed.shape == samples.shape and np.isfinite(changed).all()
  np.testing.assert_array_equal(samples, given_samples)  # inputs are not changed
  assert changed.tobytes() == run(name, samples, seed).tobytes()
  if not loud and name not in NOISES:
    assert not changed.any()


@pytest.mark.parametrize('name', SOUND_EFFECTS)
def test_onsets_move_by_less_than_a_millisecond(name):
  click = np.zeros(8000, np.float32)
  click[4000] = 0.9
  for seed in range(40):
    assert abs(int(np.argmax(np.abs(run(name, click, seed)))) - 4000) <= RATE // 1000, seed


def test_gain_is_in_decibels():
  np.testing.assert_allclose(apply_gain(np.float32([1, -0.5]), -40.0), [0.01, -0.005], rtol=1e-6)
  levels = [level(run('gain', tone(), seed)) - level(tone()) for seed in range(200)]
  assert -40.01 <= min(levels) < -35 and -5 < max(levels) <= 0.01


def test_clipping_reaches_beyond_full_scale():
  loud = clip(tone(level=0.01), 12.0)
  assert np.abs(loud).max() == 1 and 0.7 < np.mean(np.abs(loud) == 1) < 0.95
  assert np.abs(clip(tone(), 0.0)).max() == pytest.approx(1, abs=1e-6)
  assert 0.99 < np.abs(clip(tone(), 12.0, soft=True)).max() <= 1


def test_filters_have_the_gain_that_they_name():
  for frequency, decibels in ((200, 12.0), (1000, -9.0), (6000, 6.0)):
    samples = tone(frequency)
    raised = apply_sections(samples, peaking(frequency, decibels, 1.0, RATE)[None])
    assert level(raised[4000:]) - level(samples[4000:]) == pytest.approx(decibels, abs=0.1)
  for high, raised, kept in ((False, 50, 7000), (True, 7000, 50)):
    section = shelf(1000, 8.0, RATE, high=high)[None]
    gains = [level(apply_sections(tone(f), section)[4000:]) - level(tone(f)[4000:]) for f in (raised, kept)]
    assert gains == pytest.approx([8.0, 0.0], abs=0.3)


def test_compressor_divides_levels_by_its_ratio():
  both = np.concatenate([tone(level=0.02), tone(level=0.4), tone(level=0.04)])
  pressed = compress(both, RATE, threshold=-12.0, ratio=4.0, attack=0.005, release=0.05)
  gains = [level(pressed[a:b]) - level(both[a:b]) for a, b in ((4000, 15000), (20000, 31000), (40000, 47000))]
  # The peak is 12 dB beyond the threshold, of which 3 remain.
  assert gains == pytest.approx([0.0, -9.0, 0.0], abs=0.3)


def test_rooms_begin_with_the_direct_sound_and_are_never_shared_with_the_test():
  training, held_out = room_numbers(False), room_numbers(True)
  assert len(held_out) == 1000 and not set(training) & set(held_out)
  for number in (0, 1, 2, 3):
    response = room(number, RATE)
    assert response.dtype == np.float32 and response[0] == 1 and len(response) <= 1.2 * RATE
    assert np.mean(np.square(response[-len(response) // 10 :])) < np.mean(np.square(response[: len(response) // 10]))
  first, second = (
    random_response(RATE, np.random.default_rng(5), EffectsConfig(), held_out=flag) for flag in (False, True)
  )
  assert first.tobytes() != second.tobytes()


def test_folders_of_impulse_responses_are_divided_and_trimmed(tmp_path):
  for number in range(24):
    response = np.zeros(8000, np.float32)
    response[200], response[201 + number] = 0.5, 0.25
    soundfile.write(tmp_path / f'room {number}.wav', response, RATE)
  kept, held_out = (load_folder(str(tmp_path), RATE, flag) for flag in (False, True))
  assert len(kept) + len(held_out) == 24 and 2 <= len(held_out) <= 12
  echoes = [{int(np.argmax(one[1:])) for one in group} for group in (kept, held_out)]
  assert not echoes[0] & echoes[1] and all(one[0] == 1 for one in (*kept, *held_out))
  config = EffectsConfig(reverb=1.0, rooms_dir=str(tmp_path))
  used = {int(np.argmax(random_response(RATE, np.random.default_rng(k), config)[1:])) for k in range(60)}
  assert not used & echoes[1]
  with pytest.raises(UserError, match=r'no impulse responses in .*guitarix'):
    load_folder(str(tmp_path / 'none'), RATE, False)


def test_reverb_is_a_convolution_at_the_former_level():
  rng = np.random.default_rng(0)
  samples, response = rng.normal(size=900).astype(np.float32), rng.normal(size=200).astype(np.float32)
  np.testing.assert_allclose(convolve(samples, response), np.convolve(samples, response)[:900], rtol=1e-3, atol=1e-4)
  wet = reverberate(samples, response)
  assert level(wet) == pytest.approx(level(samples), abs=1e-3)
  assert abs(np.corrcoef(wet, np.convolve(samples, response)[:900])[0, 1]) > 0.9999


@given(decibels=st.floats(-10, 60), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_noises_have_the_level_that_they_name(decibels, seed):
  rng = np.random.default_rng(seed)
  samples = tone()
  noise = rng.normal(size=len(samples)).astype(np.float32)
  added = add_noise(samples, noise, decibels).astype(np.float64) - samples
  assert level(samples) - level(added) == pytest.approx(decibels, abs=0.5)


def test_pink_noise_falls_by_three_decibels_an_octave():
  noise = add_pink_noise(np.zeros(2**17, np.float32), 0.0, np.random.default_rng(0))
  power = np.square(np.abs(np.fft.rfft(noise)))
  bands = [10 * np.log10(power[2**k : 2 ** (k + 1)].mean()) for k in range(8, 16)]
  np.testing.assert_allclose(np.diff(bands), -3.01, atol=0.5)


def test_hum_has_the_mains_frequency():
  assert peak_frequency(hum(RATE, RATE, 50.0, np.array([1.0, 0.3]), 0.2)) == pytest.approx(50.0, abs=0.3)


def test_band_limits():
  for frequency, kept in ((100, False), (1000, True), (6000, False)):
    change = level(limit_band(tone(frequency), RATE, 300.0, 3000.0)[4000:]) - level(tone(frequency)[4000:])
    assert change > -1.5 if kept else change < -15


def test_channels_of_opposite_polarity_cancel_at_their_notch():
  delay = 16  # 1 ms: a notch at 1 kHz
  assert level(downmix(widen(tone(1000), delay, -1.0))[100:]) < -100
  assert level(downmix(widen(tone(500), delay, -1.0))[100:]) == pytest.approx(level(tone(500)), abs=0.1)


def test_warping_moves_pitch_and_time_as_it_is_asked():
  samples = tone(1000, 2.0)
  np.testing.assert_allclose(warp(samples, np.zeros(len(samples))), samples, atol=1e-6)
  np.testing.assert_allclose(warp(samples, np.full(len(samples), 3.0))[:-10], samples[3:-7], atol=1e-6)
  faster = warp(samples, 0.02 * np.arange(len(samples)))
  assert peak_frequency(faster[:16000]) == pytest.approx(1020, abs=1)
  for seed in range(20):
    changed = run('wow', samples, seed)
    # A quarter of a semitone at the most, over any tenth of a second.
    for start in range(1000, 30000, 4000):
      assert abs(12 * np.log2(peak_frequency(changed[start : start + 1600]) / 1000)) < 0.3


def test_detuning_stays_within_the_semitone_of_the_label():
  config = EffectsConfig(detune=1.0, tape_speed=1.0)
  drawn = np.array([chain.draw_semitones(config, (seed,), 3) for seed in range(300)])
  assert np.abs(drawn).max() <= 0.45 and drawn.std() > 0.1 and (drawn.std(axis=1) > 0).all()
  own = np.array([chain.draw_semitones(EffectsConfig(detune=1.0), (seed,), 1) for seed in range(300)])
  assert 0.28 < np.abs(own).max() <= 0.3
  common = np.array([chain.draw_semitones(EffectsConfig(tape_speed=1.0), (seed,), 3) for seed in range(20)])
  assert (common == common[:, :1]).all() and common.std() > 0
  assert chain.draw_semitones(EffectsConfig(), (0,), 2) == [0.0, 0.0]


@pytest.mark.parametrize('codec', codecs.CODECS)
def test_codecs_keep_time_and_lose_detail(codec):
  rng = np.random.default_rng(0)
  samples = (0.3 * tone(seconds=2.0) + 0.1 * rng.normal(size=32000)).astype(np.float32)
  decoded = codecs.recode(samples, RATE, codec, 0.95)
  lags = np.fft.irfft(np.fft.rfft(decoded, 2**16) * np.conj(np.fft.rfft(samples, 2**16)))
  assert min(int(lags.argmax()), 2**16 - int(lags.argmax())) <= 2
  assert 0.3 < np.corrcoef(decoded, samples)[0, 1] < 0.9999


def test_amplifier_adds_harmonics():
  clean = tone(220, 0.5)
  spectrum = np.abs(np.fft.rfft(distort(clean, 30.0, 0.5)[:8000]))
  harmonics = spectrum[[110, 220, 330, 550]]  # bins of 2 Hz
  assert harmonics[1] > 0.01 * harmonics[0] and harmonics[2] > 0.2 * harmonics[0]
  between = spectrum[[150, 190, 270, 1000 + 45]]  # aliases would be there
  assert between.max() < 0.02 * harmonics[0]


def test_each_effect_has_the_probability_that_it_is_given():
  config = EffectsConfig(gain=1.0, reverb=0.3, hum=0.1)
  drawn = [chain.draw_mix_effects(config, (seed, 5)) for seed in range(1500)]
  share = {name: np.mean([name in one for one in drawn]) for name in effect_names(MIX)}
  assert share.pop('gain') == 1
  assert share.pop('reverb') == pytest.approx(0.3, abs=0.04) and share.pop('hum') == pytest.approx(0.1, abs=0.03)
  assert not any(share.values())


def test_an_effect_does_not_change_what_another_one_draws():
  samples = tone()
  alone = chain.apply_mix_effects(samples, RATE, EffectsConfig(gain=1.0), (3,))
  factor = alone[4] / samples[4]
  both = chain.apply_mix_effects(samples, RATE, EffectsConfig(gain=1.0, equalizer=1.0), (3,))
  equalized = chain.apply_mix_effects(samples, RATE, EffectsConfig(equalizer=1.0), (3,))
  np.testing.assert_allclose(both, factor * equalized, rtol=1e-4, atol=1e-6)


def test_mistakes_are_named():
  for value in (-0.1, 1.5, True, 'often', None):
    with pytest.raises(UserError, match=r'EffectsConfig\.reverb is .*probability'):
      EffectsConfig(reverb=value)
  assert all(getattr(EffectsConfig(), name) == 0 for name in effect_names())
  assert len({effect_module(name) for name in effect_names()}) == len(effect_names())
  assert set(effect_names()) == {name for stage in (MIX, STEM, SPEED, COMMON_SPEED) for name in effect_names(stage)}


def test_the_unseen_room_is_quiet_and_noisy():
  samples = np.concatenate([tone(level=0.5), np.zeros(RATE, np.float32)])
  placed = place_in_room(samples, RATE, np.random.default_rng(1))
  assert len(placed) == len(samples) and -37 < level(placed) - level(samples) < -19
  assert place_in_room(samples, RATE, np.random.default_rng(1)).tobytes() == placed.tobytes()


def test_the_bytes_do_not_depend_on_the_process():
  code = (
    'import numpy as np, hashlib\n'
    'from mrmt3.audio.effects import EffectsConfig, chain\n'
    'from mrmt3.audio.effects.config import effect_names\n'
    'x = np.random.default_rng(0).normal(size=20000).astype(np.float32)\n'
    'config = EffectsConfig(**dict.fromkeys(effect_names(), 1.0))\n'
    'print(hashlib.sha256(chain.apply_mix_effects(x, 16000, config, (1, 2)).tobytes()).hexdigest())'
  )
  texts = [subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=True).stdout]
  texts += [subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=True).stdout]
  assert texts[0] == texts[1] and len(texts[0]) == 65
