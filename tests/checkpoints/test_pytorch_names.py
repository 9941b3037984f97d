import network_fixture as fixture
import numpy as np
import pytest

from mrmt3.checkpoints import pytorch_names
from mrmt3.errors import UserError


def convert(weights):
  return pytorch_names.params_from_torch(weights, fixture.CONFIG, fixture.NUM_MEL_BINS)


def test_names_of_the_table():
  names = {
    'encoder/continuous_inputs_projection/kernel': 'proj.weight',
    'encoder/layers_3/pre_attention_layer_norm/scale': 'encoder.block.3.layer.0.layer_norm.weight',
    'encoder/layers_3/attention/out/kernel': 'encoder.block.3.layer.0.SelfAttention.o.weight',
    'encoder/layers_3/mlp/wi_1/kernel': 'encoder.block.3.layer.1.DenseReluDense.wi_1.weight',
    'decoder/layers_11/pre_self_attention_layer_norm/scale': 'decoder.block.11.layer.0.layer_norm.weight',
    'decoder/layers_0/encoder_decoder_attention/query/kernel': 'decoder.block.0.layer.1.EncDecAttention.q.weight',
    'decoder/layers_0/pre_mlp_layer_norm/scale': 'decoder.block.0.layer.2.layer_norm.weight',
    'decoder/decoder_norm/scale': 'decoder.final_layer_norm.weight',
    'memory_encoder/layers_0/mlp/wo/kernel': 'segmem_encoder.block.0.layer.1.DenseReluDense.wo.weight',
    'memory_encoder/layers_0/attention/key/kernel': 'segmem_encoder.block.0.layer.0.SelfAttention.k.weight',
    'memory_encoder/memory_norm/scale': 'segmem_encoder.final_layer_norm.weight',
    'memory_encoder/projection/kernel': 'segmem_proj.weight',
  }
  assert {path: pytorch_names.torch_name(path) for path in names} == names
  with pytest.raises(KeyError):
    pytorch_names.torch_name('encoder/attic/kernel')


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('lm_head.weight', None, 'lm_head.weight is missing'),
    ('attic.weight', np.zeros(3), 'attic.weight is left over'),
    ('lm_head.weight', np.zeros((7, 64)), r'lm_head.weight is \(7, 64\)'),
    ('decoder.embed_tokens.weight', np.zeros((1536, 64)), 'differs from decoder_embed_tokens.weight'),
  ],
)
def test_what_does_not_fit_is_named(name, value, message):
  weights = {**fixture.WEIGHTS, name: value}
  if value is None:
    del weights[name]
  with pytest.raises(UserError, match=message):
    convert(weights)
