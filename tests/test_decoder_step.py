import dataclasses

import jax
import jax.numpy as jnp
import network_fixture as fixture
import numpy as np
import pytest

from mrmt3 import decoder_step, network

CONFIGS = {
  'mr_mt3': {},
  'one activation': {'mlp_activations': ('relu',)},
  'three activations': {'mlp_activations': ('gelu', 'linear', 'tanh')},
  'embedding as output': {'logits_via_embedding': True, 'memory_length': 0, 'positions': 'mt3'},
  'bfloat16': {'dtype': 'bfloat16'},
}


@pytest.mark.parametrize('name', CONFIGS)
def test_steps_are_the_networks(name):
  config = dataclasses.replace(fixture.CONFIG, **CONFIGS[name])
  rng = np.random.default_rng(0)
  encoded = rng.normal(size=(2, 12, config.emb_dim)).astype(np.float32)
  tokens = rng.integers(0, config.vocab_size, (70, 2))  # more than the shortest prefix of the cache
  module = network.Transformer(config)
  shapes = network.parameter_shapes(config, fixture.NUM_MEL_BINS)
  params = jax.tree.map(jnp.asarray, jax.tree.map(lambda x: rng.normal(1.0 if x.ndim == 1 else 0.0, 0.2, x.shape).astype(np.float32), shapes))
  weights = decoder_step.pack(params['decoder'], config)
  cache = decoder_step.init_cache(weights, config, encoded, len(tokens))
  step = jax.jit(lambda *args: decoder_step.step(weights, config, *args, len(tokens)))
  teacher_forced = jax.jit(
    lambda: module.apply({'params': params}, encoded, None, tokens.T, enable_dropout=False, method=network.Transformer.decode)
  )
  for position, (now, wanted) in enumerate(zip(tokens, jnp.moveaxis(teacher_forced(), 1, 0), strict=True)):
    logits, cache = step(now, position, cache)
    assert logits.shape == wanted.shape and logits.dtype == np.float32
    if config.dtype == 'bfloat16':  # roundings in another order add up over the layers
      assert np.corrcoef(np.ravel(logits), np.ravel(wanted))[0, 1] > 0.98
    else:
      np.testing.assert_allclose(logits, wanted, atol=2e-4 * float(np.std(wanted)))
