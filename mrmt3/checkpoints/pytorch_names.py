"""The PyTorch ports' names (mt3.pth, MR-MT3) for this network's parameters, and weights under them, both ways."""

import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from mrmt3 import network
from mrmt3.errors import UserError
from mrmt3.nn import layers
from mrmt3.nn.parameters import parameter_shapes

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

# Stored a second time by the ports, under these names -> the first one.
COPIES = {
  'encoder.embed_tokens.weight': 'proj.weight',
  'decoder.embed_tokens.weight': 'decoder_embed_tokens.weight',
  'segmem_encoder.embed_tokens.weight': 'segmem_proj.weight',
}
# What the ports compute their position tables of: no weights, but stored, and loaded, as if they were.
_TABLE = '{}.pos_emb.inv_freq'
_TABLES = re.compile(_TABLE.format('.*'))


def torch_name(path: str) -> str:
  """Return the PyTorch name of a parameter such as 'encoder/layers_0/mlp/wo/kernel'; KeyError if there is none."""
  for ours, theirs in _NAMES:
    match = re.fullmatch(ours, path)
    if match:
      name = match.expand(theirs)
      return 'segmem_' + name.removeprefix('memory_') if name.startswith('memory_encoder') else name
  raise KeyError(path)


def params_from_torch(weights: Mapping[str, np.ndarray], config: network.T5Config, num_mel_bins: int) -> dict:
  """Return the network's parameter tree, float32, from a PyTorch state dict of numpy arrays; views where possible.

  Raises:
    UserError: naming the weights that are missing, left over, of the wrong shape, or stored twice and different.
  """
  from flax import traverse_util

  shapes = traverse_util.flatten_dict(parameter_shapes(config, None, num_mel_bins), sep='/')
  found = {path: as_kernel(path, weights[torch_name(path)]) for path in shapes if torch_name(path) in weights}
  wanted = {path: shape.shape for path, shape in shapes.items()}
  texts = problems(found, wanted, torch_name, left_over_weights(weights))
  if texts:
    raise UserError(f'weights: {in_one_line(texts)}')
  return traverse_util.unflatten_dict(found, sep='/')


def as_kernel(path: str, weight: np.ndarray) -> np.ndarray:
  """Return a PyTorch weight as the parameter at `path`, float32: transposed if that is a kernel."""
  weight = np.asarray(weight, np.float32)
  return weight.T if path.endswith('kernel') else weight


def left_over_weights(weights: Mapping[str, np.ndarray]) -> list[str]:
  """Return the names in a state dict but for position tables and second copies.

  Raises:
    UserError: for a second copy that differs from the first.
  """
  names = []
  for name in weights:
    original = COPIES.get(name)
    if original in weights:
      if not np.array_equal(weights[name], weights[original]):
        raise UserError(f'weights: {name} differs from {original}; they should be the same matrix')
    elif not _TABLES.fullmatch(name):
      names.append(name)
  return names


def position_kind(weights: Mapping[str, np.ndarray]) -> str | None:
  """Return which position table a state dict has, 'mt3' or 'mr_mt3'; None if it has none. UserError for any other.

  The ports' own is 'mr_mt3', also where the weights were trained with the other one (mt3.pth).
  """
  kinds = {}
  for name in filter(_TABLES.fullmatch, weights):
    table = np.asarray(weights[name], np.float64)
    for kind in network.KINDS:
      expected = layers.position_frequencies(2 * table.size, kind)
      if table.shape == expected.shape and np.allclose(table, expected, rtol=1e-3, atol=0):
        kinds[kind] = name
        break
    else:
      raise UserError(f'weights: {name} is no position table of MT3 or MR-MT3; choose one with --positions')
  return 'mt3' if 'mt3' in kinds else next(iter(kinds), None)


def torch_from_params(params: Mapping, positions: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Return (weights by PyTorch name, second name -> first name) of a parameter tree; kernels are transposed views.

  The position table is among them: the ports take it from the file, so that they compute with the one that the weights
  were trained with, 'mt3' or 'mr_mt3'.

  Raises:
    UserError: naming a parameter that the ports' network does not have.
  """
  from flax import traverse_util

  weights = {}
  for path, array in traverse_util.flatten_dict(dict(params), sep='/').items():
    try:
      weights[torch_name(path)] = array.T if path.endswith('kernel') else array
    except KeyError:
      raise UserError(f'{path} has no name in PyTorch: the published network has no such part') from None
  copies = {name: original for name, original in COPIES.items() if original in weights}
  features = weights['decoder_embed_tokens.weight'].shape[1]
  table = _TABLE.format('encoder')
  weights[table] = layers.position_frequencies(features, positions).astype(np.float32)
  stacks = ['decoder', *(['segmem_encoder'] if 'segmem_proj.weight' in weights else [])]
  return weights, copies | {_TABLE.format(stack): table for stack in stacks}


_NAMED = 4  # problems that are named one by one


def problems(
  found: Mapping[str, np.ndarray],
  wanted: Mapping[str, tuple[int, ...]],
  name_of: Callable[[str], str],
  names: Iterable[str],
) -> list[str]:
  """Return what keeps arrays from being a network's parameters, a short text each; empty if they fit.

  Args:
    found: arrays by parameter path, each among `wanted`.
    wanted: the network's shapes by parameter path.
    name_of: parameter path -> its name in the file.
    names: of the arrays in the file that a network must have a place for.
  """
  texts = [f'{name_of(path)} is missing' for path in wanted if path not in found]
  for path, array in found.items():
    if array.shape != wanted[path]:
      # Both as the file has them.
      turned = slice(None, None, -1) if name_of(path) != path and path.endswith('kernel') else slice(None)
      texts.append(f'{name_of(path)} is {array.shape[turned]}, the network has {wanted[path][turned]}')
  used = {name_of(path) for path in found}
  return texts + [f'{name} is left over, the network has no place for it' for name in names if name not in used]


def in_one_line(texts: list[str]) -> str:
  """Return the first few texts and how many more there are."""
  more = len(texts) - _NAMED
  return '; '.join(texts[:_NAMED]) + (f'; and {more} more' if more > 0 else '')
