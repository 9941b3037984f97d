"""Tests of the tasks over a folder: features of examples, positions of prior segments, reproducible randomness."""

import collections
import dataclasses
import gc
import itertools
import shutil

import numpy as np
import pytest
import seqio
import seqio_records
import tensorflow as tf

from mrmt3 import spectrograms, vocabularies
from mrmt3.audio.files import read_audio
from mrmt3.data import seqio_preprocessors, slakh_layout
from mrmt3.data.example_config import NO_PRIOR, ExampleConfig
from mrmt3.data.examples import Library, Part, Window
from mrmt3.data.piece_source import PieceContent
from mrmt3.data.seqio_source import SegmentSource
from mrmt3.data.sources.slakh import SlakhFolder
from mrmt3.errors import UserError
from mrmt3.notes import note_array as note_tables
from mrmt3.notes.note_array import trim_overlapping_notes
from mrmt3.tasks import slakh as slakh_task
from mrmt3.tasks.registration import LIBRARIES
from mrmt3.tokens import segment_targets

FRAMES = 32
LENGTHS = {'inputs': FRAMES, 'targets': 64, 'prior_targets': 64}
EMPTY = [1134, 1]


def examples(name, *, split='train', shuffle=False, seed=0, epochs=1, lengths=LENGTHS, shard=None, count=None):
  dataset = seqio.get_mixture_or_task(name).get_dataset(
    lengths, split=split, shuffle=shuffle, seed=seed, num_epochs=epochs, shard_info=shard
  )
  return list(dataset.take(count or -1).as_numpy_iterator())


def register(data, spec, **fields):
  return slakh_task.task(str(data), spec, ExampleConfig(**fields))


def key(example):
  return example['piece'].decode(), int(example['start_frame'])


def test_grid_examples_are_the_segments_of_inference(small_data, small_spec):
  found = examples(register(small_data, small_spec, sampling='grid'), split='test')
  (track,) = slakh_layout.find_tracks(small_data, 'test')
  samples = read_audio(track.audio_path)
  cut, valid = spectrograms.piece_segments(samples, small_spec.spectrogram, FRAMES)
  inputs = spectrograms.clear_invalid_frames(spectrograms.compute_spectrogram(cut, small_spec.spectrogram), valid)
  assert [example['start_frame'] for example in found] == list(range(0, FRAMES * len(cut), FRAMES))
  for example, wanted, frames in zip(found, inputs, valid, strict=True):
    assert len(example['inputs']) == frames
    np.testing.assert_allclose(example['inputs'], wanted[:frames], atol=1e-5)


def test_whole_pieces_are_the_segments_of_inference(small_data, small_spec):
  (piece,) = examples(register(small_data, small_spec, sampling='pieces'), split='test', lengths=None)
  grid = examples(register(small_data, small_spec, sampling='grid'), split='test')
  (track,) = slakh_layout.find_tracks(small_data, 'test')
  inputs = spectrograms.segment_inputs(read_audio(track.audio_path), small_spec.spectrogram, FRAMES)
  np.testing.assert_allclose(piece['inputs'], inputs, atol=1e-5)
  assert piece['targets'].shape == (len(grid), small_spec.targets_length) and piece['piece'] == b'Track00000'
  for row, example in zip(piece['targets'], grid, strict=True):
    np.testing.assert_array_equal(row[: len(example['targets'])], example['targets'])
    assert not row[len(example['targets']) :].any()
  np.testing.assert_array_equal(note_tables.as_notes(piece['notes']), slakh_layout.read_notes(track))


def test_prior_targets_are_the_tokens_of_that_window(small_data, small_spec):
  found = examples(register(small_data, small_spec, max_hop=3), epochs=3)
  codec = vocabularies.build_codec(small_spec.vocabulary)
  with_prior = 0
  for example in found:
    track = slakh_layout.Track(small_data / 'train' / example['piece'].decode())
    piece = segment_targets.encode_piece(trim_overlapping_notes(slakh_layout.read_notes(track)), codec)

    def tokens(start, piece=piece, frames=int(example['frames'])):
      fps = small_spec.spectrogram.frame_rate
      return segment_targets.segment_targets(
        piece, start, FRAMES, codec=codec, frames_per_second=fps, piece_frames=frames
      )

    (prior,), start = example['prior_starts'], int(example['start_frame'])
    np.testing.assert_array_equal(example['targets'], tokens(start))
    if prior == NO_PRIOR:
      assert example['prior_targets'].tolist() == EMPTY and start < example['hop'] * FRAMES
    else:
      assert start - prior == example['hop'] * FRAMES
      np.testing.assert_array_equal(example['prior_targets'], tokens(int(prior)))
      with_prior += 1
  assert with_prior > len(found) // 5


def test_a_prior_segment_may_begin_at_frame_0(small_data, small_spec):
  second = examples(register(small_data, small_spec, sampling='grid'), split='test')[1]
  assert second['prior_starts'].tolist() == [0]
  assert second['prior_targets'].tolist() != EMPTY


