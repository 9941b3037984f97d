"""A run that is killed or stopped, and then resumed, ends as an uninterrupted one."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mrmt3.checkpoints import orbax as orbax_checkpoints

STEPS, PERIOD = 120, 7
SIZES = ['emb_dim=16', 'num_heads=2', 'head_dim=8', 'mlp_dim=16', 'num_encoder_layers=1', 'num_decoder_layers=1']


def start(model_dir, data):
  flags = [
    '--gin_file=runs/twin.gin',
    f'--gin.MODEL_DIR={model_dir}',
    f'--gin.DATA_DIR={data}',
    f'--gin.TRAIN_STEPS={STEPS}',
    '--gin.BATCH_SIZE=4',
    f'--gin.SAVE_PERIOD={PERIOD}',
    '--gin.train.stats_period=5',
    '--gin.DROPOUT_RATE=0.1',
    *(f'--gin.network.T5Config.{size}' for size in SIZES),
  ]
  return subprocess.Popen([sys.executable, '-m', 'mrmt3.train', *flags], stderr=subprocess.PIPE, text=True, cwd='/')


def finish(model_dir, data):
  process = start(model_dir, data)
  log = process.communicate(timeout=300)[1]
  assert process.returncode == 0, log
  return log


def wait_for(process, happened):
  """Return True when `happened()` is true, False when the process ends first."""
  while process.poll() is None:
    if happened():
      return True
    time.sleep(0.0005)
  return False


def kill(process):
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=60)


def state(model_dir):
  step = orbax_checkpoints.latest_step(model_dir)
  folder = orbax_checkpoints.checkpoint_folder(model_dir, step)
  with orbax_checkpoints._checkpointer() as checkpointer:
    return step, jax.tree.leaves(checkpointer.restore((folder / 'state').absolute()))


def losses(model_dir):
  lines = [json.loads(line) for line in (model_dir / 'train.jsonl').read_text().splitlines()]
  return [(line['step'], line['loss'], line['gradient_norm'], line['tokens_per_step']) for line in lines]


def assert_same_run(a, b):
  assert losses(a) == losses(b)
  (step_a, state_a), (step_b, state_b) = state(a), state(b)
  assert step_a == step_b == STEPS
  for x, y in zip(state_a, state_b, strict=True):
    np.testing.assert_array_equal(x, y)
  assert orbax_checkpoints.checkpoint_steps(a) == orbax_checkpoints.checkpoint_steps(b)
  assert not [name for name in os.listdir(b) if name.startswith('.')]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory, small_data):
  model_dir = tmp_path_factory.mktemp('unbroken') / 'model'
  finish(model_dir, small_data)
  return model_dir


def is_writing(model_dir):
  return model_dir.exists() and any(name.startswith('.writing_') for name in os.listdir(model_dir))


def test_killed_while_writing_then_terminated(tmp_path, small_data, unbroken):
  model_dir = tmp_path / 'model'
  process = start(model_dir, small_data)
  assert wait_for(process, lambda: orbax_checkpoints.latest_step(model_dir) and is_writing(model_dir))
  kill(process)
  killed_at = orbax_checkpoints.latest_step(model_dir)
  assert 0 < killed_at < STEPS
  process = start(model_dir, small_data)
  assert wait_for(process, lambda: orbax_checkpoints.latest_step(model_dir) > killed_at)
  process.send_signal(signal.SIGTERM)
  log = process.communicate(timeout=100)[1]
  assert f'resuming from checkpoint_{killed_at}' in log and 'passing' not in log
  if process.returncode:  # otherwise it was done before the signal
    assert process.returncode == 143 and 'saved checkpoint_' in log and 'Traceback' not in log
  finish(model_dir, small_data)
  # What SIGTERM saved has gone with the oldest.
  assert_same_run(unbroken, model_dir)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(3))
def test_killed_at_random(tmp_path, small_data, unbroken, seed):
  model_dir, rng, kills = tmp_path / 'model', random.Random(seed), 0
  for attempt in range(8):
    process = start(model_dir, small_data)
    before = orbax_checkpoints.latest_step(model_dir) or 0
    if attempt % 2:
      wait_for(
        process,
        lambda before=before: (orbax_checkpoints.latest_step(model_dir) or 0) > before and is_writing(model_dir),
      )
      time.sleep(rng.uniform(0, 0.05))
    else:
      wait_for(process, lambda: (model_dir / 'train.jsonl').exists())
      time.sleep(rng.uniform(0, 2))
    kills += process.poll() is None
    kill(process)
  assert kills >= 2
  finish(model_dir, small_data)
  assert_same_run(unbroken, model_dir)
