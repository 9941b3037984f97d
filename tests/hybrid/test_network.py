"""The hybrid network: its encoders, candidates as encoder frames, training outputs, and frozen parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import partitioning

from mrmt3.config import ModelSpec
from mrmt3.decoding import greedy
from mrmt3.errors import UserError
from mrmt3.framewise import FrameObjective
from mrmt3.hybrid import HybridConfig
from mrmt3.models import MemoryEncoderDecoderModel
from mrmt3.nn import layers, parameters
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import VocabularyConfig

CONFIG = HybridConfig(
  vocab_size=896,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=8,
  num_encoder_layers=1,
  num_decoder_layers=1,
  front_channels=(2, 4, 3, 2),
  num_candidates=5,
  memory_length=2,
)
LINEAR = CONFIG.replace(front='linear', time_stride=1)
MELS = SpectrogramConfig(hop_width=250, num_mel_bins=16)
WORDS = VocabularyConfig(steps_per_second=32, num_velocity_bins=1)


def spec_of(config):
  return ModelSpec(config, MELS, WORDS, segment_frames=16, targets_length=16)


IDS = spec_of(CONFIG).token_ids


def random_params(config, **options):
  rng = np.random.default_rng(0)
  shapes = parameters.parameter_shapes(config, IDS, 16, **options)
  return jax.tree.map(lambda x: rng.normal(1.0 if x.ndim == 1 else 0.0, 0.2, x.shape).astype(np.float32), shapes)


def outputs(module, params, method, *args, **more):
  """Return what a method of a network returns, jitted."""
  return jax.jit(functools.partial(module.apply, enable_dropout=False, method=method))(
    {'params': params}, *args, **more
  )


def batch_of(length=6):
  rng = np.random.default_rng(1)
  return rng.normal(size=(2, 8, 16)).astype(np.float32), rng.integers(3, 800, (2, length)).astype(np.int32)


def test_the_front_end_is_a_field():
  linear, harmonic = (parameters.parameter_shapes(config, IDS, 16)['encoder'] for config in (LINEAR, CONFIG))
  assert set(linear) - set(harmonic) == {'continuous_inputs_projection'}
  assert set(harmonic) - set(linear) == {'harmonic_front'}
  assert harmonic['harmonic_front']['harmonics']['kernel'].shape == (9 * 2, 4)


def test_the_output_of_a_linear_encoder_can_have_positions():
  frames, _ = batch_of()
  config = LINEAR.replace(num_candidates=0, memory_length=0)
  params = random_params(config)
  plain, placed = (
    outputs(config.replace(output_positions=wanted).module(IDS), params, 'encode', frames) for wanted in (False, True)
  )
  np.testing.assert_allclose(placed, plain + layers.sinusoidal_positions(8, 8, 'mt3'), atol=1e-5)


@pytest.mark.parametrize('config', [LINEAR, CONFIG], ids=['linear', 'harmonic'])
def test_candidates_follow_the_encoder_frames_and_precede_the_memory(config):
  params, (frames, prior) = random_params(config), batch_of()
  number = config.num_encoder_frames(8)
  encoded = outputs(config.module(IDS), params, 'encode', frames, prior_tokens=prior)
  assert encoded.shape == (2, number + 5 + 2, 8)
  plain = outputs(config.replace(num_candidates=0).module(IDS), params, 'encode', frames, prior_tokens=prior)
  np.testing.assert_allclose(np.delete(encoded, np.s_[number : number + 5], axis=1), plain, atol=1e-5)


def test_decoding_sees_what_the_network_sees():
  spec, (frames, prior) = spec_of(CONFIG), batch_of()
  params = random_params(CONFIG)
  tokens = greedy.transcribe_segments(
    params, jnp.asarray(frames), {'prior_tokens': jnp.asarray(prior)}, spec=spec, max_length=3
  )
  inputs = np.pad(np.asarray(tokens), ((0, 0), (1, 0)))[:, :-1]
  logits = outputs(spec.module(), params, '__call__', frames, inputs, inputs * 0 + 3, prior_tokens=prior)
  for row in range(2):
    length = int((np.asarray(tokens[row]) == 1).argmax()) + 1 if (np.asarray(tokens[row]) == 1).any() else 3
    np.testing.assert_array_equal(tokens[row, :length], logits[row, :length].argmax(axis=-1))


@pytest.mark.parametrize('number', [0, 5])
def test_the_training_heads_change_nothing_but_the_training_outputs(number):
  config = CONFIG.replace(num_candidates=number)
  plain, headed = config.module(IDS), config.module(IDS, with_frame_head=True)
  params, (frames, tokens) = random_params(config, with_frame_head=True), batch_of()
  kept = parameters.without_training_only(params, parameters.parameter_shapes(config, IDS, 16), config.training_only)
  assert set(params) - set(kept) == ({'frame_head'} if number else {'frame_head', 'note_reader'})
  logits = [
    outputs(net, held, '__call__', frames, tokens, tokens, prior_tokens=tokens)
    for net, held in ((plain, kept), (headed, params))
  ]
  np.testing.assert_allclose(*logits, atol=1e-5)
  events = tokens % 4
  encoded, targets, classes = outputs(
    headed, params, 'encode_with_frame_logits', frames, events, events, prior_tokens=tokens
  )
  assert encoded.shape == (2, 4 + number + 2, 8)
  np.testing.assert_allclose(encoded, outputs(plain, kept, 'encode', frames, prior_tokens=tokens), atol=1e-5)
  assert {x.shape[:2] for x in targets} == {(2, 4)} and classes.shape == (2, 6, NUM_CLASSES)


def test_packed_examples_are_refused_where_there_are_candidates():
  frames, _ = batch_of()
  config = LINEAR.replace(memory_length=0)
  with pytest.raises(ValueError, match='cannot be packed where each has note candidates'):
    outputs(config.module(IDS), random_params(config), 'encode', frames, np.ones((2, 8), np.int32))


def test_frozen_parameters_have_no_gradient_and_the_others_are_unchanged():
  spec = spec_of(CONFIG)
  frames, tokens = batch_of(16)
  batch = {
    'encoder_input_tokens': jnp.asarray(frames),
    'decoder_input_tokens': jnp.asarray(tokens),
    'decoder_target_tokens': jnp.asarray(tokens),
    'decoder_loss_weights': jnp.ones((2, 16)),
    'prior_tokens': jnp.asarray(tokens),
  }
  params = random_params(CONFIG)
  parts = ('encoder', 'note_reader/events', 'decoder/layers_0/mlp/wo')
  plain, held = MemoryEncoderDecoderModel(spec), MemoryEncoderDecoderModel(spec, frozen=parts)
  wanted, found = (
    jax.jit(jax.grad(lambda p, model=model: model.loss_fn(p, batch, None)[0]))(params) for model in (plain, held)
  )
  moved = set()
  for path, theirs, ours in zip(parameters.paths(wanted), *map(jax.tree.leaves, (wanted, found)), strict=True):
    frozen = any(parameters.is_part(path, part) for part in parts)
    moved.add(frozen and bool(jnp.abs(theirs).max() > 0))
    tolerance = 1e-5 * float(jnp.abs(theirs).max())
    np.testing.assert_allclose(ours, 0 * theirs if frozen else theirs, atol=tolerance, err_msg=path)
  assert moved == {False, True}  # some of the frozen ones would have moved


def test_unknown_frozen_parts_are_refused():
  spec = spec_of(CONFIG)
  for wrong in (['encode'], ['decoder/layers_7'], 'nothing'):
    with pytest.raises(UserError, match=r'no part of the parameters; parts are .*encoder'):
      MemoryEncoderDecoderModel(spec, frozen=wrong)
  with pytest.raises(UserError, match='frame_head'):
    MemoryEncoderDecoderModel(spec, frozen='frame_head')
  MemoryEncoderDecoderModel(spec, frozen='encoder')
  MemoryEncoderDecoderModel(spec, frozen=('frame_head', 'note_reader/events'), objective=FrameObjective())


def test_the_real_t5x_can_place_every_parameter():
  """Its partitioner refuses an array with one logical axis twice."""
  module = CONFIG.module(IDS, with_frame_head=True)
  frames, tokens = np.zeros((1, 8, 16), np.float32), np.ones((1, 2), np.int32)
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)
  )
  axes = jax.tree.leaves(variables['params_axes'], is_leaf=lambda x: hasattr(x, 'names'))
  assert len(axes) == len(jax.tree.leaves(variables['params'])) > 50
  for names in axes:
    partitioning.logical_to_mesh_axes(tuple(names.names))
