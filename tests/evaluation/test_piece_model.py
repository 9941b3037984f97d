"""Whole pieces as examples: the memory chain in predict_batch, and the entry points eval and infer."""

import json
import math

import jax
import numpy as np
import pytest

from mrmt3 import eval as eval_script
from mrmt3 import infer
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.engine import partitioning, utils
from mrmt3.errors import UserError
from mrmt3.evaluation.piece_model import PieceEncoderDecoderModel
from mrmt3.inference import memory
from mrmt3.inference.transcriber import Transcriber
from mrmt3.network import Transformer

COUNTS = (3, 9, 2)  # segments of the pieces; 9 takes a second bucket


@pytest.fixture(scope='module')
def model(small_spec):
  return PieceEncoderDecoderModel(small_spec)


@pytest.fixture(scope='module')
def params(small_spec):
  """Random weights, the output layer large enough that segments differ and some end early."""
  tokens = np.zeros((1, 64), np.int32)
  init = Transformer(small_spec.network).init(
    jax.random.key(3), np.zeros((1, 32, 32)), tokens, tokens, enable_dropout=False, prior_tokens=tokens
  )
  params = jax.tree.map(np.array, init['params'])
  params['decoder']['logits_dense']['kernel'] *= 3
  params['decoder']['logits_dense']['kernel'][:, 1] *= 1.5
  return jax.device_put(params)


@pytest.fixture(scope='module')
def pieces():
  rng = np.random.default_rng(0)
  inputs = [rng.normal(size=(count, 32, 32)).astype(np.float32) for count in COUNTS]
  targets = []
  for count in COUNTS:
    rows = np.zeros((count, 64), np.int32)
    for row in rows:
      length = rng.integers(2, 60)
      row[:length] = rng.integers(3, 1200, length)
      row[length] = 1
    targets.append(rows)
  return inputs, targets


def batch_of(inputs, targets, size):
  def pad(x):
    return np.pad(x, [(0, size - len(x))] + [(0, 0)] * (x.ndim - 1))

  targets_batch = np.stack([pad(x) for x in targets])
  return {
    'encoder_input_tokens': np.stack([pad(x) for x in inputs]),
    'decoder_target_tokens': targets_batch,
    'decoder_input_tokens': np.pad(targets_batch[..., :-1], ((0, 0), (0, 0), (1, 0))),
    'decoder_loss_weights': (targets_batch > 0).astype(np.int32),
    'num_segments': np.array([[len(x)] for x in inputs], np.int32),
  }


def test_predictions_are_the_transcribers(model, params, pieces, small_spec):
  inputs, targets = pieces
  tokens = np.asarray(jax.jit(model.predict_batch)(params, batch_of(inputs, targets, 16)))
  transcriber = Transcriber(params, small_spec)
  assert tokens.shape == (3, 16, 64)
  for row, mel in enumerate(inputs):
    expected = np.concatenate(list(transcriber.decode([segment[None] for segment in mel])))
    np.testing.assert_array_equal(tokens[row, : len(mel)], expected)
    assert not tokens[row, len(mel) :].any()
  # The memory matters to these weights, so the test would see it break.
  first = np.asarray(jax.jit(model.predict_batch)(params, batch_of([x[1:2] for x in inputs], targets, 16)))
  assert (first[:, 0] != tokens[:, 1]).any() and len(np.unique(tokens)) > 5


def test_score_is_the_sum_of_log_probabilities(model, params, pieces, small_spec):
  inputs, targets = pieces
  batch = batch_of(inputs, targets, 9)
  empty = memory.empty(small_spec, 1).tokens[0]
  expected = []
  for mel, tokens in zip(inputs, targets, strict=True):
    prior = np.concatenate([empty[None], tokens[:-1]])
    shifted = np.pad(tokens[:, :-1], ((0, 0), (1, 0)))
    logits = Transformer(small_spec.network).apply(
      {'params': params}, mel, shifted, tokens, enable_dropout=False, prior_tokens=prior
    )
    log_p = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), tokens[..., None], -1)[..., 0]
    expected.append((log_p * (tokens > 0)).sum())
  np.testing.assert_allclose(jax.jit(model.score_batch)(params, batch), expected, rtol=1e-4)
  tokens, aux = model.predict_batch_with_aux(params, batch)
  as_targets = {**batch, **batch_of(inputs, [np.asarray(t[: len(m)]) for t, m in zip(tokens, inputs, strict=True)], 9)}
  np.testing.assert_allclose(aux['scores'], model.score_batch(params, as_targets), rtol=1e-4)


@pytest.fixture(scope='module')
def task(pieces, small_spec):
  import seqio
  import tensorflow as tf

  from mrmt3 import vocabularies
  from mrmt3.evaluation import piece_metrics

  inputs, targets = pieces

  def dataset(split, shuffle_files, seed=None):
    def generate():
      for row, (mel, tokens) in enumerate(zip(inputs, targets, strict=True)):
        yield {'inputs': mel, 'targets': tokens, 'targets_pretokenized': f'piece {row}'}

    return tf.data.Dataset.from_generator(
      generate,
      output_signature={
        'inputs': tf.TensorSpec([None, 32, 32], tf.float32),
        'targets': tf.TensorSpec([None, 64], tf.int32),
        'targets_pretokenized': tf.TensorSpec([], tf.string),
      },
    )

  vocabulary = vocabularies.vocabulary_from_codec(vocabularies.build_codec(small_spec.vocabulary))
  seqio.TaskRegistry.remove('pieces_for_tests')
  seqio.TaskRegistry.add(
    'pieces_for_tests',
    source=seqio.FunctionDataSource(dataset, ['test']),
    preprocessors=[],
    output_features={
      'inputs': seqio.ContinuousFeature(dtype=tf.float32, rank=3),
      'targets': seqio.Feature(vocabulary, add_eos=False, rank=2),
    },
    postprocess_fn=piece_metrics.Postprocessor(small_spec),
    metric_fns=[piece_metrics.scores],
  )
  return 'pieces_for_tests'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, params, small_spec):
  folder = tmp_path_factory.mktemp('model')
  for step in (5, 7):
    orbax_checkpoints.save_checkpoint(folder, step, {'target': params}, small_spec)
  return folder


