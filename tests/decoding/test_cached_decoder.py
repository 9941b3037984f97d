import dataclasses
import functools

import jax
import jax.numpy as jnp
import network_fixture as fixture
import numpy as np
import pytest

from mrmt3 import network
from mrmt3.decoding.cached_decoder import CachedDecoder
from mrmt3.nn import parameters

CONFIGS = {
  'mr_mt3': {},
  'one activation': {'mlp_activations': ('relu',)},
  'three activations': {'mlp_activations': ('gelu', 'linear', 'tanh')},
  'embedding as output': {'logits_via_embedding': True, 'memory_length': 0, 'positions': 'mt3'},
  'decoupled attention': {'memory_length': 5, 'memory_attention': 'decoupled'},
  'bfloat16': {'dtype': 'bfloat16'},
}


@pytest.mark.parametrize('name', CONFIGS)
def test_steps_equal_the_networks_logits(name):
  config = dataclasses.replace(fixture.CONFIG, **CONFIGS[name])
  rng = np.random.default_rng(0)
  encoded = rng.normal(size=(2, 12, config.emb_dim)).astype(np.float32)
  tokens = rng.integers(0, config.vocab_size, (70, 2))
  module = network.Transformer(config)
  shapes = parameters.parameter_shapes(config, None, fixture.NUM_MEL_BINS)
  params = jax.tree.map(
    jnp.asarray,
    jax.tree.map(lambda x: rng.normal(1.0 if x.ndim == 1 else 0.0, 0.2, x.shape).astype(np.float32), shapes),
  )
  decoder = CachedDecoder(config, len(tokens))
  weights = decoder.pack(params)
  cache = decoder.init_cache(weights, encoded, 40)
  whole = module.apply(
    {'params': params}, encoded, None, tokens.T, enable_dropout=False, method=network.Transformer.decode
  )
  step = jax.jit(functools.partial(decoder.step, weights))
  for position, now in enumerate(tokens):
    if position == 40:
      cache = decoder.grow(cache, len(tokens))
    logits, cache = step(now, position, cache)
    wanted = whole[:, position]
    assert logits.shape == wanted.shape and logits.dtype == np.float32
    if config.dtype == 'bfloat16':  # roundings in another order add up over the layers
      assert np.corrcoef(np.ravel(logits), np.ravel(wanted))[0, 1] > 0.98
    else:
      np.testing.assert_allclose(logits, wanted, atol=2e-4 * float(np.std(wanted)))
