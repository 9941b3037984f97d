"""Training with two processes over loopback equals training with one, also when processes are killed or stopped."""

import json
import os
import random
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.studies import twin_instruments

STEPS, PERIOD = 60, 7
SIZES = ['emb_dim=16', 'num_heads=2', 'head_dim=8', 'mlp_dim=16', 'num_encoder_layers=1', 'num_decoder_layers=1']


def free_port():
  with socket.socket() as listening:
    listening.bind(('127.0.0.1', 0))
    return listening.getsockname()[1]


def start(model_dir, data, hosts=2, devices=1, steps=STEPS, more=()):
  """Start the processes of a run; each has a log, <model_dir>.<index>."""
  flags = [
    '--gin_file=runs/twin.gin',
    f'--gin.MODEL_DIR={model_dir}',
    f'--gin.DATA_DIR={data}',
    f'--gin.TRAIN_STEPS={steps}',
    '--gin.BATCH_SIZE=4',
    f'--gin.SAVE_PERIOD={PERIOD}',
    '--gin.train.stats_period=5',
    *more,
    *(f'--gin.network.T5Config.{size}' for size in SIZES),
  ]
  together = ['--multiprocess_gpu', f'--coordinator_address=127.0.0.1:{free_port()}', f'--process_count={hosts}']
  xla = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  processes = []
  for index in range(hosts):
    command = [
      sys.executable,
      '-m',
      'mrmt3.train',
      *flags,
      *([*together, f'--process_index={index}'] if hosts > 1 else []),
    ]
    with open(f'{model_dir}.{index}', 'a') as log:
      environment = {**os.environ, 'XLA_FLAGS': xla, 'JAX_PLATFORMS': 'cpu'}
      processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd='/', env=environment))
  return processes


def log_of(model_dir, index):
  with open(f'{model_dir}.{index}') as log:
    return log.read()


def wait(processes, seconds=300):
  end = time.monotonic() + seconds
  try:
    return [process.wait(max(0.1, end - time.monotonic())) for process in processes]
  finally:
    kill(processes)


def kill(processes):
  for process in processes:
    process.kill()
    process.wait()


def finish(model_dir, data, **kwargs):
  codes = wait(start(model_dir, data, **kwargs))
  assert not any(codes), [log_of(model_dir, index)[-2000:] for index in range(len(codes))]


def wait_until(processes, happened):
  """Return when `happened()` is true, or a process has ended."""
  while not happened() and all(process.poll() is None for process in processes):
    time.sleep(0.002)


def latest(model_dir):
  return orbax_checkpoints.latest_step(model_dir) or 0


def state(model_dir):
  folder = orbax_checkpoints.checkpoint_folder(model_dir, latest(model_dir))
  with orbax_checkpoints._checkpointer() as checkpointer:
    return jax.tree.leaves(checkpointer.restore((folder / 'state').absolute()))


def losses(model_dir):
  lines = [json.loads(line) for line in (model_dir / 'train.jsonl').read_text().splitlines()]
  return [(line['step'], line['loss'], line['gradient_norm'], line['tokens_per_step']) for line in lines]


def assert_same_run(a, b):
  assert losses(a) == losses(b)
  assert latest(a) == latest(b) == STEPS
  for x, y in zip(state(a), state(b), strict=True):
    np.testing.assert_array_equal(x, y)
  assert orbax_checkpoints.checkpoint_steps(a) == orbax_checkpoints.checkpoint_steps(b)
  assert not [name for name in os.listdir(b) if name.startswith('.')]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """8 pieces of 3 segments: 6 batches of 4 an epoch, and 12 examples for each of two processes."""
  folder = tmp_path_factory.mktemp('data') / 'twins'
  twin_instruments.write_dataset(folder, seed=1, train_pieces=8, test_pieces=1, segment_seconds=0.512, pairs=2)
  return folder


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory, data):
  model_dir = tmp_path_factory.mktemp('unbroken') / 'model'
  finish(model_dir, data)
  return model_dir


def test_two_processes_are_one(tmp_path, data, unbroken):
  """Each process reads its shard of the data; together they have the examples and the losses of one process."""
  one = tmp_path / 'one'
  finish(one, data, hosts=1)
  together, alone = losses(unbroken), losses(one)
  # All batches have the same examples, in another order.
  np.testing.assert_allclose(together, alone, rtol=1e-5)
  assert 'other process' not in log_of(unbroken, 0)
  assert log_of(unbroken, 1).count('train step') == 0  # only the first one reports
  # Another topology restores the checkpoint: the same parameters and moments, the data from the beginning.
  (tmp_path / 'moved').mkdir()
  newest = orbax_checkpoints.checkpoint_folder(unbroken, STEPS)
  os.symlink(newest, tmp_path / 'moved' / newest.name)
  finish(tmp_path / 'moved', data, devices=2, steps=STEPS + 1, more=['--gin.NUM_PARTITIONS=2'])
  assert f'resuming from checkpoint_{STEPS}' in log_of(tmp_path / 'moved', 0)
  assert abs(losses(tmp_path / 'moved')[-1][1] / alone[-1][1] - 1) < 0.2


