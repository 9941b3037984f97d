import dataclasses
import functools

import jax
import jax.numpy as jnp
import network_fixture as fixture
import numpy as np
import pytest
from flax import traverse_util

from mrmt3 import network
from mrmt3.errors import UserError
from mrmt3.nn import layers, parameters

SMALL = network.T5Config(
  vocab_size=96,
  emb_dim=16,
  num_heads=2,
  num_encoder_layers=1,
  num_decoder_layers=1,
  head_dim=8,
  mlp_dim=12,
  memory_length=3,
)


def small_batch(rng, config=SMALL):
  inputs = rng.normal(size=(2, 10, 6)).astype(np.float32)
  targets = rng.integers(1, config.vocab_size, (2, 9)).astype(np.int32)
  targets[1, 5:] = 0
  prior = rng.integers(0, config.vocab_size, (2, 8)).astype(np.int32)
  return inputs, fixture.shift_right(targets), targets, prior


@functools.cache
def random_params(config, num_mel_bins=6):
  rng = np.random.default_rng(0)
  shapes = parameters.parameter_shapes(config, None, num_mel_bins)
  return jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnames=('config', 'method', 'enable_dropout'))
def jitted_apply(config, params, batch, rngs, method, enable_dropout):
  module = network.Transformer(config)
  plain = 3 if method is None else 1  # prior tokens are given by name
  prior = {'prior_tokens': batch[plain]} if len(batch) > plain else {}
  return module.apply(
    {'params': params}, *batch[:plain], **prior, enable_dropout=enable_dropout, rngs=rngs, method=method
  )


def apply(config, params, *batch, rngs=None, method=None, enable_dropout=False):
  return np.asarray(jitted_apply(config, params, batch, rngs, method, enable_dropout))


def test_mr_mt3_fixture():
  f = fixture.FIXTURE
  batch = f['inputs'], fixture.shift_right(f['targets']), f['targets'], f['prior_targets']
  logits = apply(fixture.CONFIG, fixture.params(), *batch)
  assert logits.dtype == np.float32
  np.testing.assert_allclose(logits, f['logits'], atol=1e-4)


def test_t5x_fixture():
  f = fixture.T5X
  assert (f['targets'] == 0).any()  # logits at padded positions count, too
  logits = apply(fixture.T5X_CONFIG, fixture.t5x_params(), f['inputs'], fixture.shift_right(f['targets']), f['targets'])
  np.testing.assert_allclose(logits, f['logits'], atol=1e-4)


def test_padding_masks_change_padded_positions_only():
  batch = small_batch(np.random.default_rng(0))
  params = random_params(SMALL)
  with_masks = apply(SMALL, params, *batch)
  without = apply(dataclasses.replace(SMALL, decoder_padding_masks=False), params, *batch)
  real = batch[2] > 0
  np.testing.assert_allclose(with_masks[real], without[real], atol=1e-5)
  assert np.abs(with_masks[~real] - without[~real]).max() > 1e-3


def test_base_size():
  shapes = parameters.parameter_shapes(network.T5Config(vocab_size=1536), None, 512)
  flat = traverse_util.flatten_dict(shapes, sep='/')
  assert len(flat) == 189
  assert sum(np.prod(s.shape) for s in flat.values()) == 45_896_704
  assert {s.dtype for s in flat.values()} == {jnp.dtype('float32')}
  assert flat['decoder/layers_7/encoder_decoder_attention/query/kernel'].shape == (512, 384)
  assert flat['encoder/layers_0/mlp/wi_1/kernel'].shape == (512, 1024)
  with_memory = parameters.parameter_shapes(network.T5Config(vocab_size=1536, memory_length=64), None, 512)
  assert with_memory['memory_encoder']['projection']['kernel'].shape == (512, 512)
  assert set(with_memory['memory_encoder']) == {'projection', 'layers_0', 'memory_norm'}


def test_every_parameter_has_logical_axes():
  module = network.Transformer(SMALL)
  batch = small_batch(np.random.default_rng(0))
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), *batch[:3], prior_tokens=batch[3], enable_dropout=False)
  )
  params = traverse_util.flatten_dict(variables['params'], sep='/')
  axes = traverse_util.flatten_dict(variables['params_axes'], sep='/')
  assert {f'{name}_axes' for name in params} == set(axes)
  assert all(len(axes[f'{name}_axes'].names) == x.ndim for name, x in params.items())
  assert axes['decoder/layers_0/mlp/wo/kernel_axes'].names == ('mlp', 'embed')


