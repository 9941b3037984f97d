"""Two processes train as one process with two devices does, stop together, and resume."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.engine import gin_utils
from mrmt3.errors import UserError
from mrmt3.training import multihost

SIZES = ['emb_dim=16', 'num_heads=2', 'head_dim=8', 'mlp_dim=16', 'num_encoder_layers=1', 'num_decoder_layers=1']


def free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def start(model_dir, data, steps, *more, module='train', devices=1, gin_file='runs/twin.gin'):
  flags = [
    f'--gin_file={gin_file}',
    f'--gin.MODEL_DIR={model_dir}',
    f'--gin.DATA_DIR={data}',
    f'--gin.TRAIN_STEPS={steps}',
    '--gin.BATCH_SIZE=4',
    '--gin.SAVE_PERIOD=4',
    '--gin.train.stats_period=1',
    '--gin.DROPOUT_RATE=0.0',
    '--gin.train.train_eval_dataset_cfg=@train_eval/utils.DatasetConfig()',
    "--gin.train_eval/utils.DatasetConfig.split='test'",
    '--gin.EVAL_PERIOD=4',
    *(f'--gin.network.T5Config.{size}' for size in SIZES),
    *more,
  ]
  flags_of_xla = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  return subprocess.Popen(
    [sys.executable, '-m', f'mrmt3.{module}', *flags],
    stderr=subprocess.PIPE,
    text=True,
    cwd='/',
    env={**os.environ, 'XLA_FLAGS': flags_of_xla},
  )


def start_two(model_dir, data, steps, *more):
  address = f'127.0.0.1:{free_port()}'
  several = ['--multiprocess_gpu', f'--coordinator_address={address}', '--process_count=2']
  return [start(model_dir, data, steps, *several, f'--process_index={index}', *more) for index in range(2)]


def finish(*processes):
  logs = [process.communicate(timeout=500)[1] for process in processes]
  return [process.returncode for process in processes], logs


def losses(model_dir, name='train'):
  return {
    line['step']: line['loss'] for line in map(json.loads, (model_dir / f'{name}.jsonl').read_text().splitlines())
  }


@pytest.mark.slow
def test_two_processes_train_as_one_with_two_devices(tmp_path, small_data):
  codes, logs = finish(start(tmp_path / 'one', small_data, 2, devices=2))
  assert codes == [0], logs
  codes, logs = finish(*start_two(tmp_path / 'two', small_data, 2))
  assert codes == [0, 0], logs
  one, two = losses(tmp_path / 'one'), losses(tmp_path / 'two')
  assert list(one) == list(two) == [1, 2]  # less than an epoch: hosts come to its end at different times
  np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=1e-4)
  # The hosts' shares of the evaluation data are of different sizes: one has a batch more.
  evaluations = [losses(tmp_path / name, 'training_eval') for name in ('one', 'two')]
  assert list(evaluations[0]) == list(evaluations[1]) == [2]
  np.testing.assert_allclose(list(evaluations[0].values()), list(evaluations[1].values()), rtol=1e-4)


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(tmp_path, small_data):
  codes, logs = finish(*start_two(tmp_path / 'whole', small_data, 60))
  assert codes == [0, 0], logs
  processes = start_two(tmp_path / 'parts', small_data, 60)
  until = time.monotonic() + 300
  while not (
    orbax_checkpoints.latest_step(tmp_path / 'parts') or processes[0].poll() is not None or time.monotonic() > until
  ):
    time.sleep(0.01)
  processes[1].send_signal(signal.SIGTERM)  # only one of them receives it
  codes, logs = finish(*processes)
  assert codes in ([143, 143], [0, 0]), logs  # 0 if they were done before
  codes, logs = finish(*start_two(tmp_path / 'parts', small_data, 60))
  assert codes == [0, 0], logs
  assert 'starts from the beginning' not in logs[0]
  assert losses(tmp_path / 'whole') == losses(tmp_path / 'parts')


def test_one_host_is_left_alone():
  batches = [{'x': np.ones((2, 3))}, {'x': np.ones((2, 5))}]
  assert list(multihost.same_batches(iter(batches), {'x': (2, 3)}, {'x': np.float32})) == batches
  assert (
    multihost.gather_bytes(b'a') == [b'a']
    and multihost.is_first()
    and multihost.any_host(True)
    and not multihost.any_host(False)
  )


def test_hosts_without_a_batch_fill_up_with_zeros(monkeypatch):
  """Simulate a host with one batch; the other host has two, of which the second is longer."""
  others = iter([[1, 2, 3], [1, 2, 5], [0, 2, 3]])
  monkeypatch.setattr(multihost.jax, 'process_count', lambda: 2)
  monkeypatch.setattr(multihost, '_all_gather', lambda x: np.stack([x, next(others)]))
  found = list(multihost.same_batches(iter([{'x': np.ones((2, 4))}]), {'x': (2, 3)}, {'x': np.float32}))
  np.testing.assert_array_equal(found[0]['x'], np.ones((2, 4)))
  assert len(found) == 2 and found[1]['x'].shape == (2, 5) and not found[1]['x'].any()


@pytest.mark.parametrize(
  'argv, value',
  [
    (['--multiprocess_gpu'], True),
    (['--multiprocess_gpu=false'], False),
    (['--nomultiprocess_gpu'], False),
    ([], False),
  ],
)
def test_flags_of_several_processes(argv, value):
  assert gin_utils.parse_flags(['--gin_file=a', *argv], 'train', '').multiprocess_gpu is value


@pytest.mark.parametrize(
  'argv',
  [
    ['--multiprocess_gpu', '--process_count=2'],
    ['--coordinator_address=a:1', '--process_count=2', '--process_index=0'],
  ],
)
def test_flags_of_several_processes_go_together(argv):
  with pytest.raises(UserError, match='process_count'):
    gin_utils.parse_flags(['--gin_file=a', *argv], 'train', '')


def test_nobody_at_the_address_is_one_line():
  argv = [
    '--multiprocess_gpu',
    f'--coordinator_address=127.0.0.1:{free_port()}',
    '--process_count=2',
    '--process_index=1',
  ]
  done = subprocess.run(
    [sys.executable, '-m', 'mrmt3.train', '--gin_file=runs/twin.gin', '--initialization_timeout=2', *argv],
    capture_output=True,
    text=True,
    check=False,
    cwd='/',
    timeout=200,
  )
  assert done.returncode == 2, done.stderr
  assert 'cannot connect process 1 of 2' in done.stderr.splitlines()[-1]
