"""Training on several devices or processes equals training on one device: the same losses and checkpoints."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

# Code shared by the processes below. 8 devices are simulated on the CPU; results are printed as JSON.
COMMON = """
import json, sys
import jax, numpy as np
from mrmt3 import config, models, network, spectrograms
from mrmt3.engine import adafactor, optimizers, partitioning, trainer

def features(rows=16, length=32, seed=0):
  rng = np.random.default_rng(seed)
  targets = rng.integers(3, 1000, (rows, length)).astype(np.int32)
  targets[:, 24:] = 0
  targets[0, 5:] = 0
  return {
      'encoder_input_tokens': rng.normal(size=(rows, 32, 32)).astype(np.float32), 'decoder_target_tokens': targets,
      'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
      'decoder_loss_weights': (targets > 0).astype(np.int32),
      'prior_tokens': rng.integers(3, 1000, (rows, length)).astype(np.int32),
  }

def make(partitioner, optimizer=None, parts=None, dropout=0.0, dtype='float32', remat=False, layers=2, mlp=64):
  spec = config.ModelSpec(
      network.T5Config(vocab_size=1536, emb_dim=32, num_heads=4, num_encoder_layers=layers, num_decoder_layers=layers,
                       head_dim=8, mlp_dim=mlp, dropout_rate=dropout, memory_length=4, dtype=dtype),
      spectrograms.SpectrogramConfig(num_mel_bins=32), segment_frames=32, targets_length=32)
  model = models.MemoryEncoderDecoderModel(
      spec, optimizer or optimizers.adamw(1e-2), loss_normalizing_factor='NUM_REAL_TARGET_TOKENS', remat=remat)
  return trainer.Trainer(model, partitioner, jax.random.key(0), lambda step: 1e-2, parts)

def train(runner, steps=3):
  state, losses = runner.initial_state(features()), []
  for step in range(steps):
    state, numbers = runner.train_step(state, runner.partitioner.place_batch(features(seed=step)))
    losses.append(float(numbers['loss'] / numbers['tokens']))
  return state, losses
