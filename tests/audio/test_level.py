"""The level of audio and the gain of quiet and loud recordings."""

import numpy as np
import pytest

from mrmt3.audio.level import LOUDEST, QUIETEST, LevelMeter


def meter_of(*levels, seconds=2.0):
  """Return a meter that has got noise of each level, dBFS."""
  meter, rng = LevelMeter(16000), np.random.default_rng(0)
  for level in levels:
    meter.add((rng.normal(0, 1, round(seconds * 16000)) * 10 ** (level / 20)).astype(np.float32))
  return meter


@pytest.mark.parametrize(('level', 'gain'), [(-20, 0.0), (-48, 24.0), (-60, 36.0), (80, -90.0), (-80, 0.0)])
def test_gain_of_a_steady_level(level, gain):
  meter = meter_of(level)
  assert 20 * np.log10(meter.gain) == pytest.approx(gain, abs=0.1)
  assert meter.is_silent == (level == -80)


def test_pauses_do_not_count_and_later_parts_count_more():
  assert meter_of(-30, -90, -30).level == pytest.approx(-30, abs=0.1)
  assert meter_of(-40, -20, seconds=300).level == pytest.approx(-20, abs=0.1)
  assert meter_of(-20, -40, seconds=300).level == pytest.approx(-37.8, abs=0.5)
  assert QUIETEST < -20 < LOUDEST


def test_no_audio_is_silent():
  meter = LevelMeter(16000)
  meter.add(np.zeros(0, np.float32))
  assert meter.level is None and meter.gain == 1.0 and meter.is_silent
