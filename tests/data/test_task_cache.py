"""Tests of `mrmt3 dataset cache`: it caches the output of the steps before the placeholder, and training reads it.

Needs the extra `cache`, which has its own environment: make test-cache.
"""

import dataclasses
import json
import sys

import numpy as np
import pytest

pytest.importorskip('apache_beam')
pytest.importorskip('seqio')

import seqio
import small_datasets

from mrmt3.cli.main import main
from mrmt3.data import task_cache
from mrmt3.errors import UserError
from mrmt3.tasks import mt3 as mt3_tasks

TASK = 'guitarset_notes_ties_vb1_train'
LENGTHS = {'inputs': 256, 'targets': 1024}


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  root = tmp_path_factory.mktemp('data') / 'records'
  original = small_datasets.write_guitarset(root.parent / 'guitarset')
  assert main(['dataset', 'convert', 'guitarset', str(original), str(root), '--workers', '1']) == 0
  return root


@pytest.fixture(scope='module')
def cached(records, tmp_path_factory):
  """Return (folder of caches, printed text)."""
  import contextlib
  import io

  folder, printed = tmp_path_factory.mktemp('caches'), io.StringIO()
  with contextlib.redirect_stdout(printed):
    assert main(['dataset', 'cache', TASK, '--to', str(folder), '--data', str(records), '--min-shards', '3']) == 0
  return folder, printed.getvalue()


@pytest.fixture(autouse=True)
def _records(records, monkeypatch):
  monkeypatch.setenv('MRMT3_RECORDS', str(records))


def test_the_cache_is_complete_and_described(cached):
  folder, printed = cached
  assert f'{TASK}: 2 eval, 4 train examples' in printed.replace('\n', ' ') and '1 cached in' in printed
  (made,) = [path for path in folder.iterdir() if not path.name.startswith('.')]
  names = {path.name for path in made.iterdir()}
  assert {'COMPLETED', 'info.train.json', 'stats.train.json', 'info.eval.json', 'stats.eval.json'} <= names
  assert json.loads((made / 'stats.train.json').read_text())['examples'] == 4
  assert len(list(made.glob('train.tfrecord-*'))) == 4  # one per source file, at least three
  assert not [path for path in folder.iterdir() if path.name.startswith('.')]


def test_cached_examples_are_those_of_the_steps_before_the_placeholder(cached):
  folder, _ = cached
  task = seqio.TaskRegistry.get(TASK)
  seqio.set_global_cache_dirs([str(folder)])
  try:
    assert task.cache_dir
    made = task.preprocess_precache(task.source.get_dataset('train', shuffle=False), seed=0)
    expected = {example['inputs'].tobytes(): example for example in made.as_numpy_iterator()}
    read = task._get_cached_source('train').get_dataset('train', shuffle=False)
    count = 0
    for example in read.as_numpy_iterator():
      other = expected[example['inputs'].tobytes()]
      count += 1
      for name in (
        'targets',
        'input_event_start_indices',
        'input_event_end_indices',
        'input_state_event_indices',
        'state_events',
      ):
        np.testing.assert_array_equal(example[name], other[name])
    assert count == 4
    drawn = list(task.get_dataset(LENGTHS, 'train', use_cached=True, shuffle=False, seed=1).as_numpy_iterator())
    assert len(drawn) == 4 and {example['inputs'].shape[1] for example in drawn} == {512}
    mixture = seqio.Mixture(
      'one',
      [TASK],
      default_rate=mt3_tasks.functools.partial(
        seqio.mixing_rate_num_examples, temperature=mt3_tasks.MIXING_TEMPERATURE
      ),
    )
    assert mixture.get_rate(task) == pytest.approx(4**0.3)
  finally:
    seqio.set_global_cache_dirs([])


def test_training_resumes_within_a_cache(cached, tmp_path):
  """By default seqio loads such a small cache into memory, and then its position cannot be saved."""
  from mrmt3.data.feature_converters import ContinuousInputsEncDecFeatureConverter
  from mrmt3.engine import utils
  from mrmt3.training.data_iterator import DataIterator

  folder, _ = cached
  seqio.set_global_cache_dirs([str(folder)])
  try:
    config = utils.DatasetConfig(TASK, LENGTHS, split='train', batch_size=1, shuffle=True, seed=5, use_cached=True)
    first, second = (
      DataIterator(utils.get_dataset(config, ContinuousInputsEncDecFeatureConverter, seed=5)) for _ in range(2)
    )
    for _ in range(3):
      next(first)
    for name, content in first.save().items():
      (tmp_path / name).write_bytes(content)
    second.restore(tmp_path)
    for _ in range(4):  # beyond the end of the first epoch
      one, two = next(first), next(second)
      for name in one:
        np.testing.assert_array_equal(one[name], two[name])
  finally:
    seqio.set_global_cache_dirs([])


def test_an_existing_cache_is_kept_without_overwrite(cached, records, capsys):
  folder, _ = cached
  (completed,) = folder.glob('*/COMPLETED')
  before = completed.stat().st_mtime_ns
  assert main(['dataset', 'cache', TASK, '--to', str(folder)]) == 0
  assert '0 cached' in capsys.readouterr().out and completed.stat().st_mtime_ns == before
  assert main(['dataset', 'cache', TASK, '--to', str(folder), '--overwrite', '--min-shards', '1']) == 0
  assert '4 train' in capsys.readouterr().out and completed.stat().st_mtime_ns > before


