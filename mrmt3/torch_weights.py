"""Weights under the PyTorch ports' names (mt3.pth, MR-MT3) as this network's parameters."""

import re
from collections.abc import Mapping

import numpy as np

from mrmt3 import network
from mrmt3.errors import UserError

# Ours -> theirs, in the order tried; N is a layer's number. A linear map's weight is the transpose of a kernel.
_NAMES = [
  (r'encoder/continuous_inputs_projection/kernel', r'proj.weight'),
  (r'decoder/token_embedder/embedding', r'decoder_embed_tokens.weight'),
  (r'decoder/logits_dense/kernel', r'lm_head.weight'),
  (r'memory_encoder/projection/kernel', r'segmem_proj.weight'),
  (r'memory_encoder/memory_norm/scale', r'segmem_encoder.final_layer_norm.weight'),
  (r'(encoder|decoder)/(?:encoder|decoder)_norm/scale', r'\1.final_layer_norm.weight'),
  (r'(\w+)/layers_(\d+)/pre_(?:self_)?attention_layer_norm/scale', r'\1.block.\2.layer.0.layer_norm.weight'),
  (r'(\w+)/layers_(\d+)/(?:self_)?attention/(\w)\w*/kernel', r'\1.block.\2.layer.0.SelfAttention.\3.weight'),
  (r'decoder/layers_(\d+)/pre_cross_attention_layer_norm/scale', r'decoder.block.\1.layer.1.layer_norm.weight'),
  (
    r'decoder/layers_(\d+)/encoder_decoder_attention/(\w)\w*/kernel',
    r'decoder.block.\1.layer.1.EncDecAttention.\2.weight',
  ),
  (r'decoder/layers_(\d+)/pre_mlp_layer_norm/scale', r'decoder.block.\1.layer.2.layer_norm.weight'),
  (r'decoder/layers_(\d+)/mlp/(\w+)/kernel', r'decoder.block.\1.layer.2.DenseReluDense.\2.weight'),
  (r'(\w+)/layers_(\d+)/pre_mlp_layer_norm/scale', r'\1.block.\2.layer.1.layer_norm.weight'),
  (r'(\w+)/layers_(\d+)/mlp/(\w+)/kernel', r'\1.block.\2.layer.1.DenseReluDense.\3.weight'),
]

# Stored a second time by the ports, under these names.
_COPIES = {
  'encoder.embed_tokens.weight': 'proj.weight',
  'decoder.embed_tokens.weight': 'decoder_embed_tokens.weight',
  'segmem_encoder.embed_tokens.weight': 'segmem_proj.weight',
}
_TABLES = re.compile(r'.*\.pos_emb\.inv_freq')  # position tables, not weights


def torch_name(path: str) -> str:
  """Returns the PyTorch name of a parameter such as 'encoder/layers_0/mlp/wo/kernel'; KeyError if there is none."""
  for ours, theirs in _NAMES:
    match = re.fullmatch(ours, path)
    if match:
      name = match.expand(theirs)
      return 'segmem_' + name.removeprefix('memory_') if name.startswith('memory_encoder') else name
  raise KeyError(path)


def params_from_torch(weights: Mapping[str, np.ndarray], config: network.T5Config, num_mel_bins: int) -> dict:
  """Returns the network's parameter tree from a PyTorch state dict of numpy arrays.

  Raises:
    UserError: naming the first weight that is missing, left over, of the wrong shape, or stored twice and different.
  """
  from flax import traverse_util

  shapes = traverse_util.flatten_dict(network.parameter_shapes(config, num_mel_bins), sep='/')
  params, used = {}, set()
  for path, shape in shapes.items():
    name = torch_name(path)
    if name not in weights:
      raise UserError(f'weights: {name} is missing')
    array = np.asarray(weights[name], np.float32)
    array = array.T if path.endswith('kernel') else array
    if array.shape != shape.shape:
      raise UserError(f'weights: {name} is {weights[name].shape}; the network has {shape.shape} ({path})')
    params[path] = array
    used.add(name)
  for name in sorted(weights.keys() - used):
    if name in _COPIES:
      if not np.array_equal(weights[name], weights[_COPIES[name]]):
        raise UserError(f'weights: {name} differs from {_COPIES[name]}; they should be the same matrix')
    elif not _TABLES.fullmatch(name):
      raise UserError(f'weights: {name} is left over; the network has no place for it')
  return traverse_util.unflatten_dict(params, sep='/')
