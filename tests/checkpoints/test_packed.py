import json
import os
import time

import jax
import ml_dtypes
import numpy as np
import pytest

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints import packed
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.inference import loading
from mrmt3.network import T5Config

SPEC = ModelSpec(
  T5Config(
    vocab_size=1536,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    memory_length=4,
  )
)


def random_params(seed=0):
  rng = np.random.default_rng(seed)
  shapes = SPEC.parameter_shapes()
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_params_round_trip(tmp_path, dtype):
  params = random_params()
  packed.save(tmp_path / 'm', params, SPEC, {'name': 'm'}, dtype)
  found, spec, step = orbax_checkpoints.restore_params(tmp_path / 'm')
  assert spec == SPEC and step == 0
  expected = jax.tree.map(
    lambda x: x.astype(ml_dtypes.bfloat16 if dtype == 'bfloat16' else dtype).astype(np.float32), params
  )
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert orbax_checkpoints.restore_target(tmp_path / 'm')[0].keys() == params.keys()
  assert packed.read_about(tmp_path / 'm') == {'name': 'm'}


def test_bfloat16_takes_half_the_bytes(tmp_path):
  sizes = []
  for dtype in packed.DTYPES:
    packed.save(tmp_path / dtype, random_params(), SPEC, dtype=dtype)
    sizes.append((tmp_path / dtype / packed.WEIGHTS_NAME).stat().st_size)
  assert sizes[0] < 0.55 * sizes[1]
  assert packed.read_about(tmp_path / 'float32') == {}


def test_broken_weights_and_wrong_shapes_raise_user_errors(tmp_path):
  packed.save(tmp_path, random_params(), SPEC)
  weights = tmp_path / packed.WEIGHTS_NAME
  whole = weights.read_bytes()
  for broken in (whole[:100], whole[:-7], b'', b'\xff' * 64):
    weights.write_bytes(broken)
    with pytest.raises(UserError, match=r'weights\.safetensors'):
      orbax_checkpoints.restore_params(tmp_path)
  params = random_params()
  params['decoder']['decoder_norm']['scale'] = np.ones(9, np.float32)
  packed.save(tmp_path, params, SPEC)
  with pytest.raises(UserError, match='decoder/decoder_norm/scale'):
    orbax_checkpoints.restore_params(tmp_path)


