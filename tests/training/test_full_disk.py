"""Training on a full disk: one line, nothing half-written, and the run resumes when there is room again."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from small_training import run

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError

KILOBYTES = (8, 16, 24, 40, 64, 128, 256, 384, 512, 768, 1024, 1536)


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


@pytest.mark.parametrize('kilobytes', KILOBYTES)
def test_one_line_nothing_left_and_resumed(disk, small_data, small_spec, uninterrupted, capfd, kilobytes):
  disk.resize(kilobytes)
  model_dir = disk.folder / 'run'
  with pytest.raises(UserError, match='space') as caught:
    run(model_dir, small_data, small_spec, 4)
  assert '\n' not in str(caught.value) and str(disk.folder) in str(caught.value)
  output = capfd.readouterr().err
  assert 'Traceback' not in output and 'Error' not in output and 'ERROR' not in output, output
  names = os.listdir(model_dir) if model_dir.exists() else []
  assert not [name for name in names if name.startswith('.')], names
  disk.resize(32 * 1024)
  run(model_dir, small_data, small_spec, 4)
  for a, b in zip(weights(model_dir), uninterrupted, strict=True):
    np.testing.assert_array_equal(a, b)
