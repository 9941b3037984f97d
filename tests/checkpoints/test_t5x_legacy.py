"""Checkpoints of t5x before Orbax: a small one written by t5x, and broken ones."""

import gzip
import json
import os
import resource
import shutil
import tarfile
import time

import jax
import network_fixture
import numpy as np
import pytest
from flax import serialization
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


def first_array(folder):
  return next(path for path in sorted(folder.iterdir()) if path.name.startswith('target.'))


def edit_zarray(folder, **changes):
  file = first_array(folder) / '.zarray'
  file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tree(folder, edit):
  """Change the tree of the file `checkpoint`, given as {'optimizer': {'target': ..., 'state': ...}}."""
  tree = serialization.msgpack_restore((folder / 'checkpoint').read_bytes())
  edit(tree)
  (folder / 'checkpoint').write_bytes(serialization.msgpack_serialize(tree))


def lead_out(folder, name):
  """Move an array out of the checkpoint, and name it from there."""
  array = first_array(folder)
  outside = folder.parent / 'outside'
  shutil.copytree(array, outside)
  spec = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': name.format(outside=outside)}}
  edit_tree(folder, lambda tree: tree['optimizer']['target'].update(x=spec))


def link(path, target):
  shutil.rmtree(path) if path.is_dir() else path.unlink()
  path.symlink_to(target)


def bomb(folder):
  """Fill a chunk with 300 MB of zeros, compressed."""
  chunk = next(path for path in first_array(folder).iterdir() if path.name != '.zarray')
  chunk.write_bytes(gzip.compress(bytes(300 << 20)))


def damage(folder, change):
  """Change the bytes of a chunk."""
  chunk = next(path for path in first_array(folder).iterdir() if path.name != '.zarray')
  chunk.write_bytes(change(chunk.read_bytes()))


def nested(depth):
  node = np.zeros(1, np.float32)
  for _ in range(depth):
    node = {'a': node}
  return node


HOSTILE = {
  'file of links': lambda f: link(first_array(f), '/etc'),
  'chunk as a link': lambda f: link(first_array(f) / '.zarray', '/etc/passwd'),
  'link to a device': lambda f: link(f / 'checkpoint', '/dev/zero'),
  'pipe': lambda f: os.mkfifo(first_array(f) / '9.9'),
  'parent as an array': lambda f: lead_out(f, 'gs://x/..'),
  'name of an array outside': lambda f: lead_out(f, '{outside}/'),
  'another driver': lambda f: edit_tree(
    f, lambda t: t['optimizer']['target'].update(x={'driver': 'json', 'kvstore': {'path': first_array(f).name}})
  ),
  'store of a number': lambda f: edit_tree(
    f, lambda t: t['optimizer']['target'].update(x={'driver': 'zarr', 'kvstore': 3})
  ),
  'path of a number': lambda f: edit_tree(
    f, lambda t: t['optimizer']['target'].update(x={'driver': 'zarr', 'kvstore': {'path': 3}})
  ),
  'shape of 128 TiB': lambda f: edit_zarray(f, shape=[1 << 45], chunks=[1]),
  'chunks of 128 TiB': lambda f: edit_zarray(f, chunks=[1 << 40, 1 << 40]),
  'negative shape': lambda f: edit_zarray(f, shape=[-1, 5]),
  'shape of text': lambda f: edit_zarray(f, shape='big'),
  'dtype of objects': lambda f: edit_zarray(f, dtype='|O'),
  'dtype of 128 TiB': lambda f: edit_zarray(f, dtype='|V140737488355328'),
  'compressed bomb': bomb,
  'damaged chunk': lambda f: damage(f, lambda data: data[:-8] + bytes(8)),
  'truncated chunk': lambda f: damage(f, lambda data: data[:-20]),
  'chunk of junk': lambda f: damage(f, lambda data: b'junk'),
  'empty chunk': lambda f: damage(f, lambda data: b''),
  'unknown compressor': lambda f: edit_zarray(f, compressor={'id': 'blosc'}),
  'compressor of a number': lambda f: edit_zarray(f, compressor=3),
  'deep tree': lambda f: edit_tree(f, lambda t: t['optimizer']['target'].update(x=nested(200))),
  'name with a slash': lambda f: edit_tree(f, lambda t: t['optimizer']['target'].update({'../x': np.zeros(1)})),
  'text in place of an array': lambda f: edit_tree(f, lambda t: t['optimizer']['target'].update(x='text')),
  'target of an array': lambda f: edit_tree(f, lambda t: t['optimizer'].update(target=np.zeros(2))),
  'target of a store': lambda f: edit_tree(
    f, lambda t: t['optimizer'].update(target={'driver': 'zarr', 'kvstore': {'path': first_array(f).name}})
  ),
  'empty target': lambda f: edit_tree(f, lambda t: t['optimizer'].update(target={})),
  'negative step': lambda f: edit_tree(f, lambda t: t['optimizer']['state'].update(step=-1)),
  'step of an array': lambda f: edit_tree(f, lambda t: t['optimizer']['state'].update(step=np.zeros(5))),
  'no optimizer': lambda f: edit_tree(f, lambda t: t.pop('optimizer')),
  'list of 2 ** 32': lambda f: (f / 'checkpoint').write_bytes(b'\xdd\xff\xff\xff\xff'),
  'lists in lists': lambda f: (f / 'checkpoint').write_bytes(b'\x91' * 100_000 + b'\xc0'),
  'array of 2 ** 40': lambda f: (f / 'checkpoint').write_bytes(
    b'\xc7\x10\x01\x93\x91\xcf' + bytes([0, 0, 1]) + bytes(9)
  ),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_checkpoints_are_one_line(folder, name):
  HOSTILE[name](folder)
  memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
  with pytest.raises(UserError) as error:
    orbax_checkpoints.restore_target(folder)
  assert str(error.value).isprintable() and len(str(error.value)) < 600 and str(folder) in str(error.value)
  assert time.process_time() - start < 10
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200 << 10


def test_a_checkpoint_behind_a_link_is_read(folder, tmp_path):
  (tmp_path / 'name').symlink_to(folder)
  assert orbax_checkpoints.restore_target(tmp_path / 'name')[1] == 3
