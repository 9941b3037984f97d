"""The Slakh task: what an example holds, where its prior segment lies, and that randomness follows the seed."""

import collections

import numpy as np
import pytest
import seqio
import tensorflow as tf

from mrmt3 import preprocessors, segment_tokens, slakh, spectrograms
from mrmt3.audio_io import read_audio
from mrmt3.errors import UserError
from mrmt3.tasks import slakh as slakh_task

FRAMES = 32
LENGTHS = {'inputs': FRAMES, 'targets': 64, 'prior_targets': 64}
EMPTY = [1134, 1]


def examples(name, *, split='train', shuffle=False, seed=0, epochs=1, lengths=LENGTHS, shard=None, count=None):
  dataset = seqio.get_mixture_or_task(name).get_dataset(
      lengths, split=split, shuffle=shuffle, seed=seed, num_epochs=epochs, shard_info=shard
  )
  return list(dataset.take(count or -1).as_numpy_iterator())


def key(example):
  return example['track'].decode(), int(example['start_frame'])


def test_grid_examples_are_the_segments_of_inference(small_data, small_spec):
  found = examples(slakh_task.task(str(small_data), small_spec, sampling='grid'), split='test')
  (track,) = slakh.find_tracks(small_data, 'test')
  samples = read_audio(track.audio_path)
  cut, valid = spectrograms.piece_segments(samples, small_spec.spectrogram, FRAMES)
  inputs = spectrograms.clear_invalid_frames(spectrograms.compute_spectrogram(cut, small_spec.spectrogram), valid)
  assert [example['start_frame'] for example in found] == list(range(0, FRAMES * len(cut), FRAMES))
  np.testing.assert_allclose([example['inputs'] for example in found], inputs, atol=1e-5)


def test_prior_targets_are_the_tokens_of_that_window(small_data, small_spec):
  found = examples(slakh_task.task(str(small_data), small_spec, sampling='random', max_hop=3), epochs=3)
  store = preprocessors.TrackStore(small_spec)
  encode = preprocessors.segment_encoder(store)
  with_prior = 0
  for example in found:
    prior, start = int(example['prior_start_frame']), int(example['start_frame'])
    np.testing.assert_array_equal(example['targets'], encode(example['track'].decode(), start, None))
    if prior == preprocessors.NO_PRIOR:
      assert example['prior_targets'].tolist() == EMPTY
    else:
      assert (start - prior) % FRAMES == 0 and 1 <= (start - prior) // FRAMES <= 3
      np.testing.assert_array_equal(example['prior_targets'], encode(example['track'].decode(), prior, None))
      with_prior += 1
  assert with_prior > len(found) // 5


def test_a_prior_segment_may_begin_at_frame_0(small_data, small_spec):
  second = examples(slakh_task.task(str(small_data), small_spec, sampling='grid'), split='test')[1]
  assert second['prior_start_frame'] == 0
  assert second['prior_targets'].tolist() != EMPTY


