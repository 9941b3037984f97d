import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.nn import attention

attend_to_prefix = jax.jit(attention.attend_to_prefix)


def reference_attention(queries, keys, values, mask):
  logits = queries @ keys.swapaxes(-1, -2)
  logits = np.where(mask, logits, attention.MASKED_LOGIT)
  weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return (weights / weights.sum(axis=-1, keepdims=True)) @ values


def random_qkv(rng, queries=5, keys=7):
  return [rng.normal(size=(2, 3, n, 4)) for n in (queries, keys, keys)]


def test_attention_against_the_definition():
  rng = np.random.default_rng(0)
  q, k, v = random_qkv(rng)
  mask = rng.random((2, 1, 5, 7)) < 0.5
  mask[0, 0, 2] = False  # a query that may see nothing
  actual = np.asarray(attention.attend(*map(jnp.asarray, (q, k, v)), mask))
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

  def loss(function, *qkv):
    y = function(*qkv)
    return (y * weights).sum(), y

  results = [
    jax.jit(jax.grad(functools.partial(loss, function), (0, 1, 2), has_aux=True))(q, k, v)
    for function in (
      lambda *qkv: attention.attend_in_blocks(*qkv, seen, None, causal),
      lambda *qkv: attention.attend(*qkv, mask),
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
  kept = attention.dropout_masks(jax.random.key(1), rate, q, k, causal)
  stays = np.zeros((2, 3, queries, keys), bool)
  for mask, (rows, columns) in zip(kept, attention._blocks(queries, keys, causal), strict=True):
    stays[:, :, rows, columns] = mask
  sees = np.tril(np.ones((queries, keys), bool)) if causal else np.ones((queries, keys), bool)
  drawn = stays[:, :, sees]
  assert abs(drawn.mean() - 0.7) < 5 * np.sqrt(0.21 / drawn.size)

  def expected(q, k, v):
    logits = jnp.where(sees, jnp.einsum('bhqd,bhkd->bhqk', q, k), -jnp.inf)
    return jnp.einsum('bhqk,bhkd->bhqd', jnp.where(stays, jax.nn.softmax(logits), 0) / 0.7, v)

  weights = rng.normal(size=q.shape)
  results = []
  for function in (lambda *qkv: attention.attend_in_blocks(*qkv, None, kept, causal, rate), expected):
    results.append(jax.jit(jax.value_and_grad(lambda *qkv, f=function: (f(*qkv) * weights).sum(), (0, 1, 2)))(q, k, v))
  for actual, wanted in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(actual, wanted, atol=1e-4, rtol=1e-4)


def test_attention_survives_huge_logits():
  q, k, v = random_qkv(np.random.default_rng(1))
  actual = attention.attend(jnp.asarray(q * 1e3), jnp.asarray(k * 1e3), jnp.asarray(v))
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
