"""The objective of frame-level labels: alone, added to the tokens' loss, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.framewise import FrameObjective, FramewiseConfig
from mrmt3.models import MemoryEncoderDecoderModel
from mrmt3.network import T5Config
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import VocabularyConfig

CONFIG = FramewiseConfig(
  vocab_size=896,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=16,
  num_encoder_layers=1,
  front_channels=(2, 2, 2, 2),
  num_candidates=6,
)
SPEC = ModelSpec(
  CONFIG,
  SpectrogramConfig(hop_width=250, num_mel_bins=16),
  VocabularyConfig(steps_per_second=32, num_velocity_bins=1),
  segment_frames=16,
  targets_length=16,
)


@pytest.fixture(scope='module')
def batch():
  """Return a batch of two examples."""
  ids = SPEC.token_ids
  tokens = [ids.tie[0], ids.time[0] + 2, ids.program[0], ids.velocity[1], ids.pitch[0] + 40, ids.drum[0] + 36, 1, 0]
  tokens = jnp.tile(jnp.array(tokens, jnp.int32), (2, 1))
  return {
    'encoder_input_tokens': jax.random.normal(jax.random.key(1), (2, 16, 16)),
    'decoder_input_tokens': jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
    'decoder_target_tokens': tokens,
    'decoder_loss_weights': (tokens > 0).astype(jnp.float32),
    'prior_tokens': jnp.zeros((2, 16), jnp.int32),
  }


@pytest.fixture(scope='module')
def params(batch):
  """Return fresh parameters, with those of the frame head."""
  model = MemoryEncoderDecoderModel(SPEC, objective=FrameObjective())
  shapes, types = {k: x.shape for k, x in batch.items()}, {k: x.dtype for k, x in batch.items()}
  return jax.jit(lambda key: model.get_initial_variables(key, shapes, types)['params'])(jax.random.key(0))


def losses_of(objective, params, batch):
  """Return ((loss, sums), gradients)."""
  model = MemoryEncoderDecoderModel(SPEC, objective=objective)
  return jax.jit(jax.value_and_grad(lambda p: model.loss_fn(p, batch, None), has_aux=True))(params)


def test_alone_only_frames_are_counted(params, batch):
  (loss, sums), gradient = losses_of(FrameObjective('alone'), params, batch)
  assert sums['correct'] == 0 and sums['loss'] == sums['frame_loss'] == loss > 0
  names = {name.removeprefix('tokens/') for name in sums if name.startswith('tokens/')}
  assert names and all('frame' in name for name in names)
  # One onset and one drum in each of the two examples.
  assert sums['tokens/frame_onset_recall'] == sums['tokens/frame_drum_recall'] == 2
  for name in ('encoder', 'note_reader', 'frame_head'):
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient[name])) > 0


def test_auxiliary_is_the_weighted_sum_of_both_losses(params, batch):
  held = {name: part for name, part in params.items() if name != 'frame_head'}
  token_loss, _ = jax.jit(lambda p: MemoryEncoderDecoderModel(SPEC).loss_fn(p, batch, None))(held)
  (frame_loss, _), _ = losses_of(FrameObjective('alone'), params, batch)
  (loss, sums), _ = losses_of(FrameObjective('auxiliary', 0.5), params, batch)
  np.testing.assert_allclose(loss, token_loss + 0.5 * frame_loss, rtol=1e-5)
  np.testing.assert_allclose(sums['frame_loss'], frame_loss, rtol=1e-5)
  np.testing.assert_allclose(sums['loss'], token_loss, rtol=1e-5)
  assert {'tokens/frame_onset_recall', 'tokens/pitch'} <= set(sums)


@pytest.mark.parametrize('loss', ['both', '', None, 1])
def test_an_unknown_loss_is_refused(loss):
  with pytest.raises(UserError, match=r'FrameObjective\.loss is .*auxiliary, alone'):
    FrameObjective(loss)


@pytest.mark.parametrize('weight', [-1, '1', True, None])
def test_a_wrong_weight_is_refused(weight):
  with pytest.raises(UserError, match=r'FrameObjective\.weight is .*a number of at least 0'):
    FrameObjective(weight=weight)


def test_a_network_without_frame_heads_is_refused():
  with pytest.raises(UserError, match="kind 'mr_mt3' has no frame heads; choose a network with frame heads"):
    MemoryEncoderDecoderModel(ModelSpec(T5Config(vocab_size=1536)), objective=FrameObjective())
