import jax
import ml_dtypes
import numpy as np
import pytest

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints import packed
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
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
