import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3.nn import layers


@pytest.mark.parametrize(('features', 'outputs'), [(3, 8), (8, 3)])
def test_projection_gradient(features, outputs):
  rng = np.random.default_rng(0)
  x, w, g = (rng.normal(size=s).astype(np.float32) for s in ((2, 5, features), (features, outputs), (2, 5, outputs)))
  y, pull = jax.vjp(layers.project, x, w)
  np.testing.assert_allclose(y, x @ w, atol=1e-5)
  x_gradient, w_gradient = pull(g)
  np.testing.assert_allclose(x_gradient, g @ w.T, atol=1e-5)
  np.testing.assert_allclose(w_gradient, np.einsum('btn,btm->nm', x, g), atol=1e-5)


def test_shared_attention_dropout_is_one_mask_for_all_queries():
  # Values are one-hot, so the output rows are the attention weights themselves.
  x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 6, 4)), jnp.float32)
  module = layers.MultiHeadDotProductAttention(1, 4, 4, dropout_rate=0.5)
  eye = jnp.eye(4)
  variables = {'params': {name: {'kernel': eye} for name in ('query', 'key', 'value', 'out')}}
  context = jnp.broadcast_to(eye, (2, 4, 4))
  clean = module.apply(variables, x, context)
  dropped = module.apply(variables, x, context, True, rngs={'dropout': jax.random.key(3)})
  ratio = np.asarray(dropped / clean)
  assert set(np.unique(ratio.round(4))) == {0.0, 2.0}
  np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), atol=1e-4)
  apart = layers.MultiHeadDotProductAttention(1, 4, 4, dropout_rate=0.5, shared_dropout=False)
  ratio = np.asarray(apart.apply(variables, x, context, True, rngs={'dropout': jax.random.key(3)}) / clean)
  assert set(np.unique(ratio.round(4))) == {0.0, 2.0}
  assert (ratio != ratio[:, :1]).any()


@pytest.mark.parametrize('shared', [True, False])
def test_keys_apart_have_a_softmax_of_their_own(shared):
  rng = np.random.default_rng(5)
  x, context = rng.normal(size=(2, 6, 12)), rng.normal(size=(2, 9, 12))
  real = np.arange(6) < np.array([[6], [4]])
  plain, apart = (layers.MultiHeadDotProductAttention(3, 4, 12, 0.5, shared, apart=count) for count in (0, 4))
  params = plain.init(jax.random.key(0), x, context)
  wanted = plain.apply(params, x, context[:, :5]) + plain.apply(params, x, context[:, 5:])
  found = apart.apply(params, x, context, real=real)
  np.testing.assert_allclose(found[real], wanted[real], atol=1e-5)
  assert np.abs(plain.apply(params, x, context) - wanted).max() > 0.1
  # However loud the others are, these are heard.
  loud = context * np.where(np.arange(9) < 5, 100, 1)[:, None]
  alone = plain.apply(params, x, context[:, 5:])
  np.testing.assert_allclose(apart.apply(params, x, loud) - plain.apply(params, x, loud[:, :5]), alone, atol=1e-3)
  draw = jax.jit(lambda key: apart.apply(params, x, context, True, rngs={'dropout': key}))
  drawn = [draw(jax.random.key(seed)) for seed in range(400)]
  assert np.abs(np.mean(drawn, axis=0) - wanted).max() < 0.3 * np.std(drawn, axis=0).max()
  with pytest.raises(ValueError, match='no mask'):
    apart.apply(params, x, context, mask=np.ones((2, 1, 6, 9)))


@pytest.mark.parametrize('shared', [True, False])
def test_dropout_masks(shared):
  x = jnp.ones((4, 6, 50))
  module = layers.Dropout(0.4, shared)
  y = np.asarray(module.apply({}, x, True, rngs={'dropout': jax.random.key(0)}))
  assert set(np.unique(y.round(4))) == {0.0, np.float32(1 / 0.6).round(4)}
  assert (y == y[:, :1]).all() == shared
  np.testing.assert_array_equal(module.apply({}, x, False), x)


def test_positions():
  mt3, mr_mt3 = (layers.sinusoidal_positions(1024, 512, kind) for kind in ('mt3', 'mr_mt3'))
  for table, last in ((mt3, 1e-4), (mr_mt3, 10000 ** (-255 / 256))):
    assert table.shape == (1024, 512)
    np.testing.assert_allclose(table[:, 0], np.sin(np.arange(1024)), atol=1e-6)
    np.testing.assert_allclose(table[:, 256], np.cos(np.arange(1024)), atol=1e-6)
    np.testing.assert_allclose(table[1000, 255], np.sin(1000 * last), atol=1e-6)


def test_layer_norm_has_no_mean_and_no_bias():
  x = np.random.default_rng(0).normal(3, 2, size=(2, 8)).astype(np.float32)
  module = layers.LayerNorm()
  variables = module.init(jax.random.key(0), x)
  assert [leaf.shape for leaf in jax.tree.leaves(variables['params'])] == [(8,)]
  expected = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


def test_gated_mlp_against_the_definition():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 4)).astype(np.float32)
  module = layers.MlpBlock(6, dropout_rate=0.0)
  params = module.init(jax.random.key(0), x, False)['params']
  gate, linear, out = (np.asarray(params[name]['kernel'], np.float64) for name in ('wi_0', 'wi_1', 'wo'))
  hidden = x @ gate
  gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
  np.testing.assert_allclose(module.apply({'params': params}, x, False), (gelu * (x @ linear)) @ out, atol=1e-5)