def config(task, batch_size=2):
  return utils.DatasetConfig(task, {'inputs': None, 'targets': None}, 'test', batch_size, shuffle=False, seed=0)


def run_infer(model, task, checkpoint, folder, **more):
  arguments = {'mode': 'predict', 'checkpoint_period': 1, **more}
  return infer.infer(
    model=model,
    dataset_cfg=config(task),
    partitioner=partitioning.PjitPartitioner(),
    output_dir=str(folder),
    restore_checkpoint_cfg=utils.RestoreCheckpointConfig(str(checkpoint)),
    summarize_config_fn=lambda *_: None,
    **arguments,
  )


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_infer_writes_t5x_files(model, task, checkpoint, tmp_path, params, pieces, small_spec):
  (path,) = run_infer(model, task, checkpoint, tmp_path)
  assert path.name == 'pieces_for_tests-predict.jsonl-00000-of-00001'
  assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f'{path.name}.COMPLETED']
  transcriber = Transcriber(params, small_spec)
  found = lines(path)
  assert [line['inputs']['targets_pretokenized'] for line in found] == ['piece 0', 'piece 1', 'piece 2']
  for line, mel in zip(found, pieces[0], strict=True):
    for ids, tokens in zip(line['prediction'], transcriber.decode([segment[None] for segment in mel]), strict=False):
      regular = (tokens[0] > 2) & (
        tokens[0] < 3 + transcriber.codec.num_classes
      )  # random weights predict other ids too
      np.testing.assert_array_equal([i + 3 for i in ids if i >= 0], tokens[0][regular])


def test_infer_goes_on_after_whole_chunks(model, task, checkpoint, tmp_path):
  (whole,) = run_infer(model, task, checkpoint, tmp_path / 'whole')
  written = []

  def stop_at_second(path, inferences, task_ds, mode, vocabulary):
    if written:
      raise KeyboardInterrupt
    written.append(path)
    infer.write_inferences_to_file(path, inferences, task_ds, mode, vocabulary)

  with pytest.raises(KeyboardInterrupt):
    run_infer(model, task, checkpoint, tmp_path / 'parts', write_fn=stop_at_second)
  assert not list((tmp_path / 'parts').glob('*.COMPLETED'))
  with pytest.raises(UserError, match=r'other settings \(examples_per_chunk\); remove it'):
    run_infer(model, task, checkpoint, tmp_path / 'parts', checkpoint_period=3)
  (parts,) = run_infer(model, task, checkpoint, tmp_path / 'parts')
  assert parts.read_text() == whole.read_text()


def test_infer_shards_and_scores(model, task, checkpoint, tmp_path, params, pieces):
  shards = [run_infer(model, task, checkpoint, tmp_path, mode='score', shard_id=i, num_shards=2)[0] for i in (0, 1)]
  names = [[line['inputs']['targets_pretokenized'] for line in lines(path)] for path in shards]
  assert names == [['piece 0', 'piece 2'], ['piece 1']]
  expected = model.score_batch(params, batch_of(*pieces, 9))
  np.testing.assert_allclose([line['score'] for line in lines(shards[0])], np.asarray(expected)[[0, 2]], rtol=1e-4)


def test_evaluates_all_checkpoints_once(model, task, checkpoint, tmp_path):
  def run():
    return eval_script.evaluate(
      model=model,
      dataset_cfg=config(task),
      partitioner=partitioning.PjitPartitioner(),
      output_dir=str(tmp_path),
      restore_checkpoint_cfg=utils.RestoreCheckpointConfig(str(checkpoint), mode='all'),
      summarize_config_fn=lambda *_: None,
    )

  results = run()
  assert sorted(results) == [5, 7]
  found = lines(tmp_path / 'inference_eval' / 'pieces_for_tests-metrics.jsonl')
  assert [line['step'] for line in found] == [5, 7] and found[0].items() - {('step', 5)} == found[1].items() - {
    ('step', 7)
  }
  assert all(0 <= value <= 1 for name, value in found[0].items() if 'f1' in name.lower() and not math.isnan(value))
  assert run() == {}


def test_mistakes_are_named(model, task, checkpoint, tmp_path):
  with pytest.raises(UserError, match='predct'):
    run_infer(model, task, checkpoint, tmp_path, mode='predct')
  with pytest.raises(UserError, match='shard_id'):
    run_infer(model, task, checkpoint, tmp_path, shard_id=2, num_shards=2)
  with pytest.raises(UserError, match='no task'):
    run_infer(model, 'nothing', checkpoint, tmp_path)
  with pytest.raises(UserError, match='no such checkpoint'):
    run_infer(model, task, tmp_path / 'none', tmp_path)
  assert not list(tmp_path.iterdir())