def test_parts_give_the_same_cache_as_the_whole(cached, records, tmp_path):
  """One part per file gives the same examples, info and stats as all files at once, and as seqio's own tool."""
  folder, _ = cached
  (whole,) = folder.glob('*/')
  task_cache.cache([TASK], str(tmp_path / 'parts'), part_bytes=1, min_shards=3)
  task_cache.cache([TASK], str(tmp_path / 'seqio'), pipeline_options=['--runner=BundleBasedDirectRunner'], min_shards=3)
  import tensorflow as tf

  for other in ('parts', 'seqio'):
    (made,) = (tmp_path / other).glob('*/')
    for split in ('train', 'eval'):
      info, stats, info_of_whole, stats_of_whole = (
        json.loads((root / f'{name}.{split}.json').read_text()) for root in (made, whole) for name in ('info', 'stats')
      )
      assert info['features'] == info_of_whole['features'] and stats == stats_of_whole
      assert (
        info['num_shards']
        == len(list(made.glob(f'{split}.tfrecord-*')))
        == (4 if (other, split) != ('seqio', 'eval') else 3)
      )
      one, two = (
        sorted(tf.data.TFRecordDataset(sorted(map(str, root.glob(f'{split}.tfrecord-*')))).as_numpy_iterator())
        for root in (whole, made)
      )
      assert one == two and len(one) == {'train': 4, 'eval': 2}[split]
    assert {path.name.partition('.')[0] for path in made.iterdir()} == {'COMPLETED', 'info', 'stats', 'train', 'eval'}


def test_other_runners_get_their_options(records, tmp_path):
  """Beam itself reports an unknown runner, so it receives the options."""
  with pytest.raises(UserError, match='NoSuchRunner'):
    task_cache.cache([TASK], str(tmp_path), pipeline_options=['--runner=NoSuchRunner'])
  with pytest.raises(UserError, match='not on this machine'):
    task_cache.cache([TASK], 'gs://nobody/caches')


def test_mistakes_are_named_and_nothing_is_left(records, tmp_path, monkeypatch, capsys):
  for task, words in (
    ('no_such_task', "no task 'no_such_task'"),
    ('mega_notes_ties_vb1_train', 'is a mixture, which cannot be cached; cache its tasks: cerberus4_notes'),
  ):
    assert main(['dataset', 'cache', task, '--to', str(tmp_path / 'a')]) == 2
    assert words in capsys.readouterr().err
  assert main(['dataset', 'cache', 'slakh_notes_ties_vb1_train', '--to', str(tmp_path / 'a')]) == 2
  assert 'slakh: no files' in capsys.readouterr().err
  (tmp_path / 'file').touch()
  assert main(['dataset', 'cache', TASK, '--to', str(tmp_path / 'file')]) == 2
  assert 'is a file' in capsys.readouterr().err
  broken = tmp_path / 'records' / 'guitarset'
  broken.mkdir(parents=True)
  for file in (records / 'guitarset').glob('*.tfrecord-*'):
    (broken / file.name).write_bytes(file.read_bytes()[:-7])
  monkeypatch.setenv('MRMT3_RECORDS', str(broken.parent))
  assert main(['dataset', 'cache', TASK, '--to', str(tmp_path / 'a')]) == 2
  assert capsys.readouterr().err.count('mrmt3: error: cannot make the cache') == 1
  assert not list((tmp_path / 'a').iterdir())


def test_user_defined_tasks_are_cached(tmp_path, monkeypatch, capsys):
  name = f'own_{tmp_path.name}'
  (tmp_path / f'{name}.py').write_text(
    'import seqio\nimport tensorflow as tf\n'
    'def dataset(split, shuffle_files, seed=None):\n'
    '  return tf.data.Dataset.from_tensor_slices({"targets": [[1, 2], [3, 4]]})\n'
    'def twice(ds):\n  return ds.map(lambda x: {"targets": x["targets"] * 2})\n'
    'vocabulary = seqio.PassThroughVocabulary(100)\n'
    f'for name, steps in (("{name}", [twice, seqio.CacheDatasetPlaceholder(), twice]), ("{name}_none", [twice])):\n'
    '  seqio.TaskRegistry.add(name, source=seqio.FunctionDataSource(dataset, splits=["train"]), preprocessors=steps,\n'
    '      output_features={"targets": seqio.Feature(vocabulary, add_eos=False)})\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  assert main(['dataset', 'cache', name, '--to', str(tmp_path / 'c'), '--module', name, '--min-shards', '1']) == 0
  assert '2 train examples' in capsys.readouterr().out
  seqio.set_global_cache_dirs([str(tmp_path / 'c')])
  try:
    read = seqio.TaskRegistry.get(name).get_dataset({'targets': 2}, 'train', use_cached=True, shuffle=False)
    assert sorted(example['targets'].tolist() for example in read.as_numpy_iterator()) == [[4, 8], [12, 16]]
  finally:
    seqio.set_global_cache_dirs([])
  assert main(['dataset', 'cache', f'{name}_none', '--to', str(tmp_path / 'c'), '--module', name]) == 2
  assert 'no cache placeholder' in capsys.readouterr().err
  assert dataclasses.is_dataclass(task_cache.Cached) and name in sys.modules
