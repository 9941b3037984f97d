"""Checkpoints of t5x before Orbax: a small one written by t5x, and broken ones."""

import shutil
import tarfile

import jax
import network_fixture
import numpy as np
import pytest
from paths import FIXTURES

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError


@pytest.fixture
def folder(tmp_path):
  with tarfile.open(FIXTURES / 't5x_legacy_checkpoint_3.tar.gz') as archive:
    archive.extractall(tmp_path, filter='data')
  return tmp_path / 'checkpoint_3'


def leaves(params):
  return {
    jax.tree_util.keystr(p, simple=True, separator='/'): x for p, x in jax.tree_util.tree_leaves_with_path(params)
  }


def test_reads_a_checkpoint_of_t5x(folder):
  params, step = orbax_checkpoints.restore_target(folder.parent)
  assert step == 3
  found, expected = leaves(params), leaves(network_fixture.t5x_params())
  assert found.keys() == expected.keys() and len(found) > 10
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_broken_checkpoints_raise_user_errors(folder):
  array = next(path for path in folder.iterdir() if path.name.startswith('target.'))
  shutil.rmtree(array)
  with pytest.raises(UserError, match=array.name):
    orbax_checkpoints.restore_target(folder)
  (folder / 'checkpoint').write_bytes(b'junk')
  with pytest.raises(UserError, match='not a checkpoint of t5x'):
    orbax_checkpoints.restore_target(folder)