def test_several_prior_segments_follow_each_other(small_data, small_spec):
  found = examples(
    register(small_data, small_spec, sampling='grid', prior_segments=2),
    split='test',
    lengths={**LENGTHS, 'prior_targets': 128},
  )
  assert [example['prior_starts'].tolist() for example in found[:3]] == [[-1, -1], [-1, 0], [0, FRAMES]]
  for index, example in enumerate(found[2:], 2):
    for half, wanted in zip(np.split(example['prior_targets'], 2), found[index - 2 : index], strict=True):
      np.testing.assert_array_equal(half[half > 0], wanted['targets'])


@pytest.mark.parametrize(
  'sampling, chunk, low, high', [('random', (0, 100), 0, 68), ('mr_mt3', (40, 140), 40, 108), ('random', (0, 20), 0, 0)]
)
def test_starts_cover_all_full_segments(sampling, chunk, low, high):
  dataset = seqio_records.records(3000, chunk_start=chunk[0], chunk_end=chunk[1], frames=chunk[1])
  found = seqio_preprocessors.draw_window(dataset, segment_frames=FRAMES, sampling=sampling)
  starts = {(int(x['start_frame']), int(x['num_frames'])) for x in found.as_numpy_iterator()}
  assert starts == {(start, FRAMES) for start in range(low, high + 1)}


def test_mt3_segments_may_be_cut_short_at_either_end():
  dataset = seqio_records.records(5000, chunk_start=40, chunk_end=140)
  found = seqio_preprocessors.draw_window(dataset, segment_frames=FRAMES, sampling='mt3')
  windows = {(int(x['start_frame']), int(x['num_frames'])) for x in found.as_numpy_iterator()}
  wanted = {(max(s, 40), min(s + FRAMES, 140) - max(s, 40)) for s in range(40 - FRAMES + 1, 140)}
  assert windows == wanted


def test_published_chunks_leave_out_the_tail(small_data, small_spec, monkeypatch):
  from mrmt3.data import seqio_source

  for width, sampling, chunks in (  # these pieces have 129 frames
    (50, 'mr_mt3', [(0, 50), (50, 100)]),
    (50, 'mt3', [(0, 50), (50, 100), (100, 129)]),
    (43, 'mr_mt3', [(0, 43), (43, 86)]),  # three chunks exactly: the last one is left out
    (43, 'mt3', [(0, 43), (43, 86), (86, 129)]),
    (200, 'mr_mt3', [(0, 129)]),
    (200, 'mt3', [(0, 129)]),
  ):
    monkeypatch.setattr(seqio_source, 'CHUNK_FRAMES', width)
    name = register(small_data, small_spec, sampling=sampling)
    seqio.TaskRegistry.get(name).source._tables.clear()
    found = examples(name, split='test')
    assert [(x['chunk_start'], x['chunk_end']) for x in found] == chunks


def chord_library(small_data, small_spec, **fields):
  """Return a library whose first training piece is two chords of 12 notes, a segment apart."""
  library = Library(SlakhFolder(str(small_data)), small_spec, ExampleConfig(**fields))
  rows = [(0.1, 0.2, pitch, 100, 0, 0) for pitch in range(60, 72)]
  rows += [(onset + FRAMES * 256 / 16000, offset + FRAMES * 256 / 16000, *rest) for onset, offset, *rest in rows]
  events = segment_targets.encode_piece(note_tables.as_notes(rows), library.codec)
  store, _ = library.open('train')

  class Chords:
    def events(self, index):
      return events

  library._splits['train'] = store, Chords()
  return library


def test_targets_and_prior_targets_are_shuffled_independently(small_data, small_spec):
  plain, _ = chord_library(small_data, small_spec).tokens('train', Window((Part(0, 0),), FRAMES))
  library = chord_library(small_data, small_spec, shuffle_scope='paper')
  targets, (prior,) = library.tokens('train', Window((Part(0, FRAMES),), FRAMES, (0,), (1, 2)))
  for tokens in (targets, prior):
    assert sorted(tokens) == sorted(plain) and tokens.tolist() != plain.tolist()
  assert targets.tolist() != prior.tolist()


def test_corrupted_prior_tokens_leave_targets_alone(small_data, small_spec):
  clean = examples(register(small_data, small_spec, sampling='grid'), split='test')
  dropped = examples(register(small_data, small_spec, sampling='grid', prior_drop=1.0), split='test')
  for a, b in zip(clean, dropped, strict=True):
    np.testing.assert_array_equal(a['targets'], b['targets'])
    assert not any(1004 <= token <= 1131 or token >= 1263 for token in b['prior_targets'])


def test_same_seed_same_examples_and_each_epoch_is_new(small_data, small_spec):
  name = register(small_data, small_spec, max_hop=2)
  runs = [[key(e) for e in examples(name, shuffle=True, seed=seed, epochs=2)] for seed in (5, 5, 6)]
  assert runs[0] == runs[1] != runs[2]
  half = len(runs[0]) // 2
  assert runs[0][:half] != runs[0][half:]


