"""Training on a full disk: one line, nothing half-written, and the run resumes when there is room again."""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from small_training import run

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError

KILOBYTES = (16, 64, 1024)


class Disk:
  """A small file system of its own."""

  def __init__(self, folder):
    self.folder = folder

  def resize(self, kilobytes):
    subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', f'remount,size={kilobytes}k', 'none', self.folder], check=True, capture_output=True
    )

  def fill(self, free=0):
    """Write a file that leaves `free` bytes."""
    with open(self.folder / 'filler', 'wb', buffering=0) as file:
      room = os.statvfs(self.folder)
      file.write(bytes(max(room.f_bavail * room.f_bsize - free, 0)))


@pytest.fixture
def disk(tmp_path):
  folder = tmp_path / 'disk'
  folder.mkdir()
  try:
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8k', 'none', folder], capture_output=True, check=False)
  except OSError:
    pytest.skip('there is no mount command')
  if done.returncode:
    pytest.skip(f'mounting is not allowed: {done.stderr.decode().strip()}')
  yield Disk(folder)
  subprocess.run(['umount', '-l', folder], check=True)


def weights(model_dir):
  return jax.tree.leaves(orbax_checkpoints.restore_params(model_dir)[0])


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, small_data, small_spec):
  folder = tmp_path_factory.mktemp('whole')
  run(folder, small_data, small_spec, 4)
  return weights(folder)


def no_noise(output):
  return not any(word in output for word in ('Traceback', 'Error', 'ERROR')) or pytest.fail(output)


def hidden(folder):
  return [name for name in os.listdir(folder) if name.startswith('.')] if folder.exists() else []


def test_a_checkpoint_is_written_whole_or_not_at_all(disk, capfd):
  rng = np.random.default_rng(0)
  arrays = {f'a{number}': rng.normal(size=(number + 1, 64)).astype(np.float32) for number in range(40)}
  state = {'target': arrays, 'state': {'step': np.int32(3)}}
  written = []
  for kilobytes in (4, 8, 12, 24, 48, 96, 180, 210, 240, 400):
    disk.resize(kilobytes)
    try:
      orbax_checkpoints.save_checkpoint(disk.folder / 'run', kilobytes, state, None)
      written.append(kilobytes)
    except UserError as error:
      assert 'no space left' in str(error) and '\n' not in str(error)
    assert not hidden(disk.folder / 'run')
    assert orbax_checkpoints.checkpoint_steps(disk.folder / 'run') == [kilobytes] * (kilobytes in written)
    shutil.rmtree(disk.folder / 'run', ignore_errors=True)
  assert 400 in written and 96 not in written
  assert no_noise(capfd.readouterr().err)


@pytest.mark.parametrize('kilobytes', KILOBYTES)
def test_one_line_nothing_left_and_resumed(disk, small_data, small_spec, uninterrupted, capfd, kilobytes):
  disk.resize(kilobytes)
  model_dir = disk.folder / 'run'
  with pytest.raises(UserError, match='space') as caught:
    run(model_dir, small_data, small_spec, 4)
  assert '\n' not in str(caught.value) and str(disk.folder) in str(caught.value)
  assert no_noise(capfd.readouterr().err)
  assert not hidden(model_dir)
  disk.resize(32 * 1024)
  run(model_dir, small_data, small_spec, 4)
  for a, b in zip(weights(model_dir), uninterrupted, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('free', [0, 4096])
def test_the_command_prints_one_line(disk, small_data, free):
  """The run's folder and the cache of pieces are on the same full disk."""
  disk.resize(1024)
  disk.fill(free)
  flags = [
    *('--gin_file=models/tiny.gin', '--gin_file=optimizers/mr_mt3.gin', '--gin_file=runs/train.gin'),
    *(f'--gin.DATA_DIR={small_data}', f'--gin.MODEL_DIR={disk.folder / "run"}', '--gin.BATCH_SIZE=2'),
    *('--gin.TRAIN_STEPS=2', '--gin.train.train_eval_dataset_cfg=None'),
  ]
  done = subprocess.run(
    [sys.executable, '-m', 'mrmt3.train', *flags],
    env={**os.environ, 'MRMT3_CACHE': str(disk.folder / 'cache')},
    capture_output=True,
    text=True,
    check=False,
    cwd='/',
    timeout=300,
  )
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith('mrmt3: error: cannot ') and len(done.stderr.splitlines()) == 1, done.stderr
  assert 'No space left on device' in done.stderr and not hidden(disk.folder / 'run')