def test_bad_targets_raise_user_errors(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file'):
    packed.save(tmp_path / 'file' / 'm', random_params(), SPEC)
  with pytest.raises(UserError, match='dtype'):
    packed.save(tmp_path / 'm', random_params(), SPEC, dtype='float8')


def stored(header, data=b'', length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return (len(text) if length is None else length).to_bytes(8, 'little') + text + data


def entry(shape=(2,), offsets=(0, 8), dtype='F32'):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': offsets}


HOSTILE = {
  'header longer than the file': stored(b'{}', length=1 << 40),
  'header of 2 ** 64': stored(b'{}', length=(1 << 64) - 1),
  'header of 100 MB': stored(b' ' * (100 << 20)),
  'huge offsets': stored({'w': entry(offsets=(0, 1 << 47))}, bytes(8)),
  'offsets of 400 digits': stored({'w': entry(offsets=(0, 10**400))}, bytes(8)),
  'negative offsets': stored({'w': entry(offsets=(-8, 0))}, bytes(8)),
  'offsets in reverse': stored({'w': entry(offsets=(8, 0))}, bytes(8)),
  'overlapping': stored({'a': entry(), 'b': entry()}, bytes(8)),
  'a gap': stored({'a': entry(), 'b': entry(offsets=(12, 20))}, bytes(20)),
  'more data': stored({'a': entry()}, bytes(12)),
  'less data': stored({'a': entry()}, bytes(4)),
  'huge shape': stored({'w': entry(shape=(1 << 47, 1 << 47), offsets=(0, 8))}, bytes(8)),
  'shape that overflows to 2': stored({'w': entry(shape=(1 << 33, 1 << 31, 2))}, bytes(8)),
  'negative shape': stored({'w': entry(shape=(-1, -2))}, bytes(8)),
  'shape of floats': stored({'w': entry(shape=(2.0,))}, bytes(8)),
  'shape of flags': stored({'w': entry(shape=(True, 2))}, bytes(8)),
  'shape of a thousand ones': stored({'w': entry(shape=(1,) * 1000 + (2,))}, bytes(8)),
  'unknown type': stored({'w': entry(dtype='I64', shape=(1,))}, bytes(8)),
  'type of a list': stored({'w': entry(dtype=['F32'])}, bytes(8)),
  'no offsets': stored({'w': {'dtype': 'F32', 'shape': [2]}}, bytes(8)),
  'entry of a number': stored({'w': 3}, bytes(8)),
  'list': stored([1]),
  'twice': stored(b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},' * 2 + b'"x": 1}'),
  'NaN': stored(b'{"w": NaN}'),
  'deep': stored(b'{"w":' * 100_000),
  'deep name': stored({'a/' * 100_000 + 'w': entry()}, bytes(8)),
  'empty name': stored({'': entry()}, bytes(8)),
  'name that leads out': stored({'../../w': entry()}, bytes(8)),
  'name with control characters': stored({'a\x1b[2J': entry()}, bytes(8)),
  'array and group': stored({'a': entry(), 'a/b': entry(offsets=(8, 16))}, bytes(16)),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_weights_are_one_line(tmp_path, name):
  packed.save(tmp_path, random_params(), SPEC)
  (tmp_path / packed.WEIGHTS_NAME).write_bytes(HOSTILE[name])
  start = time.process_time()
  for read in (orbax_checkpoints.restore_params, orbax_checkpoints.restore_target):
    with pytest.raises(UserError, match=r'weights\.safetensors') as error:
      read(tmp_path)
    assert str(error.value).isprintable() and len(str(error.value)) < 600
  assert time.process_time() - start < 5


def test_reads_what_safetensors_writes(tmp_path):
  from safetensors.numpy import save

  arrays = {'a/b': np.arange(6, dtype=np.float32).reshape(2, 3), 'a/c': np.float16([1, 2]), 'd': np.zeros((0, 4), 'f4')}
  (tmp_path / packed.WEIGHTS_NAME).write_bytes(save(arrays, {'made': 'by hand'}))
  found = packed.read_params(tmp_path)
  for array, expected in zip((found['a']['b'], found['a']['c'], found['d']), arrays.values(), strict=True):
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, expected)


def test_a_link_to_the_weights_is_followed_and_a_pipe_is_not(tmp_path):
  packed.save(tmp_path / 'blobs', random_params(), SPEC)
  (tmp_path / 'm').mkdir()
  for name in (packed.WEIGHTS_NAME, packed.SPEC_NAME):
    (tmp_path / 'm' / name).symlink_to(tmp_path / 'blobs' / name)
  assert orbax_checkpoints.restore_params(tmp_path / 'm')[1] == SPEC
  (tmp_path / 'm' / packed.SPEC_NAME).unlink()
  os.mkfifo(tmp_path / 'm' / packed.SPEC_NAME)
  with pytest.raises(UserError, match='not a regular file'):
    orbax_checkpoints.restore_params(tmp_path / 'm')


def test_hostile_about_files_are_ignored(tmp_path):
  packed.save(tmp_path, random_params(), SPEC)
  for content in (b'[' * 100_000, b'{"name": NaN}', b'"x"', b'\xff', b' ' * (1 << 21)):
    (tmp_path / packed.ABOUT_NAME).write_bytes(content)
    assert packed.read_about(tmp_path) == {}
  (tmp_path / packed.ABOUT_NAME).write_text('{"name": ["x"], "reaches": "0.9"}')
  assert loading.introduce(tmp_path) == '0.9'
