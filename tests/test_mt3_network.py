"""The network and its layers with MT3's interface: masks, packing, a cache collection, beam search and sampling."""

import functools

import jax
import jax.numpy as jnp
import network_fixture as fixture
import numpy as np
import pytest
from flax import linen as nn

from mrmt3 import layers, models, network
from mrmt3.engine import decoding
from mrmt3.nn import layers as nn_layers

CONFIG, FIXTURE = fixture.T5X_CONFIG, fixture.T5X


@functools.cache
def variables():
  return {'params': fixture.t5x_params()}


def apply(*arguments, **options):
  called = functools.partial(network.Transformer(CONFIG).apply, enable_dropout=False, **options)
  return np.asarray(jax.jit(called)(variables(), *arguments))


def test_encode_and_decode_make_the_whole():
  inputs, targets = FIXTURE['inputs'], FIXTURE['targets']
  shifted = fixture.shift_right(targets)
  module = network.Transformer(CONFIG)
  encoded = apply(inputs, method=module.encode)
  logits = apply(encoded, inputs, shifted, targets, method=module.decode)
  np.testing.assert_allclose(logits, FIXTURE['logits'], atol=1e-4)


def test_packed_examples_do_not_see_each_other():
  rng = np.random.default_rng(0)
  inputs, targets = FIXTURE['inputs'][:1], rng.integers(3, 1400, (1, 20))
  alone = [  # the first 24 frames with 8 tokens, the others with 12
    apply(inputs[:, frames], fixture.shift_right(targets[:, part]), targets[:, part])
    for frames, part in ((slice(0, 24), slice(0, 8)), (slice(24, None), slice(8, None)))
  ]
  shifted = np.concatenate([fixture.shift_right(targets[:, part]) for part in (slice(0, 8), slice(8, None))], axis=1)
  frame_ids = np.repeat([[1, 2]], (24, inputs.shape[1] - 24), axis=1)
  token_ids = np.repeat([[1, 2]], (8, 12), axis=1)
  packed = apply(inputs, shifted, targets, frame_ids, token_ids)
  # Positions count on in a packed row, so only the first example comes out as if alone.
  np.testing.assert_allclose(packed[:, :8], alone[0], atol=1e-4)
  changed = inputs.copy()
  changed[:, :24] += 1
  again = apply(changed, shifted, targets, frame_ids, token_ids)
  np.testing.assert_allclose(again[:, 8:], packed[:, 8:], atol=1e-5)
  assert np.abs(again[:, :8] - packed[:, :8]).max() > 0.1
  with pytest.raises(ValueError, match='packed'):
    apply(inputs, shifted, targets, frame_ids, token_ids, decode=True, mutable=['cache'])


def test_cached_steps_equal_teacher_forcing():
  inputs, targets = FIXTURE['inputs'], np.maximum(FIXTURE['targets'], 1)  # no padding: steps have no masks
  shifted = fixture.shift_right(targets)
  module = network.Transformer(CONFIG)
  expected = apply(inputs, shifted, targets)
  room = np.ones_like(targets)
  _, filled = module.apply(variables(), inputs * 0, room, room, decode=True, enable_dropout=False, mutable=['cache'])
  encoded = apply(inputs, method=module.encode)

  @jax.jit
  def step(cache, tokens):
    return module.apply(
      {**variables(), 'cache': cache},
      encoded,
      inputs,
      tokens,
      tokens,
      enable_dropout=False,
      decode=True,
      max_decode_length=targets.shape[1],
      mutable=['cache'],
      method=module.decode,
    )

  cache = filled['cache']
  for position in range(targets.shape[1]):
    logits, changed = step(cache, shifted[:, position : position + 1])
    cache = changed['cache']
    np.testing.assert_allclose(logits[:, 0], expected[:, position], atol=1e-4)