@pytest.mark.parametrize('hosts', [1, 2, 4, 8])
@pytest.mark.parametrize('sampling', ['grid', 'random'])
def test_hosts_share_an_epoch_without_overlap_or_loss(small_data, small_spec, hosts, sampling):
  name = register(small_data, small_spec, sampling=sampling, shuffle_scope='paper')
  whole = examples(name, shuffle=True, seed=3)
  parts = [examples(name, shuffle=True, seed=3, shard=seqio.ShardInfo(index, hosts)) for index in range(hosts)]
  # For any number of hosts, the examples are the same in the same order; hosts take turns.
  for position, example in enumerate(whole):
    other = parts[position % hosts][position // hosts]
    assert key(example) == key(other)
    np.testing.assert_array_equal(example['targets'], other['targets'])
  assert sum(map(len, parts)) == len(whole)
  if sampling == 'grid':
    assert len(set(map(key, whole))) == len(whole)


def batches(name, lengths=LENGTHS, size=4, shard=None):
  from mrmt3.data.feature_converters import MemoryFeatureConverter

  return seqio.get_dataset(
    name,
    lengths,
    MemoryFeatureConverter(pack=False),
    dataset_split='train',
    shuffle=True,
    num_epochs=None,
    seed=11,
    verbose=False,
    shard_info=shard,
  ).batch(size)


def training(name, **fields):
  from mrmt3.engine import utils

  settings = dict(task_feature_lengths=LENGTHS, split='train', batch_size=4, shuffle=True, seed=11) | fields
  return utils.DatasetConfig(mixture_or_task_name=name, **settings)


def iterator_of(config):
  from mrmt3.data.feature_converters import MemoryFeatureConverter
  from mrmt3.engine import utils
  from mrmt3.training.data_iterator import DataIterator

  dataset = utils.get_dataset(config, MemoryFeatureConverter, seed=0)
  return DataIterator(dataset, utils.dataset_from(config, MemoryFeatureConverter, 0))


def test_data_without_a_known_position_starts_over(tmp_path, capsys):
  """Like magenta/mt3's tasks, which split records in a Python function."""
  import tensorflow as tf

  from mrmt3.checkpoints import orbax as orbax_checkpoints
  from mrmt3.training import data_position
  from mrmt3.training.data_iterator import DataIterator

  def batches():
    return DataIterator(
      tf.data.Dataset.from_generator(lambda: iter(range(8)), tf.int64).map(lambda x: {'x': x}).batch(2)
    )

  first = batches()
  next(first)
  files = data_position.position_files(first, [{'loss': 2.0}], 'these')
  assert set(files) == {data_position.PROGRESS_NAME}
  folder = orbax_checkpoints.checkpoint_folder(tmp_path, 5)
  folder.mkdir()
  for name, content in files.items():
    (folder / name).write_bytes(content)
  again = batches()
  assert data_position.restore_position(again, tmp_path, 5, 'these') == [{'loss': 2.0}]
  assert 'could not save the position' in capsys.readouterr().err
  np.testing.assert_array_equal(next(again)['x'], [0, 1])


@pytest.mark.parametrize('steps', [0, 1, 2, 5, 11, 17])
@pytest.mark.parametrize(
  'fields, size, lengths',
  [
    ({}, 4, LENGTHS),
    ({}, 5, LENGTHS),
    ({'length_block': 12, 'length_group': 4}, 4, LENGTHS),
    ({'length_block': 12, 'length_group': 4}, 4, {**LENGTHS, 'targets': 12}),  # some records give no example
    ({'max_pieces_per_mix': 2}, 3, {**LENGTHS, 'targets': 256, 'prior_targets': 256}),
  ],
)
def test_an_iterator_resumes_exactly_at_its_position(small_data, small_spec, tmp_path, steps, fields, size, lengths):
  """Also at the end of an epoch, which has 15 examples."""
  data = small_data
  if lengths['targets'] < LENGTHS['targets']:
    data = tmp_path / 'own'  # a copy, because another test checks the counts of segments with too many tokens
    shutil.copytree(small_data, data)
  name = register(data, small_spec, max_hop=2, shuffle_scope='paper', **fields)
  config = training(name, batch_size=size, task_feature_lengths=lengths)
  first = iterator_of(config)
  for _ in range(steps):
    next(first)
  files = first.save('here')
  assert sum(map(len, files.values())) < 100
  for file, content in files.items():
    (tmp_path / file).write_bytes(content)
  again = iterator_of(config)
  again.restore(tmp_path, 'here')
  for _ in range(20):
    wanted, found = next(first), next(again)
    assert wanted.keys() == found.keys()
    for feature, value in wanted.items():
      np.testing.assert_array_equal(value, found[feature])
  assert first.save('') == again.save('')


@pytest.mark.parametrize('content', [None, b'{', b'[]', b'{"record": "x", "examples": 1}', b'{"record": 1}'])
def test_a_position_that_cannot_be_read_is_one_line(small_data, small_spec, tmp_path, content):
  iterator = iterator_of(training(register(small_data, small_spec)))
  if content is not None:
    (tmp_path / 'here.json').write_bytes(content)
  with pytest.raises(UserError, match='position in the data'):
    iterator.restore(tmp_path, 'here')


@pytest.mark.parametrize('shard', [None, (0, 2), (1, 2)])
def test_a_stream_of_records_can_begin_anywhere(small_data, small_spec, monkeypatch, shard):
  source = SegmentSource(LIBRARIES[register(small_data, small_spec)])
  shard = shard and seqio.ShardInfo(*shard)

  def records(start, count):
    with source.starting_at(start):
      dataset = source.in_blocks(source.get_dataset('train', shuffle=True, seed=3, shard_info=shard).repeat())
    return [
      {name: np.asarray(x).tolist() for name, x in record.items()}
      for record in dataset.unbatch().take(count).as_numpy_iterator()
    ]

  whole = records(0, 60)
  assert [record['serial'] for record in whole] == list(range(60))
  assert len({tuple(record['seed']) for record in whole}) == 60
  for start in (1, 7, 15, 16, 31):
    assert records(start, 60 - start) == whole[start:]


@pytest.mark.parametrize('count', [60_000, 65_536, 1_000_000])
def test_orders_of_epochs_have_nothing_in_common(count):
  from mrmt3.data import seqio_source

  numbers = np.random.default_rng(0).integers(0, count, 20_000)
  orders = [
    np.asarray(
      seqio_source._permuted(
        tf.constant(numbers), count, tf.constant(5, tf.int64), tf.fill([20_000], tf.constant(epoch, tf.int64))
      )
    )
    for epoch in range(3)
  ]
  for first, second in ((numbers, orders[0]), (orders[0], orders[1]), (orders[1], orders[2])):
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.04
    # Neighbours do not stay neighbours.
    assert np.mean((first[1:] ^ first[:-1]) == (second[1:] ^ second[:-1])) < 0.01


def numbers_of(source, count, epochs):
  """Return the numbers of a split's records in order."""
  dataset = source.in_blocks(source.get_dataset('train', shuffle=True, seed=3).repeat(epochs))
  return [int(record['chunk_start']) // FRAMES for record in dataset.unbatch().take(count).as_numpy_iterator()]


@pytest.mark.parametrize('count', [1, 2, 97, 1000, 300_000])
def test_every_record_comes_once_an_epoch_in_another_order(small_data, small_spec, monkeypatch, count):
  library = LIBRARIES[register(small_data, small_spec, sampling='grid')]
  source = SegmentSource(library)
  # One endless piece.
  monkeypatch.setattr(source, 'chunks', lambda split: (np.array([count]), FRAMES))
  monkeypatch.setattr(library, 'frames', lambda split: np.array([count * FRAMES]))
  read = min(count, 1000)
  order = numbers_of(source, 2 * read, 2)
  if count > read:
    assert len(set(order)) > 0.99 * len(order) and max(order) - min(order) > count / 2
    return
  first, second = order[:count], order[count:]
  assert sorted(first) == sorted(second) == list(range(count))
  if count == 1000:
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
  if count > 2:
    assert first != second and first != sorted(first)


def test_segments_with_too_many_tokens_are_skipped_with_a_warning_cut_or_an_error(small_data, small_spec, caplog):
  short = {**LENGTHS, 'targets': 10}
  kept = examples(register(small_data, small_spec, sampling='grid'), lengths=short)
  assert kept and all(len(example['targets']) <= 10 for example in kept)
  assert 'exceed the limit of 10' in caplog.text
  store, _ = LIBRARIES[register(small_data, small_spec, sampling='grid')].open('train')
  left_out = [line for line in store.skipped() if line['problem'] == 'too-many-tokens']
  assert {line['action'] for line in left_out} == {'segment left out'}
  # A count is written whenever it has doubled.
  whole = len(examples(register(small_data, small_spec, sampling='grid')))
  assert (whole - len(kept)) / 2 < sum(line['count'] for line in left_out) <= whole - len(kept)
  cut = examples(register(small_data, small_spec, sampling='grid', on_overflow='cut'), lengths=short)
  assert len(cut) > len(kept) and all(len(example['targets']) <= 10 for example in cut)
  assert 'shortened' in {line['action'] for line in store.skipped() if line['problem'] == 'too-many-tokens'}
  library = LIBRARIES[register(small_data, small_spec, sampling='grid', strict=True)]
  assert library.open('train')[0].names  # not a problem of the pieces
  strict = register(small_data, small_spec, sampling='grid', on_overflow='error')
  with pytest.raises(tf.errors.OpError, match='exceed the limit of 10'):
    examples(strict, lengths=short)


def test_the_last_count_of_segments_with_too_many_tokens_is_exact(small_data, small_spec):
  library = LIBRARIES[register(small_data, small_spec, sampling='grid', on_overflow='cut', strict=True)]
  store, _ = library.open('train')
  overflow = seqio_preprocessors._Overflow(library)
  for frame in range(11):
    assert len(overflow.fit(np.arange(10), 7, 'train', 0, frame)) <= 7
  counts = lambda: max(line['count'] for line in store.skipped() if line['piece'] == store.names[0])  # noqa: E731
  before = counts()
  del overflow
  gc.collect()
  assert (before, counts()) == (8, 11)


def test_skipping_every_example_is_an_error_not_an_endless_loop(small_data, small_spec, monkeypatch):
  monkeypatch.setattr(seqio_preprocessors, 'MAX_SKIPPED', 50)
  name = register(small_data, small_spec)
  with pytest.raises(tf.errors.OpError, match='exceed the limit of 3'):
    examples(name, lengths={**LENGTHS, 'targets': 3}, epochs=None, shuffle=True, count=1)


def test_segments_meet_whatever_the_hop(small_spec):
  """Steps of segment borders are exact; float arithmetic would be one step off for some frames with a hop of 120."""
  config = dataclasses.replace(small_spec.spectrogram, hop_width=120)
  codec = vocabularies.build_codec(small_spec.vocabulary)
  for frame in range(0, 20_000, 7):
    exact = frame * 120 * 100 // 16000
    assert segment_targets.covering_step(frame, codec, config.frame_rate) == exact


def test_features_for_the_network(small_data, small_spec):
  from mrmt3.data.feature_converters import MemoryFeatureConverter

  name = register(small_data, small_spec, sampling='grid')
  dataset = seqio.get_dataset(name, LENGTHS, MemoryFeatureConverter(pack=False), dataset_split='test', verbose=False)
  found = list(dataset.as_numpy_iterator())
  targets = found[1]['decoder_target_tokens']
  assert {name: x.shape for name, x in found[1].items()} == {
    'encoder_input_tokens': (FRAMES, 32),
    'decoder_target_tokens': (64,),
    'decoder_input_tokens': (64,),
    'decoder_loss_weights': (64,),
    'prior_tokens': (64,),
    'encoder_input_frames': (1,),
    'example_id': (3,),
  }
  assert found[1]['decoder_input_tokens'][0] == 0
  np.testing.assert_array_equal(found[1]['decoder_input_tokens'][1:], targets[:-1])
  np.testing.assert_array_equal(found[1]['decoder_loss_weights'], targets > 0)
  assert targets[targets > 0][-1] == 1
  assert [int(x['encoder_input_frames'][0]) for x in found] == [32, 32, 32, 32, 1]
  assert [x['example_id'].tolist() for x in found] == [[0, FRAMES * k, k] for k in range(5)]
  assert not found[-1]['encoder_input_tokens'][1:].any()


def test_log_mel_on_the_device_is_that_of_the_host(small_data, small_spec):
  from mrmt3.models import MemoryEncoderDecoderModel

  def inputs(where):
    name = register(small_data, small_spec, sampling='grid', log_mel_on=where)
    model = MemoryEncoderDecoderModel(small_spec, log_mel_on=where)
    dataset = seqio.get_dataset(
      name, LENGTHS, model.FEATURE_CONVERTER_CLS(pack=False), dataset_split='test', verbose=False
    )
    return model.call_arguments(next(dataset.batch(5).as_numpy_iterator()))[0]

  assert inputs('host').shape == (5, FRAMES, 32)
  np.testing.assert_allclose(inputs('device'), inputs('host'), atol=1e-4)


def test_samples_are_decoded_as_their_log_mels(small_data, small_spec):
  import jax

  from mrmt3.models import MemoryEncoderDecoderModel

  weights, predicted = None, {}
  for where in ('host', 'device'):
    name = register(small_data, small_spec, sampling='grid', log_mel_on=where)
    model = MemoryEncoderDecoderModel(small_spec, log_mel_on=where)
    dataset = seqio.get_dataset(
      name, LENGTHS, model.FEATURE_CONVERTER_CLS(pack=False), dataset_split='test', verbose=False
    )
    batch = next(dataset.batch(5).as_numpy_iterator())
    if weights is None:
      weights = model.get_initial_params(jax.random.key(3), batch)
      weights['decoder']['logits_dense']['kernel'] *= 3
    predicted[where], aux = jax.jit(model.predict_batch_with_aux)(weights, batch)
    assert predicted[where].shape == (5, 64) and aux['scores'].shape == (5,)
    np.testing.assert_array_equal(jax.jit(model.predict_batch)(weights, batch), predicted[where])
  assert len({tuple(row) for row in np.asarray(predicted['host']).tolist()}) > 1  # predictions depend on the inputs
  assert np.mean(predicted['host'] == predicted['device']) > 0.95


def test_stem_subsets_apply_to_audio_and_tokens(small_data, small_spec):
  name = register(small_data, small_spec, sampling='grid', stem_subset_rate=1.0)
  library = LIBRARIES[name]
  store, _ = library.open('train')
  whole = Library(SlakhFolder(str(small_data)), small_spec, ExampleConfig())
  subsets = set()
  for seed in range(40):
    window = library.drawn('train', Window((Part(1, FRAMES),), FRAMES, (0,), (seed,)))
    stems = window.parts[0].stems
    subsets.add(tuple(stems))
    samples = library.samples('train', window).reshape(-1)
    np.testing.assert_array_equal(samples, store.audio(1, FRAMES * 256, 2 * FRAMES * 256, stems))
    targets, (prior,) = library.tokens('train', window)
    if stems.all():
      plain = whole.tokens('train', dataclasses.replace(window, parts=(Part(1, FRAMES),)))
      np.testing.assert_array_equal(targets, plain[0])
      np.testing.assert_array_equal(prior, plain[1][0])
    programs = {int(token) - 1135 for token in np.concatenate([targets, prior]) if 1135 <= token <= 1262}
    stem_programs = {int(p) for p in store.notes(1)['program'][stems[store.note_stems(1)] & ~store.notes(1)['is_drum']]}
    assert programs <= stem_programs
  assert len(subsets) == 7  # all but the empty one, of 3 stems
  mixed = store.audio(1)
  np.testing.assert_allclose(mixed, sum(store.audio(1, stems=np.arange(3) == k) for k in range(3)), atol=1e-6)


def overlapping_library(tmp_path, small_spec, **fields):
  """Return a library of one piece: a note cut by a later one of its pitch, and onsets between two steps."""
  rows = [(0.0, 4.0, 60, 100, 0, 0), (0.5, 0.8, 60, 100, 0, 0)]
  rows += [(2.2 + 0.005 * k, 3.9, 62 + k, 100, 0, 0) for k in range(1, 40, 2)]
  return Library(OnePiece(tuple(rows)), small_spec, ExampleConfig(**fields), str(tmp_path))


@dataclasses.dataclass(frozen=True)
class OnePiece:
  """A source of one piece of 5 s with the given notes and `count` stems, of which the first plays all notes."""

  rows: tuple
  count: int = 2

  def splits(self):
    return ('train',)

  def list_pieces(self, split):
    return ['piece']

  def fingerprint(self, split):
    return ''

  def read_piece(self, split, name, sample_rate, stems=False):
    table, samples = note_tables.as_notes(self.rows), np.full(5 * sample_rate, 0.25, np.float32)
    if not (stems and self.count):
      return PieceContent(samples, table)
    return PieceContent(samples, table, np.stack([samples / self.count] * self.count), np.zeros(len(table), np.int32))


@pytest.mark.parametrize('start', range(0, 300, FRAMES))
def test_all_stems_have_the_tokens_of_the_piece(tmp_path, small_spec, start):
  plain = overlapping_library(tmp_path, small_spec)
  library = overlapping_library(tmp_path, small_spec, stem_subset_rate=1.0)
  prior = (start - FRAMES if start else NO_PRIOR,)
  wanted = plain.tokens('train', Window((Part(0, start),), FRAMES, prior))
  found = library.tokens('train', Window((Part(0, start, np.ones(2, bool)),), FRAMES, prior))
  np.testing.assert_array_equal(found[0], wanted[0])
  np.testing.assert_array_equal(found[1][0], wanted[1][0])


def test_notes_that_have_ended_cut_earlier_notes_of_their_pitch_in_mixes(tmp_path, small_spec):
  library = overlapping_library(tmp_path, small_spec, max_pieces_per_mix=2)
  for parts in ((64, 128), (128, 64), (128, 128)):  # 1.02 and 2.05 s: pitch 60 has ended
    targets, _ = library.tokens('train', Window(tuple(Part(0, start) for start in parts), FRAMES))
    ties = targets[: targets.tolist().index(EMPTY[0])].tolist()
    assert 1004 + 60 not in ties


@dataclasses.dataclass(frozen=True)
class Tones:
  """A source of one piece of 6 s whose audio has a sine per note; `rows` are arguments of `as_notes`."""

  rows: tuple

  def splits(self):
    return ('train',)

  def list_pieces(self, split):
    return ['piece']

  def fingerprint(self, split):
    return str(hash(self.rows))

  def read_piece(self, split, name, sample_rate, stems=False):
    table, time = note_tables.as_notes(self.rows), np.arange(6 * sample_rate) / sample_rate
    samples = np.zeros(len(time), np.float32)
    for note in table:
      sounding = (time >= note['onset']) & (time < note['offset'])
      samples += (
        0.2 * sounding * np.sin(2 * np.pi * 440 * 2 ** ((float(note['pitch']) - 69) / 12) * (time - note['onset']))
      )
    return PieceContent(samples, table)


MELODY = (
  (0.0, 0.4, 60, 100, 0, 0),
  (0.5, 1.4, 72, 100, 40, 0),
  (1.3, 3.3, 65, 100, 40, 0),
  (2.3, 2.6, 38, 100, 0, 1),
  (2.9, 4.9, 64, 100, 40, 0),
)


@pytest.mark.parametrize('semitones', [-4, 3])
@pytest.mark.parametrize('start', [0, FRAMES, 4 * FRAMES])
def test_transposition_changes_audio_and_tokens_alike(tmp_path, small_spec, semitones, start):
  speed, begin = 2 ** (semitones / 12), start * 256 / 16000
  moved = tuple(
    (
      begin + (on - begin) / speed,
      begin + (off - begin) / speed,
      pitch + (0 if drum else semitones),
      velocity,
      program,
      drum,
    )
    for on, off, pitch, velocity, program, drum in MELODY
  )
  library = Library(Tones(MELODY), small_spec, ExampleConfig(max_transposition=5), str(tmp_path / 'a'))
  window = Window((Part(0, start, None, semitones),), FRAMES, (start - FRAMES if start else NO_PRIOR,))
  # The same music as a piece without transposition; notes that begin before it are cut.
  whole = tuple((max(on, 0.0), off, *rest) for on, off, *rest in moved if off > 0)
  wanted = Library(Tones(whole), small_spec, ExampleConfig(), str(tmp_path / 'b'))
  plain = dataclasses.replace(window, parts=(Part(0, start),))
  (targets, priors), (targets_there, priors_there) = (
    x.tokens('train', w) for x, w in ((library, window), (wanted, plain))
  )
  np.testing.assert_array_equal(targets, targets_there)
  if start == FRAMES and moved[0][0] < 0:  # the prior segment begins where the piece is cut, so the note is tied
    assert priors[0].tolist()[:3] == [1135, 1004 + moved[0][2], 1134]
  else:
    np.testing.assert_array_equal(priors, priors_there)
  # The audio matches the notes: where a note sounds alone, its pitch is the strongest frequency.
  compared = 0
  for first in (start, start - FRAMES):
    samples, seconds = library.samples('train', window, first, FRAMES).reshape(-1), first * 256 / 16000
    for on, off, pitch, *_, drum in moved:
      at = max(on + 0.02, seconds)
      end = at + 2400 / 16000
      alone = sum(a < end and b > at for a, b, *_ in moved) == 1
      if drum or not alone or min(off, seconds + len(samples) / 16000) < end:
        continue
      cut = round((at - seconds) * 16000)
      spectrum = np.abs(np.fft.rfft(samples[cut : cut + 2400] * np.hanning(2400), 2**16))
      assert abs(spectrum.argmax() * 16000 / 2**16 / (440 * 2 ** ((pitch - 69) / 12)) - 1) < 0.01
      compared += 1
  assert compared


def test_a_faster_piece_has_audio_to_its_last_frame(tmp_path, small_spec):
  library = Library(Tones(MELODY), small_spec, ExampleConfig(max_transposition=5), str(tmp_path))
  last = int(library.frames('train')[0]) - 1
  window = Window((Part(0, last, None, 5),), FRAMES)
  assert len(library.samples('train', window)) == 1 and library.inputs(library.samples('train', window)).shape[0] == 1


def test_transpositions_are_drawn_from_the_seed(tmp_path, small_spec):
  library = Library(Tones(MELODY), small_spec, ExampleConfig(max_transposition=2, max_pieces_per_mix=2), str(tmp_path))
  found = collections.Counter()
  for seed in range(60):
    window = Window((Part(0, 0), Part(0, FRAMES)), FRAMES, (), (seed,))
    parts = library.drawn('train', window).parts
    assert parts == library.drawn('train', window).parts
    found.update(part.semitones for part in parts)
  assert set(found) == {-2, -1, 0, 1, 2}
  # The audio ends with the faster piece, and pitches outside MIDI's range are dropped.
  window = Window((Part(0, 5 * FRAMES, None, 2),), 10 * FRAMES)
  ends = (6 - 5 * FRAMES * 256 / 16000) / 2 ** (2 / 12) + 5 * FRAMES * 256 / 16000
  assert abs(len(library.samples('train', window)) + 5 * FRAMES - ends * 16000 / 256) <= 2
  high = Library(
    Tones(((0.1, 0.5, 126, 100, 0, 0),)), small_spec, ExampleConfig(max_transposition=2), str(tmp_path / 'high')
  )
  assert high.tokens('train', Window((Part(0, 0, None, 2),), FRAMES))[0].tolist() == EMPTY


def test_stem_subsets_need_stems(tmp_path, small_spec):
  library = Library(
    OnePiece(((0.0, 1.0, 60, 100, 0, 0),), 0), small_spec, ExampleConfig(stem_subset_rate=0.5), str(tmp_path)
  )
  with pytest.raises(UserError, match=r'no piece of .* has stems'):
    library.open('train')


def test_cached_inputs_are_those_of_the_windows_length(tmp_path, small_spec):
  library = overlapping_library(tmp_path, small_spec, sampling='mt3')
  fields = {
    'split': 'train',
    'index': 0,
    'start_frame': 0,
    'prior_starts': np.int32([NO_PRIOR]),
    'seed': np.int64([1, 2]),
  }
  records = tf.data.Dataset.from_tensor_slices(np.array([20, FRAMES, 5], np.int32)).map(
    lambda n: {**fields, 'num_frames': n}
  )
  found = seqio_preprocessors.add_targets_and_inputs(records.batch(2), library, cache_bytes=10**6)
  assert [len(example['inputs']) for example in found.as_numpy_iterator()] == [20, FRAMES, 5]


def test_mixes_add_up_sounds_and_notes(small_data, small_spec):
  name = register(small_data, small_spec, max_pieces_per_mix=2)
  library = LIBRARIES[name]
  found = examples(name, epochs=6)
  mixed = [example for example in found if example['mix_pieces'][0] >= 0]
  assert 0.25 < len(mixed) / len(found) < 0.75
  store, _ = library.open('train')
  for example in mixed:
    parts = [
      (int(example['index']), int(example['start_frame'])),
      (int(example['mix_pieces'][0]), int(example['mix_starts'][0])),
    ]
    window = Window(tuple(Part(*part) for part in parts), FRAMES)
    mix = sum(store.audio(piece, start * 256, (start + FRAMES) * 256) for piece, start in parts)
    mix = mix / max(1.0, np.abs(mix).max())
    np.testing.assert_allclose(library.samples('train', window).reshape(-1), mix, atol=1e-6)
    # Every pitch with an onset in the middle of the window is in the targets.
    wanted = collections.Counter()
    for piece, start in parts:
      onset = store.notes(piece)['onset'] - start * 256 / 16000
      inside = (onset > 0.02) & (onset < FRAMES * 256 / 16000 - 0.02)
      wanted.update(store.notes(piece)['pitch'][inside].tolist())
    tokens = collections.Counter(int(t) - 1004 for t in example['targets'] if 1004 <= t <= 1131)
    tokens.update(int(t) - 1263 for t in example['targets'] if 1263 <= t <= 1390)
    assert set(wanted) <= set(tokens)


def test_prior_inputs_where_no_example_has_a_prior_segment(small_data, small_spec):
  name = register(small_data, small_spec, sampling='grid', prior_inputs=True, memory_dropout=1.0)
  found = examples(name, lengths={**LENGTHS, 'prior_inputs': FRAMES})
  assert len(found) == 15 and not any(len(example['prior_inputs']) for example in found)


def test_prior_inputs_are_those_of_the_prior_segment(small_data, small_spec):
  found = examples(
    register(small_data, small_spec, sampling='grid', prior_inputs=True),
    split='test',
    lengths={**LENGTHS, 'prior_inputs': FRAMES},
  )
  assert len(found[0]['prior_inputs']) == 0
  for before, example in itertools.pairwise(found):
    np.testing.assert_array_equal(example['prior_inputs'], before['inputs'])


def test_predicted_prior_tokens_are_the_networks_output(small_data, small_spec):
  import jax

  from mrmt3.decoding import greedy
  from mrmt3.engine import adafactor
  from mrmt3.models import MemoryEncoderDecoderModel

  name = register(small_data, small_spec, sampling='grid', prior_inputs=True)
  model = MemoryEncoderDecoderModel(small_spec, adafactor.Adafactor(), predicted_prior=1.0)
  lengths = {**LENGTHS, 'prior_inputs': FRAMES}
  dataset = seqio.get_dataset(
    name, lengths, model.FEATURE_CONVERTER_CLS(pack=False), dataset_split='test', verbose=False
  )
  batch = next(dataset.batch(5).as_numpy_iterator())
  params = model.get_initial_params(jax.random.key(0), batch)
  prior = np.asarray(jax.jit(model.predict_prior)(params, batch, jax.random.key(1)))
  np.testing.assert_array_equal(prior[0], batch['prior_tokens'][0])  # the first segment has no prior segment
  empty = np.pad([EMPTY], [(0, 0), (0, 62)]).astype(np.int32)
  for row in range(1, 5):
    predicted = greedy.transcribe_segments(
      params, batch['prior_input_tokens'][row][None], {'prior_tokens': empty}, spec=small_spec, max_length=64
    )
    np.testing.assert_array_equal(prior[row], predicted[0])
  loss, _ = model.loss_fn(params, batch, jax.random.key(2))
  assert np.isfinite(loss)


def test_mistakes_are_named(small_data, small_spec, tmp_path):
  for field, value in {
    'sampling': 'all',
    'on_overflow': 'eror',
    'shuffle_scope': 'papr',
    'max_hop': 0,
    'memory_dropout': 1.5,
    'log_mel_on': 'gpu',
    'prior_segments': 0,
    'granularity': 'coarse',
    'stem_subset_rate': -1,
    'max_pieces_per_mix': True,
    'max_transposition': 13,
  }.items():
    with pytest.raises(UserError, match=field):
      ExampleConfig(**{field: value})
  with pytest.raises(UserError, match='no such folder'):
    examples(slakh_task.task(str(tmp_path / 'nowhere'), small_spec))
