"""Examples with effects: off means unchanged, labels follow the audio, the same seed gives the same examples."""

import dataclasses

import numpy as np
import pytest
import seqio

from mrmt3.audio.effects import EffectsConfig
from mrmt3.audio.effects.config import effect_names
from mrmt3.data.example_config import NO_PRIOR, ExampleConfig
from mrmt3.data.examples import Library, Part, Window
from mrmt3.data.piece_source import PieceContent
from mrmt3.errors import UserError
from mrmt3.notes import note_array as note_tables
from mrmt3.tasks import slakh as slakh_task
from mrmt3.tasks.registration import LIBRARIES, _config_repr

FRAMES = 64
# Clicks a quarter of a second apart, each with a note: one stem with a clean guitar, one with a piano.
ONSETS = np.arange(0.1, 7.9, 0.25)


@dataclasses.dataclass(frozen=True)
class Clicks:
  """A source of one piece of 8 s: a click and a note at each of ONSETS; even ones on a guitar, odd ones on a piano."""

  def splits(self):
    return ('train',)

  def list_pieces(self, split):
    return ['clicks']

  def fingerprint(self, split):
    return ''

  def read_piece(self, split, name, sample_rate, stems=False):
    samples = np.zeros((2, 8 * sample_rate), np.float32)
    rows = []
    time = np.arange(round(0.1 * sample_rate)) / sample_rate
    for number, onset in enumerate(ONSETS):
      start = round(onset * sample_rate)
      samples[number % 2, start : start + len(time)] += 0.4 * np.exp(-60 * time) * np.cos(2 * np.pi * 1000 * time)
      rows.append((onset, onset + 0.1, 60 + number % 12, 100, 0 if number % 2 else 26, 0))
    notes = note_tables.as_notes(rows)
    if not stems:
      return PieceContent(samples.sum(axis=0), notes)
    return PieceContent(samples.sum(axis=0), notes, samples, (notes['program'] == 0).astype(np.int32))


def library_of(tmp_path, small_spec, **probabilities):
  effects = EffectsConfig(**probabilities) if probabilities else None
  return Library(Clicks(), small_spec, ExampleConfig(effects=effects), str(tmp_path))