"""


def run(code, *arguments, devices=8, timeout=600, more_flags=''):
  """Run a program on simulated devices; return the JSON of the last line that it prints."""
  flags = ' '.join([os.environ.get('XLA_FLAGS', ''), f'--xla_force_host_platform_device_count={devices}', more_flags])
  done = subprocess.run(
    [sys.executable, '-c', COMMON + textwrap.dedent(code), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
    timeout=timeout,
    env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def one_device():
  return run(
    """
      both = {'adamw': optimizers.adamw(1e-2), 'adafactor': adafactor.Adafactor(min_dim_size_to_factor=16)}
      print(json.dumps({name: train(make(partitioning.PjitPartitioner(), o))[1] for name, o in both.items()}))
      """,
    devices=1,
  )


def test_losses_on_meshes_are_those_of_one_device(one_device):
  results = run(
    """
      def losses(optimizer=None, parts=None, remat=False, **arguments):
        return train(make(partitioning.PjitPartitioner(**arguments), optimizer, parts, remat=remat))[1]

      two_dims = partitioning.standard_logical_axis_rules(parameter_partitioning_dims=2)
      print(json.dumps({
          'data': losses(),
          'model': losses(num_partitions=2),
          'all model': losses(num_partitions=8),
          'both': losses(num_partitions=2, logical_axis_rules=two_dims),
          'microbatches': losses(parts=2, num_partitions=2),
          'remat': losses(remat=True, num_partitions=2),
          'adafactor': losses(adafactor.Adafactor(min_dim_size_to_factor=16), num_partitions=2),
      }))
      """
  )
  for name, losses in results.items():
    expected = one_device['adafactor' if name == 'adafactor' else 'adamw']
    assert np.ptp(expected) > 0.03  # something is learnt
    np.testing.assert_allclose(losses, expected, rtol=1e-5, err_msg=name)


def test_parameters_and_moments_are_split_and_stay_so():
  result = run(
    """
      from mrmt3.training import dry_run as dry_running

      partitioner = partitioning.PjitPartitioner(num_partitions=4)
      runner = make(partitioner)
      estimated = dry_running.training_bytes(runner, features())[:2]
      state, _ = train(runner, 1)
      on_first = lambda tree: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
      whole = dry_running.tree_bytes(state.params)
      first = lambda tree: {
          jax.tree_util.keystr(path, simple=True, separator='/'): [
              list(x.shape), list(x.addressable_shards[0].data.shape)
          ]
          for path, x in jax.tree_util.tree_leaves_with_path(tree)
      }
      placed = on_first(state.params), on_first(state.opt_state)
      shape = dict(partitioner.mesh.shape)
      print(json.dumps([first(state.params), first(state.opt_state), shape, estimated, placed, whole]))
      """
  )
  params, moments, mesh, estimated, placed, whole = result
  assert estimated == placed and estimated[0] < 0.3 * whole  # the bytes per device of --dry_run
  assert mesh == {'data': 2, 'model': 4}
  for kind in ('/mu/', '/nu/'):
    assert {name.split(kind)[1]: shapes for name, shapes in moments.items() if kind in name} == params
  split = {
    'decoder/token_embedder/embedding': ([1536, 32], [384, 32]),
    'decoder/layers_0/self_attention/query/kernel': ([32, 32], [32, 8]),
    'decoder/layers_0/self_attention/out/kernel': ([32, 32], [8, 32]),
    'encoder/layers_1/mlp/wi_0/kernel': ([32, 64], [32, 16]),
    'encoder/layers_1/mlp/wo/kernel': ([64, 32], [16, 32]),
    'decoder/logits_dense/kernel': ([32, 1536], [32, 384]),
    'encoder/layers_0/pre_mlp_layer_norm/scale': ([32], [32]),
  }
  for name, shapes in split.items():
    assert tuple(params[name]) == shapes, name


def test_bfloat16_and_remat(one_device):
  """bfloat16 activations stay close to float32; rematerialization changes only the memory."""
  result = run(
    """
      def cost(remat):
        runner, batch = make(one, remat=remat, layers=4, mlp=512), features(64)
        state = jax.eval_shape(runner.initial_state_unplaced, batch)
        compiled = runner.train_step.lower(state, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes, compiled.cost_analysis()['flops']

      one = partitioning.PjitPartitioner()
      print(json.dumps({
          'half': train(make(one, dtype='bfloat16'))[1],
          'plain': train(make(one, dropout=0.1))[1], 'remat': train(make(one, dropout=0.1, remat=True))[1],
          'costs': [cost(False), cost(True)],
      }))
      """,
    devices=1,
    more_flags='--xla_cpu_enable_concurrency_optimized_scheduler=false',  # which spends memory on running in parallel
  )
  np.testing.assert_allclose(result['half'], one_device['adamw'], rtol=0.03)
  assert result['half'] != one_device['adamw']
  np.testing.assert_allclose(result['plain'], result['remat'], rtol=1e-5)
  (kept, once), (fewer, more) = result['costs']
  assert fewer < 0.9 * kept and 1.1 * once < more < 1.5 * once


def test_checkpoints_go_from_one_topology_to_another(tmp_path):
  """A checkpoint of 8 devices with 2 partitions is restored bit for bit with 4 partitions and on 1 device."""
  save = """
      from mrmt3.training import save as saving
      runner = make(partitioning.PjitPartitioner(num_partitions=2))
      state, _ = train(runner)
      saver = saving.CheckpointSaver(sys.argv[1], runner.model.spec)
      saver.save(3, state.state_dict(), {})
      saver.close()
      print(json.dumps(sum(float(np.abs(x).sum()) for x in jax.tree.leaves(jax.device_get(state)))))
      """
  restore_position = """
      from mrmt3.training import restore as restoring
      runner = make(partitioning.PjitPartitioner(num_partitions=int(sys.argv[2])))
      state, origin = restoring.start_state(runner, None, sys.argv[1], features())
      assert origin == 'resuming from checkpoint_3'
      total = sum(float(np.abs(x).sum()) for x in jax.tree.leaves(jax.device_get(state)))
      shard = state.params['encoder']['layers_0']['mlp']['wi_0']['kernel'].addressable_shards[0].data.shape
      _, numbers = runner.train_step(state, runner.partitioner.place_batch(features(seed=3)))
      print(json.dumps([total, list(shard), float(numbers['loss'] / numbers['tokens'])]))
      """
  total = run(save, tmp_path)
  results = [run(restore_position, tmp_path, partitions, devices=n) for partitions, n in ((4, 8), (1, 1))]
  assert [shard for _, shard, _ in results] == [[32, 16], [32, 64]]
  assert all(found == total for found, _, _ in results)
  np.testing.assert_allclose(results[0][2], results[1][2], rtol=1e-5)


def test_what_cannot_be_split_is_said():
  result = run(
    """
      from mrmt3.errors import UserError
      messages = []
      def attempt(**arguments):
        try:
          batch = features()
          runner = make(partitioning.PjitPartitioner(**arguments))
          runner.partitioner.check_batch_size(16 if len(messages) != 2 else 12, 'train_dataset_cfg')
          runner.initial_state(batch)
          messages.append('nothing')
        except UserError as error:
          messages.append(str(error))
      attempt(num_partitions=3)
      attempt(model_parallel_submesh=(1, 1, 2))
      attempt(num_partitions=1)
      attempt(num_partitions=2, model_parallel_submesh=(1, 2))
      attempt(num_partitions=8, logical_axis_rules=[('embed', None)])
      attempt(logical_axis_rules=[('embed', 'rows')])
      print(json.dumps(messages))
      """
  )
  for line, part in zip(
    result,
    [
      'num_partitions is 3; such blocks must fill the 8 devices',
      'it must be 2 integers',
      'batch_size 12 is not a multiple of the 8',
      'not both',
      'can be split into 8 partitions',
      "'rows'",
    ],
    strict=True,
  ):
    assert part in line
