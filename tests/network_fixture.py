"""Small networks with outputs of other programs, for several tests: network.npz and t5x_legacy.npz."""

import functools
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from mrmt3 import network
from mrmt3.checkpoints import pytorch_names

FOLDER = Path(__file__).parent / 'fixtures'

FIXTURE = dict(np.load(FOLDER / 'network.npz'))
WEIGHTS = {name.removeprefix('weights/'): x for name, x in FIXTURE.items() if name.startswith('weights/')}
CONFIG = network.T5Config(
  vocab_size=1536,
  emb_dim=int(FIXTURE['config/d_model']),
  num_heads=int(FIXTURE['config/num_heads']),
  num_encoder_layers=int(FIXTURE['config/num_layers']),
  num_decoder_layers=int(FIXTURE['config/num_decoder_layers']),
  head_dim=int(FIXTURE['config/d_kv']),
  mlp_dim=int(FIXTURE['config/d_ff']),
  positions='mr_mt3',
  memory_length=int(FIXTURE['memory_length']),
  decoder_padding_masks=False,
)
NUM_MEL_BINS = 64

T5X = dict(np.load(FOLDER / 't5x_legacy.npz'))
T5X_CONFIG = network.T5Config(
  vocab_size=1536,
  emb_dim=int(T5X['config/emb_dim']),
  num_heads=int(T5X['config/num_heads']),
  num_encoder_layers=int(T5X['config/num_layers']),
  num_decoder_layers=int(T5X['config/num_layers']),
  head_dim=int(T5X['config/head_dim']),
  mlp_dim=int(T5X['config/mlp_dim']),
)


@functools.cache
def params():
  """Return the parameters of network.npz."""
  return pytorch_names.params_from_torch(WEIGHTS, CONFIG, NUM_MEL_BINS)


@functools.cache
def t5x_params():
  """Return the parameters of t5x_legacy.npz, read from the zarr arrays of the checkpoint."""
  import tensorstore
  from flax import traverse_util

  with tempfile.TemporaryDirectory() as folder:
    with tarfile.open(FOLDER / 't5x_legacy_checkpoint_3.tar.gz') as archive:
      archive.extractall(folder, filter='data')
    arrays = {}
    for path in Path(folder).glob('checkpoint_3/target.*'):
      spec = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': str(path)}}
      arrays[path.name.removeprefix('target.')] = tensorstore.open(spec).result().read().result()
  return traverse_util.unflatten_dict(arrays, sep='.')


def shift_right(targets):
  return np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