def onsets_in(samples, rate=16000):
  """Return the times of clicks, s."""
  block = 16
  loud = np.abs(samples[: len(samples) // block * block]).reshape(-1, block).max(axis=1)
  recent = np.convolve(loud, np.ones(20) / 20)[: len(loud)]
  recent = np.concatenate([np.full(1, recent[0]), recent[:-1]])
  starts = np.flatnonzero((loud > 0.1) & (recent < 0.02))
  return starts[np.diff(starts, prepend=-100) > 50] * block / rate


def token_onsets(library, tokens):
  """Return the times at which notes begin, s, of target tokens, and their programs."""
  from mrmt3.inspection import statistics

  notes = statistics.segment_notes(tokens, library.codec, FRAMES * 256 / 16000)
  return np.array(sorted(notes['onset'].tolist())), set(notes['program'].tolist())


def test_without_effects_everything_is_as_before(tmp_path, small_spec):
  plain, off = (
    library_of(tmp_path, small_spec),
    Library(Clicks(), small_spec, ExampleConfig(effects=EffectsConfig()), str(tmp_path)),
  )
  for start in (0, 40, 100):
    window = Window((Part(0, start),), FRAMES, (NO_PRIOR,), (start, 1))
    assert plain.samples('train', window).tobytes() == off.samples('train', off.drawn('train', window)).tobytes()
    np.testing.assert_array_equal(plain.tokens('train', window)[0], off.tokens('train', off.drawn('train', window))[0])
  assert 'effects' not in _config_repr(ExampleConfig())  # names of tasks, and so the data of older runs, stay
  assert 'effects' in _config_repr(ExampleConfig(effects=EffectsConfig()))


@pytest.mark.parametrize('effects', [{'detune': 1.0}, {'tape_speed': 1.0}, {'detune': 1.0, 'tape_speed': 1.0}])
def test_labels_follow_the_speed(tmp_path, small_spec, effects):
  library = library_of(tmp_path, small_spec, **effects)
  moved = 0
  for seed in range(12):
    # The window's last onsets move the most: 64 frames are 1.02 s, of which 2.6 % are 27 ms.
    window = library.drawn('train', Window((Part(0, 97),), FRAMES, (97 - FRAMES,), (seed,)))
    (part,) = window.parts
    assert 0 < abs(part.detune) <= 0.45
    samples = library.samples('train', window).reshape(-1)
    wanted = ONSETS - 97 * 256 / 16000
    wanted = wanted[(wanted > 0.02) & (wanted / part.speed < FRAMES * 256 / 16000 - 0.03)] / part.speed
    found = onsets_in(samples)
    assert len(found) >= len(wanted)
    for onset in wanted:
      assert np.abs(found - onset).min() < 0.002
    tokens, _ = token_onsets(library, library.tokens('train', window)[0])
    for onset in wanted:
      assert np.abs(tokens - onset).min() < 0.011  # half a step of 10 ms, and the click's length
    moved = max(moved, abs(part.speed - 1))
  assert moved > 0.005


def test_amplified_guitars_are_labelled_distorted(tmp_path, small_spec):
  library = library_of(tmp_path, small_spec, amplifier=1.0)
  plain = Library(Clicks(), small_spec, ExampleConfig(), str(tmp_path / 'plain'))
  programs = []
  for seed in range(12):
    window = library.drawn('train', Window((Part(0, 97),), FRAMES, (NO_PRIOR,), (seed,)))
    (part,) = window.parts
    _, found = token_onsets(library, library.tokens('train', window)[0])
    programs.append(found)
    changed, clean = library.samples('train', window), plain.samples('train', Window((Part(0, 97),), FRAMES))
    if part.stem_effect is None:
      assert found == {0, 26}
      np.testing.assert_allclose(changed, clean, atol=1e-4)
    else:
      assert found == {0, 29} and part.processed.tolist() == [True, False]
      assert np.abs(changed - clean).max() > 0.01
  assert {0, 29} in programs and {0, 26} in programs


def test_the_amplifier_needs_stems(tmp_path, small_spec):
  @dataclasses.dataclass(frozen=True)
  class Mixed(Clicks):
    def read_piece(self, split, name, sample_rate, stems=False):
      return super().read_piece(split, name, sample_rate)

  library = Library(Mixed(), small_spec, ExampleConfig(effects=EffectsConfig(amplifier=0.5)), str(tmp_path))
  with pytest.raises(UserError, match=r'EffectsConfig\.amplifier: no piece of .* has stems'):
    library.open('train')


def test_reverberation_of_what_came_before_is_in_the_example(tmp_path, small_spec):
  dry, wet = library_of(tmp_path, small_spec), library_of(tmp_path, small_spec, reverb=1.0)
  # From 20 ms before a click: what precedes it in the window is the tail of the clicks before the window.
  start = round((ONSETS[10] - 0.02) * 16000 / 256)
  window = Window((Part(0, start),), FRAMES, (NO_PRIOR,), (3,))
  quiet, reverberant = (x.samples('train', window).reshape(-1)[:200] for x in (dry, wet))
  assert np.abs(quiet).max() < 1e-4 < np.abs(reverberant).max()


def test_the_same_seed_gives_the_same_examples_and_a_run_resumes(small_data, small_spec):
  probabilities = dict.fromkeys(effect_names(), 0.5)
  config = ExampleConfig(effects=EffectsConfig(**probabilities), max_pieces_per_mix=3, stem_subset_rate=0.5)
  name = slakh_task.task(str(small_data), small_spec, config)
  lengths = {'inputs': 32, 'targets': 64, 'prior_targets': 64}

  def read(count):
    task = seqio.get_mixture_or_task(name)
    dataset = task.get_dataset(lengths, split='train', shuffle=True, seed=4, num_epochs=None)
    return list(dataset.take(count).as_numpy_iterator())

  first, again = read(6), read(6)
  for one, other in zip(first, again, strict=True):
    assert one['inputs'].tobytes() == other['inputs'].tobytes() and np.isfinite(one['inputs']).all()
    np.testing.assert_array_equal(one['targets'], other['targets'])
  task = seqio.get_mixture_or_task(name)
  with task.source.starting_at(int(first[3]['example_id'][2])):
    later = read(2)
  for one, other in zip(first[3:5], later, strict=True):
    assert one['inputs'].tobytes() == other['inputs'].tobytes()
  assert LIBRARIES[name].config.effects == config.effects


def test_mistakes_are_named():
  with pytest.raises(UserError, match='effects'):
    ExampleConfig(effects={'reverb': 1.0})
  with pytest.raises(UserError, match=r'sampling.*effects need'):
    ExampleConfig(effects=EffectsConfig(reverb=1.0), sampling='pieces')
