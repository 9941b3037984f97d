"""Playing stored notes: pitch, duration, velocity, loops, expression."""

import numpy as np
import pytest

from mrmt3.dataset_builder.note_loops import make_playable
from mrmt3.dataset_builder.performance import PERFORMANCE_DTYPE, plain_performance
from mrmt3.dataset_builder.sampled_voice import SampledVoice, continued
from mrmt3.dataset_builder.sound_checks import RATE
from mrmt3.dataset_builder.sound_store import StoreWriter, read_store, store_folder
from mrmt3.notes.note_array import empty_notes


def tone(pitch, seconds, decay=0.0, cents=0.0):
  times = np.arange(round(seconds * RATE)) / RATE
  f0 = 440 * 2 ** ((pitch - 69 + cents / 100) / 12)
  audio = sum(np.sin(2 * np.pi * f0 * h * times) / h for h in range(1, 5) if f0 * h < 7500)
  return (0.3 * audio * np.exp(-decay * times)).astype(np.float32)


def frequency_at(audio, second, seconds=0.25):
  part = audio[round(second * RATE) : round((second + seconds) * RATE)]
  spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 18))
  return np.argmax(spectrum) * RATE / (1 << 18)


def cents_from(frequency, pitch):
  return 1200 * np.log2(frequency / (440 * 2 ** ((pitch - 69) / 12)))


@pytest.fixture
def voice(tmp_path, monkeypatch):
  monkeypatch.setenv('MRMT3_CACHE', str(tmp_path))
  writer = StoreWriter()
  notes = [(pitch, 90, 0.0, make_playable(tone(pitch, 2.0), 2.0, 40, False)) for pitch in (57, 61, 65)]
  writer.add_preset(40, False, 'violin', 0, notes)
  writer.write(
    store_folder('tones'),
    name='tones', kind='recorded', licence='CC0-1.0', attribution='', held_out='', key='', dropped=[], shared=[],
  )  # fmt: skip
  source = read_store('tones')
  return SampledVoice(source, source.presets[0])


def table(*rows):
  notes = empty_notes(len(rows))
  for note, (onset, offset, pitch, velocity) in zip(notes, rows, strict=True):
    note['onset'], note['offset'], note['pitch'], note['velocity'] = onset, offset, pitch, velocity
  return notes


@pytest.mark.parametrize('pitch', [53, 57, 59, 70])
def test_a_note_has_its_pitch(voice, pitch):
  audio = voice.render(table((0.0, 1.0, pitch, 90)), None, 2.0)
  assert abs(cents_from(frequency_at(audio, 0.3), pitch)) < 3


def test_a_note_lasts_beyond_its_sample_without_clicks(voice):
  audio = voice.render(table((0.0, 7.0, 57, 90)), None, 8.0)
  levels = [np.sqrt(np.mean(audio[round(at * RATE) : round((at + 0.1) * RATE)] ** 2)) for at in (1, 3, 5, 6.5)]
  assert max(levels) < 1.1 * min(levels)
  assert np.abs(np.diff(audio, 2)).max() < 1.2 * np.abs(np.diff(tone(57, 1.0), 2)).max()
  assert abs(cents_from(frequency_at(audio, 5.0), 57)) < 3


def test_a_note_ends_with_its_release(voice):
  audio = voice.render(table((0.5, 1.0, 57, 90)), None, 3.0)
  assert not audio[: round(0.49 * RATE)].any()
  assert np.abs(audio[round(1.8 * RATE) :]).max() < 0.01 * np.abs(audio).max()


def test_velocity_is_loudness(voice):
  loud, soft = (np.abs(voice.render(table((0, 1, 57, v)), None, 1.5)).max() for v in (120, 60))
  assert loud > 2 * soft


def test_vibrato_scoop_and_bend_move_the_pitch(voice):
  notes = table((0.0, 3.0, 61, 90))
  performance = plain_performance(1)
  performance['scoop'], performance['scoop_time'], performance['bend'] = -0.4, 0.4, 0.5
  audio = voice.render(notes, performance, 4.0)
  early, middle, late = (cents_from(frequency_at(audio, at, 0.2), 61) for at in (0.0, 1.0, 2.75))
  assert early < -15 and abs(middle) < 4 and 40 < late < 54
  performance = np.zeros(1, PERFORMANCE_DTYPE)
  performance['vibrato_rate'], performance['vibrato_depth'] = 5.0, 0.3
  audio = voice.render(notes, performance, 4.0)
  tracked = [cents_from(frequency_at(audio, at, 0.06), 61) for at in np.arange(1.0, 2.0, 0.02)]
  assert 15 < (max(tracked) - min(tracked)) / 2 < 35


def test_zero_expression_changes_nothing(voice):
  notes = table((0.0, 1.0, 60, 90), (0.5, 2.0, 64, 70))
  assert np.array_equal(voice.render(notes, None, 3.0), voice.render(notes, plain_performance(2), 3.0))


def test_the_range_is_limited(voice):
  assert voice.can_play(52, 70)
  assert not voice.can_play(51, 70)
  assert not voice.can_play(57, 71)


def test_a_decaying_note_goes_on_decaying():
  stored = make_playable(tone(40, 4.0, decay=0.7), 4.0, 0, False)
  audio = continued(stored, 8 * RATE)
  levels = [np.sqrt(np.mean(audio[at * RATE : (at + 1) * RATE] ** 2)) for at in (3, 5, 7)]
  assert levels[0] > 2 * levels[1] > 4 * levels[2] > 0
