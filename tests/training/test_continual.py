"""Continual training of a small MR-MT3 from MT3's weights, with the gin file of the recipe."""

import subprocess
import sys

import jax
import network_fixture as fixture
import numpy as np
import pytest

from mrmt3 import network
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.config import ModelSpec
from mrmt3.spectrograms import SpectrogramConfig

L_AGG, RATE = 64, 1e-5
CONFIG = fixture.T5X_CONFIG.replace(memory_length=L_AGG)


def with_fresh_memory():
  """MT3's weights (of the worked case), and the initial memory."""
  frames, tokens = np.zeros((1, 1, 512), np.float32), np.zeros((1, L_AGG), np.int32)
  start = jax.jit(
    lambda key: network.Transformer(CONFIG).init(key, frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)
  )
  fresh = start(jax.random.key(5))['params']['memory_encoder']
  return {**fixture.t5x_params(), 'memory_encoder': jax.tree.map(np.asarray, fresh)}


def logits(config, params, prior_tokens=None):
  f = fixture.T5X
  return np.asarray(
    jax.jit(
      lambda params: network.Transformer(config).apply(
        {'params': params},
        f['inputs'],
        fixture.shift_right(f['targets']),
        f['targets'],
        enable_dropout=False,
        prior_tokens=prior_tokens,
      )
    )(params)
  )


def test_without_memory_step_0_says_what_mt3_says():
  without = {name: part for name, part in with_fresh_memory().items() if name != 'memory_encoder'}
  plain = CONFIG.replace(memory_length=0)
  np.testing.assert_array_equal(logits(plain, without), logits(fixture.T5X_CONFIG, fixture.t5x_params()))
  np.testing.assert_allclose(logits(plain, without), fixture.T5X['logits'], atol=1e-4)
  prior = np.tile(np.int32([1134, 1] + [0] * (L_AGG - 2)), (2, 1))
  assert np.abs(logits(CONFIG, with_fresh_memory(), prior) - fixture.T5X['logits']).max() > 1e-2


@pytest.fixture(scope='module')
def trained(tmp_path_factory, small_data):
  """(start, model_dir) after two steps of the recipe, with changed sizes, data and save period."""
  pytest.importorskip('seqio')
  folder = tmp_path_factory.mktemp('continual')
  spec = ModelSpec(CONFIG, SpectrogramConfig(), segment_frames=64, targets_length=128)
  orbax_checkpoints.save_checkpoint(folder / 'start', 0, {'target': with_fresh_memory(), 'state': {}}, spec)
  sizes = ('emb_dim', 'num_heads', 'head_dim', 'mlp_dim', 'num_encoder_layers', 'num_decoder_layers')
  flags = [
    '--gin_file=ablations/continual.gin',
    f'--gin.INIT_FROM={folder / "start"}',
    f'--gin.MODEL_DIR={folder / "model"}',
    f'--gin.DATA_DIR={small_data}',
    '--gin.TRAIN_STEPS=2',
    '--gin.BATCH_SIZE=2',
    '--gin.SEGMENT_FRAMES=64',
    '--gin.TARGETS_LENGTH=128',
    '--gin.SAVE_PERIOD=2',
    '--gin.DROPOUT_RATE=0.0',
    '--gin.train.train_eval_dataset_cfg=None',
    '--gin.train.stats_period=1',
    *(f'--gin.network.T5Config.{size}={getattr(CONFIG, size)}' for size in sizes),
  ]
  result = subprocess.run(
    [sys.executable, '-m', 'mrmt3.train', *flags], capture_output=True, text=True, check=False, cwd='/', timeout=500
  )
  assert result.returncode == 0, result.stderr
  assert f'weights of {folder / "start"} (step 0)' in result.stderr
  return folder / 'start', folder / 'model'


def test_the_recipe_is_the_papers(trained):
  spec = orbax_checkpoints.read_spec(trained[1])
  assert spec.network.memory_length == 64
  assert (spec.network.positions, spec.spectrogram.front_end, spec.spectrogram.scaling) == ('mt3', 'mt3', 'none')
  config = (trained[1] / 'operative_config.gin').read_text()
  for line in (
    'max_hop = %L_MAX_HOP',
    'L_MAX_HOP = 3',
    'shuffle_scope = %SHUFFLE_SCOPE',
    "SHUFFLE_SCOPE = 'paper'",
    'base_learning_rate = 1e-05',
    'weight_decay = 0.01',
    "'NUM_REAL_TARGET_TOKENS'",
  ):
    assert line in config, line


def test_all_weights_move_by_adamws_steps(trained):
  before, after = (orbax_checkpoints.restore_params(path)[0] for path in trained)
  for name in ('encoder', 'decoder', 'memory_encoder'):
    changes = [
      np.abs(np.asarray(a) - b * (1 - 0.01 * RATE) ** 2).max()
      for a, b in zip(jax.tree.leaves(after[name]), jax.tree.leaves(before[name]), strict=True)
    ]
    # A step of Adam is at most about the rate (bias correction makes the second a little more), and is never nothing.
    assert max(changes) <= 2.1 * RATE
    assert np.median(changes) > 0.5 * RATE