def test_memory_is_appended_and_used():
  rng = np.random.default_rng(0)
  batch = small_batch(rng)
  params = random_params(SMALL)
  encode = network.Transformer.encode
  encoded = apply(SMALL, params, batch[0], batch[3], method=encode)
  assert encoded.shape == (2, 13, 16)
  other = batch[3].copy()
  other[0, 6] = 0 if other[0, 6] else 5  # beyond the kept rows, but attended to
  changed = apply(SMALL, params, batch[0], other, method=encode)
  np.testing.assert_array_equal(changed[:, :10], encoded[:, :10])
  assert (changed[0, 10:] != encoded[0, 10:]).any(axis=-1).all()
  np.testing.assert_array_equal(changed[1], encoded[1])
  assert not np.array_equal(apply(SMALL, params, *batch[:3], other)[0], apply(SMALL, params, *batch)[0])


def test_first_rows_of_the_memory_do_not_depend_on_how_many_are_kept():
  config = dataclasses.replace(SMALL, memory_layers=2, memory_length=8)
  inputs, _, _, prior = small_batch(np.random.default_rng(0))
  encode = network.Transformer.encode
  whole = apply(config, random_params(config), inputs, prior, method=encode)
  few = apply(dataclasses.replace(config, memory_length=2), random_params(config), inputs, prior, method=encode)
  np.testing.assert_allclose(few, whole[:, :12], atol=1e-5)


def test_prior_segments_are_encoded_on_their_own():
  two = dataclasses.replace(SMALL, memory_segments=2)
  rng = np.random.default_rng(1)
  inputs, _, _, prior = small_batch(rng)
  params = random_params(SMALL)  # the parameters of one segment's memory serve any number

  def memory(config, prior):
    variables = {'params': params}
    encoded = network.Transformer(config).apply(
      variables, inputs, prior_tokens=prior, enable_dropout=False, method=network.Transformer.encode
    )
    return np.asarray(encoded[:, inputs.shape[1] :])

  other = rng.integers(0, SMALL.vocab_size, prior.shape).astype(np.int32)
  found = memory(two, np.concatenate([prior, other], axis=1))
  assert found.shape == (2, 2 * SMALL.memory_length, SMALL.emb_dim)
  np.testing.assert_allclose(found[:, : SMALL.memory_length], memory(SMALL, prior), rtol=1e-5, atol=1e-5)
  # The order of the two matters, since positions continue from one to the next.
  swapped = memory(two, np.concatenate([other, prior], axis=1))
  assert np.abs(swapped[:, SMALL.memory_length :] - memory(SMALL, prior)).max() > 1e-3


def test_decoupled_attention_to_the_memory_is_independent_of_the_encoder_frames():
  """For both segments, the contribution to the logits does not depend on the scale of the encoder frames."""
  joint, decoupled = (
    dataclasses.replace(SMALL, memory_segments=2, memory_attention=kind) for kind in network.MEMORY_ATTENTIONS
  )
  assert [config.decoupled_frames for config in (joint, decoupled, decoupled.replace(memory_length=0))] == [0, 6, 0]
  rng, params = np.random.default_rng(2), random_params(SMALL)
  memory = rng.normal(size=(2, 6, SMALL.emb_dim))
  tokens = rng.integers(1, SMALL.vocab_size, (2, 4))
  frames = 30 * rng.normal(size=(2, 10, SMALL.emb_dim))  # one of them takes all of a joint softmax

  def change(config, segment):
    other = memory.copy()
    other[:, 3 * segment : 3 * segment + 3] = rng.normal(size=(2, 3, SMALL.emb_dim))
    contributions = [
      network.Transformer(config).apply(
        {'params': params},
        np.concatenate([frames, rows], axis=1),
        None,
        tokens,
        enable_dropout=False,
        method=network.Transformer.decode,
      )
      for rows in (memory, other)
    ]
    return np.abs(contributions[0] - contributions[1]).max()

  for segment in (0, 1):
    assert change(decoupled, segment) > 1e-2 and change(joint, segment) < 1e-6


def test_memory_has_no_dropout():
  batch = small_batch(np.random.default_rng(0))
  params = random_params(SMALL)
  encode = network.Transformer.encode
  clean = apply(SMALL, params, batch[0], batch[3], method=encode)
  dropped = apply(
    SMALL, params, batch[0], batch[3], method=encode, enable_dropout=True, rngs={'dropout': jax.random.key(0)}
  )
  np.testing.assert_array_equal(dropped[:, 10:], clean[:, 10:])
  assert not np.allclose(dropped[:, :10], clean[:, :10])


