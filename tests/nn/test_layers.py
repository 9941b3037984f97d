import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.nn import layers


def reference_attention(queries, keys, values, mask):
  logits = queries @ keys.swapaxes(-1, -2)
  logits = np.where(mask, logits, layers.MASKED_LOGIT)
  weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return (weights / weights.sum(axis=-1, keepdims=True)) @ values


def random_qkv(rng, queries=5, keys=7):
  return [rng.normal(size=(2, 3, n, 4)) for n in (queries, keys, keys)]


def test_attention_against_the_definition():
  rng = np.random.default_rng(0)
  q, k, v = random_qkv(rng)
  mask = rng.random((2, 1, 5, 7)) < 0.5
  mask[0, 0, 2] = False  # a query that may see nothing
  actual = np.asarray(layers.attend(*map(jnp.asarray, (q, k, v)), mask))
  np.testing.assert_allclose(actual, reference_attention(q, k, v, mask), atol=1e-5)
  np.testing.assert_allclose(actual[0, :, 2], v[0].mean(axis=1), atol=1e-6)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('queries', [1, 64, 150, 300])
def test_attention_in_blocks_and_its_gradient(queries, causal, masked):
  rng = np.random.default_rng(queries)
  keys = queries if causal else 90
  q, k, v = (jnp.asarray(rng.normal(size=(2, 3, n, 4)), jnp.float32) for n in (queries, keys, keys))
  seen = jnp.asarray(rng.random((2, keys)) < 0.7).at[:, 0].set(True) if masked else None
  mask = np.tril(np.ones((queries, keys), bool)) if causal else np.ones((1, keys), bool)
  mask = mask if seen is None else mask & seen[:, None, None, :]
  weights = rng.normal(size=q.shape)

  def loss(attention, *qkv):
    y = attention(*qkv)
    return (y * weights).sum(), y

  results = [
    jax.jit(jax.grad(functools.partial(loss, attention), (0, 1, 2), has_aux=True))(q, k, v)
    for attention in (
      lambda *qkv: layers.attend_in_blocks(*qkv, seen, None, causal),
      lambda *qkv: layers.attend(*qkv, mask),
    )
  ]
  for actual, expected in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('queries', [1, 150, 300])
def test_attention_in_blocks_drops_single_weights(queries, causal):
  rng = np.random.default_rng(queries)
  keys, rate = queries if causal else 90, 0.3
  q, k, v = (jnp.asarray(rng.normal(size=(2, 3, n, 4)), jnp.float32) for n in (queries, keys, keys))
  kept = layers.dropout_masks(jax.random.key(1), rate, q, k, causal)
  stays = np.zeros((2, 3, queries, keys), bool)
  for mask, (rows, columns) in zip(kept, layers._blocks(queries, keys, causal), strict=True):
    stays[:, :, rows, columns] = mask
  sees = np.tril(np.ones((queries, keys), bool)) if causal else np.ones((queries, keys), bool)
  drawn = stays[:, :, sees]
  assert abs(drawn.mean() - 0.7) < 5 * np.sqrt(0.21 / drawn.size)

  def expected(q, k, v):
    logits = jnp.where(sees, jnp.einsum('bhqd,bhkd->bhqk', q, k), -jnp.inf)
    return jnp.einsum('bhqk,bhkd->bhqd', jnp.where(stays, jax.nn.softmax(logits), 0) / 0.7, v)

  weights = rng.normal(size=q.shape)
  results = []
  for attention in (lambda *qkv: layers.attend_in_blocks(*qkv, None, kept, causal, rate), expected):
    results.append(jax.jit(jax.value_and_grad(lambda *qkv, f=attention: (f(*qkv) * weights).sum(), (0, 1, 2)))(q, k, v))
  for actual, wanted in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(actual, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(('features', 'outputs'), [(3, 8), (8, 3)])
def test_projection_gradient(features, outputs):
  rng = np.random.default_rng(0)
  x, w, g = (rng.normal(size=s).astype(np.float32) for s in ((2, 5, features), (features, outputs), (2, 5, outputs)))
  y, pull = jax.vjp(layers.project, x, w)
  np.testing.assert_allclose(y, x @ w, atol=1e-5)
  x_gradient, w_gradient = pull(g)
  np.testing.assert_allclose(x_gradient, g @ w.T, atol=1e-5)
  np.testing.assert_allclose(w_gradient, np.einsum('btn,btm->nm', x, g), atol=1e-5)


def test_attention_survives_huge_logits():
  q, k, v = random_qkv(np.random.default_rng(1))
  actual = layers.attend(jnp.asarray(q * 1e3), jnp.asarray(k * 1e3), jnp.asarray(v))
  np.testing.assert_allclose(actual, reference_attention(q * 1e3, k * 1e3, v, True), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(position=st.integers(0, 299))
def test_prefix_sees_exactly_the_keys_up_to_position(position):
  rng = np.random.default_rng(position)
  q, k, v = (rng.normal(size=(3, n, 4)).astype(np.float32) for n in (1, 300, 300))
  seen = np.arange(300) <= position
  garbage = ~seen[:, None]
  actual = attend_to_prefix(q, np.where(garbage, 1e6, k), np.where(garbage, 1e6, v), position)
  np.testing.assert_allclose(actual, reference_attention(q, k, v, seen), atol=1e-5)


attend_to_prefix = jax.jit(layers.attend_to_prefix)


def test_shared_attention_dropout_is_one_mask_for_all_queries():
  # Values are one-hot, so the output rows are the attention weights themselves.
  q = next(jnp.asarray(x, jnp.float32) for x in random_qkv(np.random.default_rng(2), queries=6, keys=4))
  module = layers.MultiHeadDotProductAttention(1, 4, 4, dropout_rate=0.5)
  eye = jnp.eye(4)
  variables = {'params': {name: {'kernel': eye} for name in ('query', 'key', 'value', 'out')}}
  x, context = q[:, 0], jnp.broadcast_to(eye, (2, 4, 4))
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
  drawn = [apart.apply(params, x, context, True, rngs={'dropout': jax.random.key(seed)}) for seed in range(400)]
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