def decode(decode_fn, num_decodes, **decoder_params):
  model = models.ContinuousInputsEncoderDecoderModel(network.Transformer(CONFIG), decode_fn=decode_fn, input_depth=512)
  batch = {'encoder_input_tokens': FIXTURE['inputs'], 'decoder_input_tokens': np.zeros_like(FIXTURE['greedy'])}
  params = fixture.t5x_params()
  search = functools.partial(
    model.predict_batch_with_aux, decoder_params=decoder_params, num_decodes=num_decodes, return_all_decodes=True
  )
  tokens, aux = jax.jit(search)(params, batch)
  return np.asarray(tokens), np.asarray(aux['scores'])


def test_greedy_is_the_worked_case():
  tokens, _ = decode(decoding.temperature_sample, 1)
  np.testing.assert_array_equal(tokens[:, 0], FIXTURE['greedy'])


def test_beams_are_at_least_as_likely_as_greedy():
  greedy, greedy_scores = decode(decoding.temperature_sample, 1)
  beams, scores = decode(decoding.beam_search, 4, alpha=0.0)
  assert beams.shape == (2, 4, greedy.shape[2])
  assert (scores[:, 1:] >= scores[:, :-1]).all()  # the best is last
  assert (scores[:, -1] >= greedy_scores[:, -1] - 1e-4).all()
  assert (np.abs(beams[:, -1] - beams[:, 0]).max(axis=-1) > 0).all()


def test_sampling_is_seeded():
  drawn = [
    decode(decoding.temperature_sample, 2, topk=5, temperature=1.5, decode_rng=jax.random.key(seed))[0]
    for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(drawn[0], drawn[1])
  assert not np.array_equal(drawn[0], drawn[2])


def test_a_network_with_memory_searches_beams_too():
  f = fixture.FIXTURE
  model = models.ContinuousInputsEncoderDecoderModel(network.Transformer(fixture.CONFIG))
  model.call_keywords = lambda batch: {'prior_tokens': batch['prior_tokens']}
  batch = {'encoder_input_tokens': f['inputs'], 'decoder_input_tokens': f['targets']}
  one, other = (
    model.predict_batch(fixture.params(), {**batch, 'prior_tokens': prior}, num_decodes=2)
    for prior in (f['prior_targets'], np.zeros_like(f['prior_targets']))
  )
  assert one.shape == f['targets'].shape
  assert not np.array_equal(one, other)


def test_initial_variables_know_the_depth():
  model = models.ContinuousInputsEncoderDecoderModel(network.Transformer(CONFIG), input_depth=512)
  shapes = {name: (1, 4) for name in ('encoder_input_tokens', 'decoder_input_tokens', 'decoder_target_tokens')}
  types = dict.fromkeys(('decoder_input_tokens', 'decoder_target_tokens'), jnp.int32)
  made = jax.eval_shape(lambda: model.get_initial_variables(jax.random.key(0), shapes, types))
  assert made['params']['encoder']['continuous_inputs_projection']['kernel'].shape == (512, CONFIG.emb_dim)


def test_names_that_mt3_has_in_models():
  converter = models.ContinuousInputsEncDecFeatureConverter
  assert models.ContinuousInputsEncoderDecoderModel.FEATURE_CONVERTER_CLS is converter
  assert models.ContinuousInputsEncoderDecoderModel(None).FEATURE_CONVERTER_CLS is converter
  assert CONFIG.replace(num_heads=1) == network.T5Config(**{**vars(CONFIG), 'num_heads': 1})
  for module in (models, network):
    with pytest.raises(AttributeError, match='Nothing'):
      _ = module.Nothing


@pytest.mark.parametrize('name', ['EncoderLayer', 'DecoderLayer', 'Encoder', 'Decoder'])
def test_parts_take_masks(name):
  config = CONFIG.replace(emb_dim=16, vocab_size=50)
  rng = np.random.default_rng(0)
  x, tokens = rng.normal(size=(2, 6, 16)).astype(np.float32), rng.integers(1, 50, (2, 6))
  causal = layers.make_causal_mask(tokens)
  arguments = {
    'EncoderLayer': (x, causal),
    'Encoder': (x, causal),
    'DecoderLayer': (x, x, causal),
    'Decoder': (x, tokens, None, causal),
  }[name]
  module = getattr(network, name)(config)
  params = module.init(jax.random.key(0), *arguments, deterministic=True)
  masked = module.apply(params, *arguments, deterministic=True)
  open_ = module.apply(params, *(None if a is causal else a for a in arguments), deterministic=True)
  np.testing.assert_allclose(masked[:, -1], open_[:, -1], atol=1e-5)  # the last position sees everything anyway
  assert np.abs(masked[:, 0] - open_[:, 0]).max() > 1e-3


def attention_inputs():
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, 7, 12)).astype(np.float32), rng.normal(size=(2, 7, 12)).astype(np.float32)


