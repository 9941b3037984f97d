"""Training of a small network: it learns, it resumes exactly, and its errors name the mistake."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from small_training import LENGTHS, run

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.engine import optimizers, partitioning, trainer
from mrmt3.errors import UserError
from mrmt3.framewise import FrameObjective
from mrmt3.models import MemoryEncoderDecoderModel


def weights(model_dir):
  return jax.tree.leaves(orbax_checkpoints.restore_params(model_dir)[0])


def scalars(path):
  """Return the lines of a JSONL file without values that depend on the clock."""
  timed = {'examples_per_second', 'input_wait_share'}
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def test_resumed_equals_uninterrupted(tmp_path, small_data, small_spec):
  run(tmp_path / 'whole', small_data, small_spec, 5)
  run(tmp_path / 'parts', small_data, small_spec, 2)
  run(tmp_path / 'parts', small_data, small_spec, 5)
  for a, b in zip(weights(tmp_path / 'whole'), weights(tmp_path / 'parts'), strict=True):
    np.testing.assert_array_equal(a, b)
  whole, parts = (scalars(tmp_path / name / 'train.jsonl') for name in ('whole', 'parts'))
  assert whole == parts


def test_learns_evaluates_and_keeps_checkpoints(tmp_path, small_data, small_spec):
  run(tmp_path, small_data, small_spec, 12, evaluation=True)
  lines = scalars(tmp_path / 'train.jsonl')
  assert [line['step'] for line in lines] == list(range(1, 13))
  assert lines[-1]['loss'] < lines[0]['loss'] - 0.5
  assert lines[-1]['learning_rate'] == pytest.approx(1e-2)
  evaluations = scalars(tmp_path / 'training_eval.jsonl')
  assert [line['step'] for line in evaluations] == [4, 8, 12]
  assert evaluations[-1]['loss'] < evaluations[0]['loss']
  assert orbax_checkpoints.checkpoint_steps(tmp_path) == [10, 12]
  assert list((tmp_path / 'train').glob('events.out.tfevents.*'))


def test_seed_decides(tmp_path, small_data, small_spec):
  losses = [run(tmp_path / name, small_data, small_spec, 1, seed=seed) for name, seed in (('a', 0), ('b', 0), ('c', 1))]
  assert losses[0] == losses[1] != losses[2]


def test_starts_from_other_weights(tmp_path, small_data, small_spec):
  run(tmp_path / 'first', small_data, small_spec, 2)
  run(tmp_path / 'second', small_data, small_spec, 1, restore=tmp_path / 'first', rate=0.0)
  for a, b in zip(weights(tmp_path / 'first'), weights(tmp_path / 'second'), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  with pytest.raises(UserError, match='nowhere'):
    run(tmp_path / 'third', small_data, small_spec, 1, restore=tmp_path / 'nowhere')


@pytest.mark.parametrize('factor', [None, 'NUM_REAL_TARGET_TOKENS'])
def test_microbatches_add_up(small_spec, factor):
  rng = np.random.default_rng(0)
  batch = {
    'encoder_input_tokens': rng.normal(size=(4, 32, 32)).astype(np.float32),
    'decoder_input_tokens': rng.integers(3, 1000, (4, 64), np.int32),
    'decoder_target_tokens': rng.integers(3, 1000, (4, 64), np.int32),
    'decoder_loss_weights': np.ones((4, 64), np.int32),
    'prior_tokens': rng.integers(3, 1000, (4, 64), np.int32),
  }
  batch['decoder_target_tokens'][1:3, 20:] = 0
  batch['decoder_loss_weights'][1:3, 20:] = 0
  spec = dataclasses.replace(small_spec, network=dataclasses.replace(small_spec.network, dropout_rate=0.0))
  model = MemoryEncoderDecoderModel(spec, optimizers.sgd(1e-2), loss_normalizing_factor=factor)
  states = []
  for microbatches in (None, 2):
    one = trainer.Trainer(model, partitioning.PjitPartitioner(), jax.random.key(0), lambda step: 1.0, microbatches)
    states.append(one.train_step(one.initial_state(batch), batch)[0])
  for a, b in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path, small_data, small_spec):
  run(tmp_path, small_data, small_spec, 2)
  before = weights(tmp_path)
  # The third step's update makes the weights NaN, the fourth step's loss shows it.
  with pytest.raises(UserError, match=r'the loss is nan at step 4, examples (Track0000\d from frame \d+; ){4}check'):
    run(tmp_path, small_data, small_spec, 6, rate=float('nan'))
  assert orbax_checkpoints.checkpoint_steps(tmp_path) == [2]
  for a, b in zip(before, weights(tmp_path), strict=True):
    np.testing.assert_array_equal(a, b)


def test_accuracy_by_token_type(small_spec):
  """The counts by type equal those of the targets; the correct tokens by type sum to all correct tokens."""
  targets = np.zeros((2, 64), np.int32)
  targets[:, :4] = [[1134, 1, 0, 0], [50, 1006, 1133, 1]]
  batch = {
    'encoder_input_tokens': np.ones((2, 32, 32), np.float32),
    'decoder_input_tokens': targets,
    'decoder_target_tokens': targets,
    'decoder_loss_weights': (targets > 0).astype(np.int32),
    'prior_tokens': targets,
    'encoder_input_frames': np.full((2, 1), 32, np.int32),
  }
  model = MemoryEncoderDecoderModel(small_spec)
  params = model.get_initial_params(jax.random.key(0), batch)
  sums = model.eval_fn(params, batch)[1]
  counts = {name.removeprefix('tokens/'): int(x) for name, x in sums.items() if name.startswith('tokens/')}
  assert counts == {'time': 1, 'pitch': 1, 'velocity': 1, 'program': 0, 'drum': 0, 'tie': 1, 'eos': 2}
  correct = sum(float(x) for name, x in sums.items() if name.startswith('correct/'))
  assert correct == float(sums['correct'])


def test_wrong_shapes_are_named(tmp_path, small_data, small_spec):
  run(tmp_path / 'first', small_data, small_spec, 1)
  wider = dataclasses.replace(small_spec, network=dataclasses.replace(small_spec.network, mlp_dim=24))
  with pytest.raises(UserError, match='mlp'):
    run(tmp_path / 'second', small_data, wider, 1, restore=tmp_path / 'first')


def test_a_checkpoint_without_the_frame_head_can_be_trained_with_it(tmp_path, small_data, small_hybrid_spec, capsys):
  run(tmp_path / 'first', small_data, small_hybrid_spec, 1)
  run(
    tmp_path / 'second',
    small_data,
    small_hybrid_spec,
    1,
    restore=tmp_path / 'first',
    rate=0.0,
    model={'objective': FrameObjective()},
  )
  output = capsys.readouterr().err
  assert '(step 1), ' in output and 'frame_head fresh' in output and 'note_reader fresh' in output
  for a, b in zip(weights(tmp_path / 'first'), weights(tmp_path / 'second'), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  assert 'frame_head' in orbax_checkpoints.restore_target(tmp_path / 'second')[0]


def test_parts_that_a_checkpoint_lacks_begin_fresh_where_that_is_asked_for(tmp_path, small_data, small_spec, capsys):
  plain = dataclasses.replace(small_spec, network=small_spec.network.replace(memory_length=0, num_decoder_layers=1))
  deeper = dataclasses.replace(small_spec, network=small_spec.network.replace(num_decoder_layers=2))
  run(tmp_path / 'first', small_data, plain, 1)
  with pytest.raises(UserError, match=r'decoder/layers_1/.* is missing'):
    run(tmp_path / 'second', small_data, deeper, 1, restore=tmp_path / 'first', model={'fresh': 'memory_encoder'})
  parts = ('memory_encoder', 'decoder/layers_1', 'decoder/layers_0')
  run(tmp_path / 'third', small_data, deeper, 1, restore=tmp_path / 'first', rate=0.0, model={'fresh': parts})
  output = capsys.readouterr().err
  assert 'memory_encoder fresh, decoder/layers_1 fresh' in output and 'layers_0 fresh' not in output
  before, after = (orbax_checkpoints.restore_params(tmp_path / name)[0] for name in ('first', 'third'))
  for name in ('encoder', 'decoder'):
    for keys, x in jax.tree_util.tree_leaves_with_path(before[name]):
      there = after[name]
      for key in keys:
        there = there[key.key]
      np.testing.assert_allclose(there, x, atol=1e-6)
  assert 'layers_1' in after['decoder'] and 'memory_encoder' in after
  run(
    tmp_path / 'plain', small_data, plain, 1, restore=tmp_path / 'first', model={'fresh': 'memory_encoder'}
  )  # of which it has none
  with pytest.raises(UserError, match="fresh has 'decoder/layers_2'"):
    run(tmp_path / 'fourth', small_data, deeper, 1, model={'fresh': 'decoder/layers_2'})


def test_frozen_parts_stay_what_they_were(tmp_path, small_data, small_spec):
  run(tmp_path / 'first', small_data, small_spec, 1)
  run(
    tmp_path / 'second',
    small_data,
    small_spec,
    3,
    restore=tmp_path / 'first',
    model={'frozen': ('encoder', 'decoder/layers_0')},
  )
  before, after = (orbax_checkpoints.restore_params(tmp_path / name)[0] for name in ('first', 'second'))
  for name, same in (('encoder', True), ('memory_encoder', False)):
    equal = [
      np.array_equal(*pair) for pair in zip(*(jax.tree.leaves(tree[name]) for tree in (before, after)), strict=True)
    ]
    assert all(equal) if same else not any(equal), name
  pairs = zip(*(jax.tree.leaves(tree['decoder']['layers_0']) for tree in (before, after)), strict=True)
  assert all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize(
  'network, lengths, model, fields',
  [
    ({'memory_segments': 2}, {'prior_targets': 128}, {}, {'prior_segments': 2}),
    ({'memory_segments': 2, 'memory_attention': 'decoupled'}, {'prior_targets': 128}, {}, {'prior_segments': 2}),
    ({}, {'prior_inputs': 32}, {'predicted_prior': 0.5}, {'prior_inputs': True}),
    ({}, {}, {'log_mel_on': 'device'}, {'log_mel_on': 'device', 'stem_subset_rate': 0.5, 'max_pieces_per_mix': 2}),
  ],
  ids=['two_prior_segments', 'decoupled_attention', 'predicted_prior', 'device_stems_mixes'],
)
def test_trains_beyond_the_papers(tmp_path, small_data, small_spec, network, lengths, model, fields):
  spec = dataclasses.replace(small_spec, network=dataclasses.replace(small_spec.network, **network))
  run(
    tmp_path, small_data, spec, 3, lengths={**LENGTHS, **lengths}, model=model, evaluation=True, eval_period=3, **fields
  )
  assert all(
    np.isfinite(line['loss']) for name in ('train', 'training_eval') for line in scalars(tmp_path / f'{name}.jsonl')
  )


def test_broken_files_are_one_line(tmp_path, small_data, small_spec, capsys):
  data = tmp_path / 'data'
  shutil.copytree(small_data, data)
  (data / 'train' / 'Track00001' / 'MIDI' / 'S00.mid').write_bytes(b'junk')
  run(tmp_path / 'model', data, small_spec, 2)
  lines = [line for line in capsys.readouterr().err.splitlines() if 'left out' in line]
  assert len(lines) == 1 and '1 of 3 pieces' in lines[0]
  shutil.copytree(data, tmp_path / 'worse')
  for path in (tmp_path / 'worse' / 'train').glob('*/MIDI/S00.mid'):
    path.write_bytes(b'junk')
  with pytest.raises(UserError, match=r'no usable piece.*S00\.mid') as caught:
    run(tmp_path / 'other', tmp_path / 'worse', small_spec, 2)
  assert len(str(caught.value).splitlines()) == 1


def test_evaluation_without_an_example_that_fits(tmp_path, small_data, small_spec, monkeypatch):
  monkeypatch.setitem(LENGTHS, 'targets', 3)
  with pytest.raises(UserError, match=r'exceed the limit of 3|no example'):
    run(tmp_path, small_data, small_spec, 4, evaluation=True)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'total_steps': 1.5}, 'total_steps'),
    ({'total_steps': 2, 'microbatches': 3}, 'num_microbatches'),
    ({'total_steps': 2, 'eval_period': 0}, 'eval_period'),
  ],
)
def test_numbers_that_do_not_fit(tmp_path, small_data, small_spec, arguments, message):
  with pytest.raises(UserError, match=message):
    run(tmp_path / 'model', small_data, small_spec, **arguments)
  assert not (tmp_path / 'model').exists()


@pytest.mark.parametrize('feature, most', [('inputs', 32), ('targets', 64), ('prior_targets', 64)])
def test_lengths_above_the_models_are_named(tmp_path, small_data, small_spec, feature, most):
  with pytest.raises(UserError, match=f"{feature}: {most + 1}, above the model's {most}"):
    run(tmp_path / 'model', small_data, small_spec, 1, lengths={**LENGTHS, feature: most + 1})
  assert not (tmp_path / 'model').exists()


def test_what_is_wrong_with_the_evaluation_is_said_at_the_start(tmp_path, small_data, small_spec):
  data = tmp_path / 'data'
  shutil.copytree(small_data / 'train', data / 'train')
  with pytest.raises(UserError, match="no split 'test'"):
    run(tmp_path / 'model', data, small_spec, 100_000, evaluation=True)
  assert not (tmp_path / 'model').exists()


def test_with_changed_pieces_the_data_starts_from_the_beginning(tmp_path, small_data, small_spec, capsys):
  from mrmt3.tasks import registration

  data = tmp_path / 'data'
  shutil.copytree(small_data, data)
  run(tmp_path / 'model', data, small_spec, 2)
  shutil.copytree(data / 'train' / 'Track00000', data / 'train' / 'Track00009')
  # As in a new process, which prepares the pieces again.
  for library in registration.LIBRARIES.values():
    library._splits.clear()
  run(tmp_path / 'model', data, small_spec, 4)
  assert 'is of a run with other data; the data starts from the beginning' in capsys.readouterr().err


def test_no_data(tmp_path, small_spec):
  with pytest.raises(UserError, match='no splits in'):
    run(tmp_path / 'model', tmp_path, small_spec, 1)


def command(*flags):
  return subprocess.run(
    [sys.executable, '-m', 'mrmt3.train', *flags], capture_output=True, text=True, check=False, cwd='/', timeout=300
  )


def test_command_trains_from_any_folder(tmp_path, small_data):
  sizes = ['emb_dim=16', 'num_heads=2', 'head_dim=8', 'mlp_dim=16', 'num_encoder_layers=1', 'num_decoder_layers=1']
  result = command(
    '--gin_file=runs/twin.gin',
    '--gin_file=runs/scored.gin',
    f'--gin.MODEL_DIR={tmp_path / "model"}',
    f'--gin.DATA_DIR={small_data}',
    '--gin.TRAIN_STEPS=4',
    '--gin.EVAL_PERIOD=4',
    '--gin.SCORED_SPLIT=test',
    '--gin.SCORED_PIECES=1',
    '--gin.SCORED_BATCH=1',
    '--gin.BATCH_SIZE=4',
    '--profile=1',
    *(f'--gin.network.T5Config.{size}' for size in sizes),
  )
  assert result.returncode == 0, result.stderr
  assert 'fresh weights' in result.stderr and 'step 4/4' in result.stderr
  assert 'emb_dim = 16' in (tmp_path / 'model' / 'config.gin').read_text()
  assert orbax_checkpoints.latest_step(tmp_path / 'model') == 4
  assert list((tmp_path / 'model' / 'profile').rglob('*.xplane.pb'))
  assert 'Total number of parameters' in (tmp_path / 'model' / 'model-info.txt').read_text()
  assert 'weight_decay = 0.01' in (tmp_path / 'model' / 'operative_config.gin').read_text()
  (scores,) = (tmp_path / 'model').glob('inference_eval/*-metrics.jsonl')
  (line,) = map(json.loads, scores.read_text().splitlines())
  assert line['step'] == 4 and 'leakage_ratio' in line and 'onset_f1' in result.stderr


def test_dry_run_shows_and_writes_nothing(tmp_path, small_data):
  result = command(
    '--dry_run',
    '--gin_file=runs/twin.gin',
    f'--gin.MODEL_DIR={tmp_path / "model"}',
    f'--gin.DATA_DIR={small_data}',
    '--gin.BATCH_SIZE=4',
  )
  assert result.returncode == 0, result.stderr
  assert 'mesh:' in result.stdout and 'memory:' in result.stdout and 'decoder_target_tokens: tie:0' in result.stdout
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'flags, message',
  [
    (['--gin_file=runs/nothing.gin'], 'runs/nothing.gin'),
    (['--gin_file=runs/twin.gin', '--gin.train.totl_steps=3'], 'totl_steps'),
    (['--gin_file=runs/twin.gin', '--gin.DATA_DIR=/nowhere'], 'MODEL_DIR'),
    (['--gin_file=runs/twin.gin', '--gin.DATA_DIR=/nowhere', '--gin.MODEL_DIR=/dev/null/x'], '/nowhere'),
  ],
)
def test_command_mistakes_are_one_line(flags, message):
  result = command(*flags)
  assert result.returncode == 2
  assert message in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