def run_all(script, gin_file, model_dir, data, out, hosts):
  """Run mrmt3.eval or mrmt3.infer on a checkpoint of `start` with several processes; return the output of each."""
  flags = [
    '--gin_file=models/tiny.gin',
    f'--gin_file={gin_file}',
    f'--gin.CHECKPOINT_PATH={model_dir}',
    f'--gin.DATA_DIR={data}',
    f'--gin.OUTPUT_DIR={out}',
    '--gin.SPLIT=train',
    '--gin.BATCH_SIZE=2',
    '--gin.SEGMENT_FRAMES=64',
    '--gin.TARGETS_LENGTH=64',
    '--gin.SpectrogramConfig.hop_width=256',
    '--gin.SpectrogramConfig.num_mel_bins=128',
    '--gin.network.T5Config.memory_length=16',
    *(f'--gin.network.T5Config.{size}' for size in SIZES),
  ]
  together = ['--multiprocess_gpu', f'--coordinator_address=127.0.0.1:{free_port()}', f'--process_count={hosts}']
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  processes = []
  for index in range(hosts):
    command = [
      sys.executable,
      '-m',
      f'mrmt3.{script}',
      *flags,
      *([*together, f'--process_index={index}'] if hosts > 1 else []),
    ]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True}
    processes.append(subprocess.Popen(command, cwd='/', env=environment, **pipes))
  try:
    texts = [process.communicate(timeout=300)[0] for process in processes]
  finally:
    kill(processes)
  assert not any(process.returncode for process in processes), texts
  return texts


def test_two_processes_evaluate_as_one(tmp_path, data, unbroken):
  found = []
  for hosts in (1, 2):
    texts = run_all('eval', 'runs/eval.gin', unbroken, data, tmp_path / f'eval{hosts}', hosts)
    (file,) = (tmp_path / f'eval{hosts}' / 'inference_eval').glob('*-metrics.jsonl')
    found.append(json.loads(file.read_text()))
  assert found[0] == found[1] and len(found[0]) > 5
  assert any('onset' in name for name in found[0]) and any('onset' in text for text in texts)


def test_two_processes_infer_as_one(tmp_path, data, unbroken):
  found = []
  for hosts in (1, 2):
    run_all('infer', 'runs/infer.gin', unbroken, data, tmp_path / f'infer{hosts}', hosts)
    (file,) = (tmp_path / f'infer{hosts}').glob('*-predict.jsonl-00000-of-00001')
    found.append([json.loads(line) for line in file.read_text().splitlines()])
  assert found[0] == found[1] and len(found[0]) == 8
  assert not list((tmp_path / 'infer2').glob('*-chunks'))


@pytest.mark.slow
@pytest.mark.parametrize('lost', [1, 0])
def test_a_lost_process_ends_the_other(tmp_path, data, lost):
  model_dir = tmp_path / 'model'
  processes = start(model_dir, data, steps=10**6)
  wait_until(processes, lambda: latest(model_dir))
  processes[lost].kill()
  killed = time.monotonic()
  codes = wait(processes, 100)
  assert time.monotonic() - killed < 60
  log = log_of(model_dir, 1 - lost)
  # Process 0 is where they meet: without the relay, jax would abort the other.
  assert codes[1 - lost] == 75
  assert 'another process of this run is lost' in log and 'Traceback' not in log and 'stack trace' not in log


@pytest.mark.slow
def test_sigterm_to_one_stops_both_after_the_same_step(tmp_path, data, unbroken):
  model_dir = tmp_path / 'model'
  processes = start(model_dir, data)
  wait_until(processes, lambda: latest(model_dir))
  processes[1].terminate()
  codes = wait(processes)
  if any(codes):  # otherwise they were done before the signal
    assert codes == [143, 143], log_of(model_dir, 0)
    assert 'saved checkpoint_' in log_of(model_dir, 0)
  finish(model_dir, data)
  assert_same_run(unbroken, model_dir)


def drill(model_dir, data, rng, most, steps=STEPS):
  """Kill one process or both at random times and restart them, up to `most` times or until the run is done."""
  kills = 0
  while kills < most and latest(model_dir) < steps:
    processes = start(model_dir, data)
    before, at_once = latest(model_dir), rng.random() < 0.5
    # Mostly after some progress, so that the run ends at some point; sometimes before any. Then a process that is left
    # may wait for the other one to start, which takes minutes.
    if rng.random() < 0.8:
      wait_until(processes, lambda before=before: latest(model_dir) > before)
    else:
      at_once = True
    time.sleep(rng.uniform(0, 0.5))
    kills += any(process.poll() is None for process in processes)
    victims = processes if at_once else [rng.choice(processes)]
    kill(victims)
    if not at_once:
      wait(processes, 90)  # the other one notices
    kill(processes)
  return kills


@pytest.mark.slow
def test_killed_and_started_again(tmp_path, data, unbroken):
  model_dir = tmp_path / 'model'
  assert drill(model_dir, data, random.Random(0), 2) == 2
  finish(model_dir, data)
  assert_same_run(unbroken, model_dir)


@pytest.mark.slow
def test_preemption_drill(tmp_path, data, unbroken):
  """Kill processes 20 times at random; starts a new run if one is done before."""
  rng, kills = random.Random(1), 0
  for attempt in range(20):
    model_dir = tmp_path / f'model_{attempt}'
    kills += drill(model_dir, data, rng, 20 - kills)
    finish(model_dir, data)
    assert_same_run(unbroken, model_dir)
    if kills >= 20:
      return
  raise AssertionError(f'only {kills} kills')