def test_attention_is_that_of_the_blocks():
  x, context = attention_inputs()
  module = layers.MultiHeadDotProductAttention(num_heads=3, head_dim=4)
  block = nn_layers.MultiHeadDotProductAttention(3, 4, 12)
  params = module.init(jax.random.key(0), x, context, deterministic=True)['params']
  seen = np.array([[1] * 7, [1] * 4 + [0] * 3])
  mask = layers.make_attention_mask(np.ones((2, 7)), seen)
  bias = np.random.default_rng(1).normal(size=(1, 3, 7, 7)).astype(np.float32)
  made = module.apply({'params': params}, x, context, mask, deterministic=True)
  np.testing.assert_allclose(made, block.apply({'params': params}, x, context, seen=seen > 0), atol=1e-5)
  np.testing.assert_allclose(made, block.apply({'params': params}, x, context, mask=mask), atol=1e-5)
  biased = module.apply({'params': params}, x, context, mask, bias, deterministic=True)
  assert np.abs(biased - made).max() > 1e-2
  wide = layers.MultiHeadDotProductAttention(num_heads=3, head_dim=4, dropout_rate=0.5)
  dropped = wide.apply({'params': params}, x, context, rngs={'dropout': jax.random.key(0)})
  assert np.abs(dropped - made).max() > 1e-2


def test_attention_step_by_step():
  x, _ = attention_inputs()
  module = layers.MultiHeadDotProductAttention(num_heads=3, head_dim=4)
  bias = np.random.default_rng(1).normal(size=(1, 3, 7, 7)).astype(np.float32)
  variables = module.init(jax.random.key(0), x, x, decode=True, deterministic=True)
  params, cache = variables['params'], variables['cache']
  assert cache['cached_key'].shape == (2, 3, 4, 7)
  expected = module.apply({'params': params}, x, x, layers.make_causal_mask(x[..., 0]), bias, deterministic=True)
  for position in range(7):
    here = x[:, position : position + 1]
    made, changed = module.apply(
      {'params': params, 'cache': cache}, here, here, None, bias, decode=True, deterministic=True, mutable=['cache']
    )
    cache = changed['cache']
    np.testing.assert_allclose(made[:, 0], expected[:, position], atol=1e-5)
  with pytest.raises(ValueError, match='cached step'):
    module.apply({'params': params, 'cache': cache}, x, x, decode=True, deterministic=True, mutable=['cache'])


def test_dense_over_several_axes():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  made, variables = layers.DenseGeneral((6, 7), axis=(1, -1)).init_with_output(jax.random.key(0), x)
  kernel = variables['params']['kernel']
  assert kernel.shape == (15, 42)
  expected = np.einsum('abcd,bdef->acef', x, kernel.reshape(3, 5, 6, 7))
  np.testing.assert_allclose(made, expected, atol=1e-5)