def test_hops_are_drawn_uniformly():
  records = tf.data.Dataset.from_tensors({'start_frame': tf.constant(100 * FRAMES)}).repeat(3000)
  with seqio.utils.map_seed_manager(7):
    found = preprocessors.add_prior_segment(records, segment_frames=FRAMES, max_hop=4)
  hops = collections.Counter(int(100 - x['prior_start_frame'] // FRAMES) for x in found.as_numpy_iterator())
  assert sorted(hops) == [1, 2, 3, 4]
  # Five standard deviations of a count of 3000 / 4.
  assert all(abs(count - 750) < 5 * np.sqrt(3000 * 0.25 * 0.75) for count in hops.values())


def test_memory_dropout_empties_prior_segments():
  records = tf.data.Dataset.from_tensors({'start_frame': tf.constant(100 * FRAMES)}).repeat(3000)
  with seqio.utils.map_seed_manager(7):
    found = preprocessors.add_prior_segment(records, segment_frames=FRAMES, max_hop=4, memory_dropout=0.25)
  empty = sum(int(x['prior_start_frame']) == preprocessors.NO_PRIOR for x in found.as_numpy_iterator())
  assert abs(empty - 750) < 5 * np.sqrt(3000 * 0.25 * 0.75)


def test_random_starts_cover_the_piece_and_its_tail():
  records = tf.data.Dataset.from_tensors({'frames': tf.constant(100), 'start_frame': tf.constant(0)}).repeat(3000)
  with seqio.utils.map_seed_manager(7):
    found = preprocessors.draw_start_frame(records, segment_frames=FRAMES)
  starts = [int(x['start_frame']) for x in found.as_numpy_iterator()]
  assert min(starts) == 0 and max(starts) == 100 - FRAMES and len(set(starts)) == 100 - FRAMES + 1


def test_targets_and_prior_targets_are_shuffled_independently(small_data, small_spec):
  """Twin pieces have no simultaneous events, so a hand-made chord shows it."""
  from mrmt3 import notes as note_tables

  rows = [(0.1, 0.2, pitch, 100, 0, 0) for pitch in range(60, 72)]
  rows += [(onset + FRAMES * 256 / 16000, offset + FRAMES * 256 / 16000, *rest) for onset, offset, *rest in rows]
  store = preprocessors.TrackStore(small_spec)
  events = segment_tokens.encode_piece(note_tables.as_notes(rows), store.codec)
  store._tracks['chords'] = np.zeros(3 * FRAMES * 256, np.float32), events
  record = {'track': 'chords', 'start_frame': FRAMES, 'prior_start_frame': 0}
  with seqio.utils.map_seed_manager(3):
    dataset = preprocessors.add_targets(tf.data.Dataset.from_tensors(record), store, None, shuffle_scope='paper')
  (example,) = dataset.as_numpy_iterator()
  plain = preprocessors.segment_encoder(store)('chords', 0, None)
  for name in ('targets', 'prior_targets'):
    assert sorted(example[name]) == sorted(plain) and example[name].tolist() != plain.tolist()
  assert example['targets'].tolist() != example['prior_targets'].tolist()


def test_same_seed_same_examples_and_each_epoch_is_new(small_data, small_spec):
  name = slakh_task.task(str(small_data), small_spec, sampling='random', max_hop=2)
  runs = [[key(e) for e in examples(name, shuffle=True, seed=seed, epochs=2)] for seed in (5, 5, 6)]
  assert runs[0] == runs[1] != runs[2]
  half = len(runs[0]) // 2
  assert runs[0][:half] != runs[0][half:]


def test_shards_cover_everything_once(small_data, small_spec):
  name = slakh_task.task(str(small_data), small_spec, sampling='grid')
  whole = sorted(map(key, examples(name)))
  parts = [examples(name, shuffle=True, seed=3, shard=seqio.ShardInfo(index, 3)) for index in range(3)]
  assert sorted(key(example) for part in parts for example in part) == whole


def test_segments_that_do_not_fit_are_skipped_aloud_or_stop(small_data, small_spec, caplog):
  short = {**LENGTHS, 'targets': 10}
  kept = examples(slakh_task.task(str(small_data), small_spec, sampling='grid'), lengths=short)
  assert kept and all(len(example['targets']) <= 10 for example in kept)
  assert 'do not fit 10' in caplog.text
  strict = slakh_task.task(str(small_data), small_spec, sampling='grid', on_overflow='error')
  with pytest.raises(tf.errors.OpError, match='do not fit 10'):
    examples(strict, lengths=short)


def test_nothing_that_fits_is_an_error_not_an_endless_loop(small_data, small_spec, monkeypatch):
  monkeypatch.setattr(preprocessors, 'MOST_SKIPPED', 50)
  name = slakh_task.task(str(small_data), small_spec, sampling='random')
  with pytest.raises(tf.errors.OpError, match='do not fit 3'):
    examples(name, lengths={**LENGTHS, 'targets': 3}, epochs=None, shuffle=True, count=1)


def test_segments_meet_whatever_the_hop(small_spec):
  """Steps of segment borders are exact: float arithmetic would be a step off for some frames at a hop of 120."""
  import dataclasses

  config = dataclasses.replace(small_spec.spectrogram, hop_width=120)
  codec = preprocessors.TrackStore(small_spec).codec
  for frame in range(0, 20_000, 7):
    exact = frame * 120 * 100 // 16000
    assert segment_tokens.covering_step(frame, codec, config.frames_per_second) == exact


def test_features_for_the_network(small_data, small_spec):
  from mrmt3.feature_converters import MemoryFeatureConverter

  name = slakh_task.task(str(small_data), small_spec, sampling='grid')
  dataset = seqio.get_dataset(name, LENGTHS, MemoryFeatureConverter(pack=False), dataset_split='test', verbose=False)
  example = list(dataset.as_numpy_iterator())[1]
  targets = example['decoder_target_tokens']
  assert {name: x.shape for name, x in example.items()} == {
      'encoder_input_tokens': (FRAMES, 32), 'decoder_target_tokens': (64,), 'decoder_input_tokens': (64,),
      'decoder_loss_weights': (64,), 'prior_tokens': (64,),
  }  # fmt: skip
  assert example['decoder_input_tokens'][0] == 0
  np.testing.assert_array_equal(example['decoder_input_tokens'][1:], targets[:-1])
  np.testing.assert_array_equal(example['decoder_loss_weights'], targets > 0)
  assert targets[targets > 0][-1] == 1


def test_mistakes_are_named(small_data, small_spec, tmp_path):
  with pytest.raises(UserError, match='sampling'):
    slakh_task.task(str(small_data), small_spec, sampling='all')
  with pytest.raises(UserError, match='on_overflow'):
    slakh_task.task(str(small_data), small_spec, on_overflow='eror')
  with pytest.raises(UserError, match='shuffle_scope'):
    slakh_task.task(str(small_data), small_spec, shuffle_scope='papr')
  with pytest.raises(UserError, match='max_hop'):
    slakh_task.task(str(small_data), small_spec, max_hop=0)
  with pytest.raises(UserError, match='no such folder'):
    examples(slakh_task.task(str(tmp_path / 'nowhere'), small_spec))


def test_store_forgets_the_least_recently_used_track(small_data, small_spec):
  folders = [str(track.path) for track in slakh.find_tracks(small_data, 'train')]
  samples, _ = preprocessors.TrackStore(small_spec).get(folders[0])
  store = preprocessors.TrackStore(small_spec, max_bytes=2 * samples.nbytes)
  for folder in (folders[0], folders[1], folders[0], folders[2]):
    store.get(folder)
  assert list(store._tracks) == [folders[0], folders[2]]
