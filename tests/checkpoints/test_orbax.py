import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mrmt3 import network
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints import spec_json
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.spectrograms import SpectrogramConfig

SPEC = ModelSpec(
  network.T5Config(
    vocab_size=1536,
    emb_dim=8,
    num_heads=1,
    head_dim=4,
    mlp_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    memory_length=2,
  ),
  SpectrogramConfig(num_mel_bins=16),
  segment_frames=8,
  targets_length=16,
)


def make_state(seed=0):
  rng = np.random.default_rng(seed)
  shapes = SPEC.parameter_shapes()
  params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
  moments = optax.adamw(1e-3).init(params)
  moments = jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape) * 10, x.dtype), moments)
  return jax.device_get({'target': params, 'state': {'step': jnp.int32(7), 'param_states': moments}})


STATE = make_state()


@pytest.fixture(scope='module')
def model_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('model')
  orbax_checkpoints.save_checkpoint(folder, 7, STATE, SPEC)
  return folder


def assert_same_bits(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert np.asarray(a).dtype == np.asarray(e).dtype
    np.testing.assert_array_equal(a, e)


def test_params_round_trip(model_dir):
  for path in (model_dir, model_dir / 'checkpoint_7', str(model_dir)):
    params, spec, step = orbax_checkpoints.restore_params(path)
    assert_same_bits(params, STATE['target'])
    assert (spec, step) == (SPEC, 7)


def test_state_round_trips_bit_for_bit(model_dir):
  assert_same_bits(orbax_checkpoints.restore_state(model_dir / 'checkpoint_7', make_state(1)), STATE)


def test_the_newest_is_found_and_old_ones_are_removed(tmp_path):
  assert orbax_checkpoints.latest_step(tmp_path / 'none') is None
  for step in (9, 100, 20):
    orbax_checkpoints.save_checkpoint(tmp_path, step, {'target': STATE['target']}, SPEC)
  (tmp_path / 'checkpoint_x').mkdir()
  assert orbax_checkpoints.latest_step(tmp_path) == 100
  assert orbax_checkpoints.restore_params(tmp_path)[2] == 100
  orbax_checkpoints.remove_old(tmp_path, 2)
  assert orbax_checkpoints.checkpoint_steps(tmp_path) == [20, 100]
  orbax_checkpoints.remove_old(tmp_path, 0)
  assert orbax_checkpoints.checkpoint_steps(tmp_path) == [100]


def test_same_step_is_replaced_without_leftovers(tmp_path):
  (tmp_path / '.writing_killed').mkdir()  # left by a killed run
  for seed in (1, 2):
    orbax_checkpoints.save_checkpoint(tmp_path, 3, make_state(seed), SPEC)
  assert [p.name for p in tmp_path.iterdir()] == ['checkpoint_3']
  assert_same_bits(orbax_checkpoints.restore_params(tmp_path)[0], make_state(2)['target'])


def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
  def full(self, *args, **kwargs):
    raise OSError(28, 'No space left on device')

  import orbax.checkpoint as ocp

  monkeypatch.setattr(ocp.Checkpointer, 'save', full)
  with pytest.raises(UserError, match='no space left'):
    orbax_checkpoints.save_checkpoint(tmp_path, 3, STATE, SPEC)
  assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot make the folder'):
    orbax_checkpoints.save_checkpoint(tmp_path / 'file' / 'model', 3, STATE, SPEC)


def copy_of(model_dir, tmp_path):
  return Path(shutil.copytree(model_dir / 'checkpoint_7', tmp_path / 'checkpoint_7'))


def assert_one_line_error(path, message, read=orbax_checkpoints.restore_params):
  with pytest.raises(UserError, match=message) as info:
    read(path)
  assert '\n' not in str(info.value)


def test_invalid_checkpoints(model_dir, tmp_path):
  assert_one_line_error(tmp_path, 'not a checkpoint')
  assert_one_line_error(tmp_path / 'none', 'no such checkpoint')
  assert_one_line_error(model_dir / 'checkpoint_7' / 'model.json', 'not a checkpoint')


def test_broken_checkpoints(model_dir, tmp_path):
  folder = copy_of(model_dir, tmp_path)
  (folder / 'model.json').write_bytes(b'\xff\xfe')
  assert_one_line_error(folder, 'model.json')
  (folder / 'model.json').write_text('{"network": {}}')
  assert_one_line_error(folder, 'vocab_size')
  other = dataclasses.replace(SPEC, network=dataclasses.replace(SPEC.network, mlp_dim=5))
  (folder / 'model.json').write_text(spec_json.to_json(other))
  assert_one_line_error(folder, 'mlp')
  (folder / 'model.json').write_text(spec_json.to_json(SPEC))
  orbax_checkpoints.restore_params(folder)
  for data in folder.glob('state/**/d/*'):
    content = bytearray(data.read_bytes())
    for place in range(len(content) // 4, len(content) // 2, 97):
      content[place] ^= 0xFF
    data.write_bytes(content)
  assert_one_line_error(folder, 'cannot read|holds no parameters')
  for data in folder.glob('state/**/d/*'):
    data.write_bytes(data.read_bytes()[:100])
  assert_one_line_error(folder, 'holds no parameters')
  for file in [*folder.glob('state/_*'), *folder.glob('state/*.ocdbt')]:
    file.unlink()
  assert_one_line_error(folder, 'cannot read|holds no parameters')


def edit_metadata(folder, edit):
  file = folder / 'state' / '_METADATA'
  metadata = json.loads(file.read_text())
  edit(metadata['tree_metadata'])
  file.write_text(json.dumps(metadata))


def rename(folder, *parts):
  """Give an array another path in the metadata."""
  entry = {
    'key_metadata': [{'key': part, 'key_type': 2} for part in parts],
    'value_metadata': {'value_type': 'ndarray'},
  }
  edit_metadata(folder, lambda tree: tree.update({str(tuple(parts)): entry}))


def move_out(path):
  """Move a file or folder out of the checkpoint, and leave a link to it."""
  checkpoint = next(parent for parent in path.parents if parent.name == 'checkpoint_7')
  outside = checkpoint.parent / 'outside'
  outside.mkdir(exist_ok=True)
  shutil.move(path, outside / path.name)
  path.symlink_to(outside / path.name)


def first_file(folder):
  return next(path for path in sorted(folder.glob('state/d/*')))


def declare(folder, shape, chunks=None):
  """Replace the stored parameters with one array of that shape, without data."""
  import tensorstore

  shutil.rmtree(folder)
  state = {'target': {'w': np.zeros(2, np.float32)}, 'state': {'step': np.int32(1)}}
  orbax_checkpoints.save_checkpoint(folder.parent, 7, state, SPEC)
  store = {'driver': 'ocdbt', 'base': f'file://{folder.absolute()}/state', 'path': 'target.w/'}
  metadata = {'shape': shape, 'chunks': chunks or [1], 'dtype': '<f4', 'compressor': None}
  create = {'driver': 'zarr', 'kvstore': store, 'metadata': metadata, 'create': True, 'delete_existing': True}
  tensorstore.open(create).result()


def compress(folder, compressor, size=200_000_000):
  """Replace a stored chunk with one that expands to `size` floats."""
  import tensorstore

  declare(folder, [1])
  store = {'driver': 'ocdbt', 'base': f'file://{folder.absolute()}/state', 'path': 'target.w/'}
  metadata = {'dtype': '<f4', 'compressor': compressor, 'fill_value': None}
  options = {'driver': 'zarr', 'kvstore': store, 'create': True, 'delete_existing': True}
  code = f"""
import numpy, tensorstore
options = {options!r} | {{'metadata': {metadata!r} | {{'shape': [{size}], 'chunks': [{size}]}}}}
tensorstore.open(options).result().write(numpy.ones({size}, 'f4')).result()
"""
  subprocess.run([sys.executable, '-c', code], check=True)  # its memory is not that of this process
  values = tensorstore.KvStore.open({**store}).result()
  name = next(key for key in values.list().result() if key.endswith(b'.zarray'))
  declared = json.loads(values.read(name).result().value) | {'shape': [1], 'chunks': [1]}
  values.write(name, json.dumps(declared).encode()).result()


HOSTILE = {
  'state as a link': lambda f: move_out(f / 'state'),
  'file as a link': lambda f: move_out(first_file(f)),
  'metadata as a link': lambda f: move_out(f / 'state' / '_METADATA'),
  'link to a device': lambda f: (f / 'state' / 'd' / 'zero').symlink_to('/dev/zero'),
  'pipe': lambda f: os.mkfifo(f / 'state' / 'd' / 'pipe'),
  'link to itself': lambda f: (f / 'state' / 'loop').symlink_to(f / 'state' / 'loop'),
  'link to a parent': lambda f: (f / 'state' / 'up').symlink_to('..' + '/..' * 3),
  'name with a slash': lambda f: rename(f, 'target', '../../../etc'),
  'parent as a name': lambda f: rename(f, 'target', '..', 'x'),
  'control characters': lambda f: rename(f, 'target', 'x\x1b[2J'),
  'deep name': lambda f: rename(f, 'target', *['a'] * 10_000),
  'deep metadata': lambda f: (f / 'state' / '_METADATA').write_text('{"tree_metadata":' * 100_000),
  'metadata of a list': lambda f: (f / 'state' / '_METADATA').write_text('[]'),
  'metadata of numbers': lambda f: (f / 'state' / '_METADATA').write_text('{"tree_metadata": {"x": 3}}'),
  'huge metadata': lambda f: (f / 'state' / '_METADATA').write_bytes(b' ' * (20 << 20)),
  'shape of 128 TiB': lambda f: declare(f, [1 << 45]),
  'chunks of 128 TiB': lambda f: declare(f, [1], [1 << 45]),
  'chunk of blosc': lambda f: compress(f, {'id': 'blosc', 'cname': 'lz4', 'clevel': 9, 'shuffle': 1}),
  'chunk of bz2': lambda f: compress(f, {'id': 'bz2', 'level': 1}, 1000),
  'chunk of zstd': lambda f: compress(f, {'id': 'zstd', 'level': 1}),
  'chunk of gzip': lambda f: compress(f, {'id': 'gzip', 'level': 1}),
  'target of an array': lambda f: (
    shutil.rmtree(f),
    orbax_checkpoints.save_checkpoint(f.parent, 7, {'target': np.zeros(2), 'state': {}}, SPEC),
  ),
  'an array and a group': lambda f: rename(f, 'target'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_checkpoints(model_dir, tmp_path, name):
  (tmp_path / 'model').mkdir()
  folder = copy_of(model_dir, tmp_path / 'model')
  HOSTILE[name](folder)
  memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
  assert_one_line_error(folder, 'checkpoint_7')
  if 'TiB' not in name:
    assert_one_line_error(folder, 'checkpoint_7', lambda path: orbax_checkpoints.restore_state(path, STATE))
  assert time.process_time() - start < 20
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300 << 10


def test_links_that_stay_inside_are_followed(model_dir, tmp_path):
  folder = copy_of(model_dir, tmp_path)
  file = first_file(folder)
  shutil.move(file, folder / 'moved')
  file.symlink_to('../../moved')
  (tmp_path / 'name').symlink_to(folder)
  assert_same_bits(orbax_checkpoints.restore_params(tmp_path / 'name')[0], STATE['target'])


def test_state_of_another_structure(model_dir):
  like = {'target': STATE['target'], 'state': {'step': np.int32(0), 'param_states': {'other': np.zeros(3)}}}
  assert_one_line_error(model_dir, 'cannot read|expected', lambda path: orbax_checkpoints.restore_state(path, like))


def test_neither_tensorflow_nor_seqio_are_imported(model_dir):
  code = (
    'import sys; from mrmt3 import checkpoints; checkpoints.restore_params(sys.argv[1]); '
    "sys.exit(any(name in sys.modules for name in ('tensorflow', 'seqio')))"
  )
  from paths import ROOT as root

  result = subprocess.run(
    [sys.executable, '-c', code, str(model_dir)], cwd=root, capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
  assert result.stderr == ''