def test_mlp_is_that_of_the_blocks():
  x, _ = attention_inputs()
  module = layers.MlpBlock(9, ('gelu', 'linear'))
  params = module.init(jax.random.key(0), x, deterministic=True)['params']
  block = nn_layers.MlpBlock(9)
  made = module.apply({'params': params}, x, deterministic=True)
  np.testing.assert_allclose(made, block.apply({'params': params}, x, False), atol=1e-6)
  plain = layers.MlpBlock(9, (nn.relu,))
  params = plain.init(jax.random.key(0), x, deterministic=True)['params']
  expected = np.maximum(x @ params['wi']['kernel'], 0) @ params['wo']['kernel']
  np.testing.assert_allclose(plain.apply({'params': params}, x, deterministic=True), expected, atol=1e-5)
  with pytest.raises(ValueError, match='activation'):
    layers.MlpBlock(9, (3,)).init(jax.random.key(0), x, deterministic=True)


def test_embeddings():
  tokens = np.array([[3, 0, 4]])
  embed = layers.Embed(5, 4)
  variables = embed.init(jax.random.key(0), tokens)
  table = variables['params']['embedding']
  rows = embed.apply(variables, tokens)
  np.testing.assert_array_equal(rows, table[tokens])
  np.testing.assert_allclose(layers.Embed(5, 4, one_hot=True).apply(variables, tokens), rows, atol=1e-6)
  np.testing.assert_allclose(embed.apply(variables, rows, method=embed.attend), rows @ table.T, atol=1e-5)
  cast = layers.Embed(5, 4, cast_input_dtype=jnp.int32).apply(variables, tokens.astype(np.float32))
  np.testing.assert_array_equal(cast, rows)
  with pytest.raises(ValueError, match='Input type'):
    embed.apply(variables, tokens.astype(np.float32))


def test_positions():
  table = nn_layers.sinusoidal_positions(9, 8)
  made = layers.sinusoidal()(None, (9, 8))
  np.testing.assert_allclose(made, table, atol=1e-6)
  fixed = layers.FixedEmbed(8, max_length=9)
  np.testing.assert_allclose(fixed.apply({}, np.arange(4)[None]), made[None, :4])
  _, cache = fixed.apply({}, np.arange(9)[None], decode=True, mutable=['cache'])
  for position in range(3):
    row, cache = fixed.apply(cache, np.zeros((1, 1), int), decode=True, mutable=['cache'])
    np.testing.assert_allclose(row, made[position : position + 1])
  for bad in ({'shape': (3,)}, {'shape': (3, 4), 'dtype': jnp.bfloat16}):
    with pytest.raises(ValueError, match='table'):
      layers.sinusoidal()(None, **bad)


def test_layer_norm():
  x, _ = attention_inputs()
  module = layers.LayerNorm(epsilon=0.1, scale_init=nn.initializers.constant(2.0))
  made, _ = module.init_with_output(jax.random.key(0), x)
  np.testing.assert_allclose(made, 2 * x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1), rtol=1e-5)


def test_masks():
  tokens = np.array([[5, 6, 0]])
  assert layers.make_causal_mask(tokens).tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]]
  assert layers.make_decoder_mask(tokens, jnp.float32).tolist() == [[[[1, 0, 0], [1, 1, 0], [0, 0, 0]]]]
  both = layers.make_decoder_mask(tokens, jnp.float32, decoder_causal_attention=np.array([[1, 1, 0]]))
  assert both.tolist() == [[[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]]
  packed = layers.make_decoder_mask(np.array([[5, 6, 7]]), jnp.float32, decoder_segment_ids=np.array([[1, 2, 2]]))
  assert packed.tolist() == [[[[1, 0, 0], [0, 1, 0], [0, 1, 1]]]]
  assert layers.make_attention_mask(tokens, tokens, extra_batch_dims=2).shape == (1, 1, 1, 1, 3, 3)
  one, other = np.array([1, 0, 1]), np.array([1, 1, 0])
  assert layers.combine_masks(one, None, other).tolist() == [1, 0, 0]
  assert layers.combine_biases(one, other, None).tolist() == [2, 1, 1]
  assert layers.combine_masks(None) is layers.combine_biases() is None
  with pytest.raises(AssertionError, match='rank'):
    layers.combine_masks(one, other[None])