def test_missing_prior_tokens_are_an_error():
  batch = small_batch(np.random.default_rng(0))
  params = random_params(SMALL)
  for prior in (None, batch[3][:, :2]):
    with pytest.raises(ValueError, match='prior tokens'):
      apply(SMALL, params, *batch[:3], prior)


def test_without_memory_prior_tokens_are_ignored():
  config = dataclasses.replace(SMALL, memory_length=0)
  batch = small_batch(np.random.default_rng(0))
  params = random_params(config)
  np.testing.assert_array_equal(apply(config, params, *batch), apply(config, params, *batch[:3]))


def test_decoding_is_causal():
  batch = small_batch(np.random.default_rng(0))
  params = random_params(SMALL)
  later = batch[1].copy()
  later[:, 6:] = 7
  before, after = (
    apply(SMALL, params, batch[0], tokens, np.ones_like(tokens), batch[3]) for tokens in (batch[1], later)
  )
  np.testing.assert_array_equal(before[:, :6], after[:, :6])
  assert (before[:, 6] != after[:, 6]).any()


@pytest.mark.parametrize('dropout_masks', network.KINDS)
def test_dropout_is_seeded(dropout_masks):
  config = dataclasses.replace(SMALL, dropout_masks=dropout_masks)
  batch = small_batch(np.random.default_rng(0))
  first, again, other = (
    apply(config, random_params(config), *batch, enable_dropout=True, rngs={'dropout': jax.random.key(seed)})
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert not np.allclose(first, other)


def test_every_parameter_gets_a_finite_gradient():
  batch = small_batch(np.random.default_rng(0))

  @jax.jit
  def gradient(params):
    module = network.Transformer(SMALL)

    def loss(params):
      logits = module.apply({'params': params}, *batch[:3], prior_tokens=batch[3], enable_dropout=False)
      return jnp.square(logits).mean()

    return jax.grad(loss)(params)

  for leaf in jax.tree.leaves(gradient(random_params(SMALL))):
    assert np.isfinite(leaf).all()
    assert np.abs(leaf).max() > 0


def test_logits_via_embedding():
  config = dataclasses.replace(SMALL, logits_via_embedding=True)
  batch = small_batch(np.random.default_rng(0))
  params = random_params(config)
  assert 'logits_dense' not in params['decoder']
  assert apply(config, params, *batch).shape == (2, 9, 96)


def test_bfloat16_is_close_and_logits_stay_float32():
  batch = small_batch(np.random.default_rng(0))
  params = random_params(SMALL)
  half = apply(dataclasses.replace(SMALL, dtype='bfloat16'), params, *batch)
  assert half.dtype == np.float32
  full = apply(SMALL, params, *batch)
  assert np.abs(half - full).max() < 0.1 * np.abs(full).max()


@pytest.mark.parametrize('kind', network.KINDS)
def test_initial_spread(kind):
  config = network.T5Config(
    vocab_size=256, emb_dim=64, num_encoder_layers=1, num_heads=4, head_dim=16, mlp_dim=256, initializers=kind
  )
  params = network.Encoder(config).init(jax.random.key(0), np.zeros((1, 2, 512), np.float32), False)['params']
  layer = params['layers_0']
  spread = {name: float(jnp.std(part['kernel'])) for name, part in (layer['attention'] | layer['mlp']).items()}
  np.testing.assert_allclose([spread['key'], spread['value'], spread['out']], 64**-0.5, rtol=0.1)
  np.testing.assert_allclose(spread['query'], 64**-0.5 / 4, rtol=0.1)
  np.testing.assert_allclose([spread['wi_0'], spread['wi_1'], 2 * spread['wo']], 64**-0.5, rtol=0.1)
  furthest = float(jnp.abs(params['continuous_inputs_projection']['kernel']).max()) * 512**0.5
  assert 0.9 < furthest <= 1 if kind == 'mr_mt3' else 1.5 < furthest < 2.4
  embedding = layers.Embed(500, 64).init(jax.random.key(0), np.zeros(1, int))['params']['embedding']
  np.testing.assert_allclose(float(jnp.std(embedding)), 1, rtol=0.1)


@pytest.mark.parametrize(
  'bad', [{'emb_dim': 7}, {'num_heads': 0}, {'memory_length': -1}, {'positions': 'x'}, {'dtype': 'y'}]
)
def test_nonsense_is_refused(bad):
  with pytest.raises(UserError, match=next(iter(bad))):
    dataclasses.replace(SMALL, **bad)
