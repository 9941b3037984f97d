"""MR-MT3's decoder with the event state: step by step, with its own cache, and what it is conditioned on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3.hybrid import HybridConfig
from mrmt3.network import MEMORY_ATTENTIONS, T5Config
from mrmt3.nn.parameters import parameter_shapes
from mrmt3.tokens.token_ids import TokenIds

IDS = TokenIds(time=(3, 20), velocity=(40, 41), program=(50, 60), tie=(42, 42), pitch=(30, 39), drum=(43, 49))
SIZES = dict(vocab_size=64, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=16, num_encoder_layers=1, num_decoder_layers=2)
CONFIG = HybridConfig(**SIZES, front_channels=(1, 1, 1, 1), num_candidates=4, memory_length=4)
CONFIGS = {
  'event state': {'last_event': False},
  'last event': {},
  'last event in bfloat16': {'dtype': 'bfloat16'},
  'decoupled memory': {'memory_attention': 'decoupled'},
  'embedding as output': {'logits_via_embedding': True},
  'neither': {'event_state': False, 'last_event': False},
}


def random_params(config):
  rng = np.random.default_rng(0)
  shapes = parameter_shapes(config, IDS, 16)
  return jax.tree.map(lambda x: rng.normal(1.0 if x.ndim == 1 else 0.0, 0.2, x.shape).astype(np.float32), shapes)


def decode(config, params, encoded, tokens, **more):
  """Return the logits of whole sequences."""
  module = config.module(IDS)
  apply = functools.partial(module.apply, enable_dropout=False, method=module.decode, **more)
  return jax.jit(apply)({'params': params}, encoded, None, tokens)


@pytest.mark.parametrize('name', CONFIGS)
def test_cached_steps_equal_the_network(name):
  config = CONFIG.replace(**CONFIGS[name])
  rng, params = np.random.default_rng(0), random_params(config)
  encoded = rng.normal(size=(2, 12, config.emb_dim)).astype(np.float32)
  tokens = rng.integers(0, config.vocab_size, (2, 30))
  whole = decode(config, params, encoded, tokens)
  decoder = config.step_decoder(IDS, tokens.shape[1])
  weights = jax.jit(decoder.pack)(params)
  cache = decoder.init_cache(weights, encoded, 20)
  step = jax.jit(functools.partial(decoder.step, weights))
  for position in range(tokens.shape[1]):
    if position == 20:
      cache = decoder.grow(cache, tokens.shape[1])
    logits, cache = step(tokens[:, position], position, cache)
    wanted = whole[:, position]
    assert logits.shape == wanted.shape and logits.dtype == np.float32
    if config.dtype == 'bfloat16':  # roundings in another order add up over the layers
      assert np.corrcoef(np.ravel(logits), np.ravel(wanted))[0, 1] > 0.98
    else:
      np.testing.assert_allclose(logits, wanted, atol=2e-4 * float(np.std(wanted)))


@pytest.mark.parametrize('attention', MEMORY_ATTENTIONS)
@pytest.mark.parametrize('last_event', [False, True])
def test_the_networks_own_cache_keeps_the_event_state(last_event, attention):
  config = CONFIG.replace(last_event=last_event, memory_attention=attention)
  rng, params = np.random.default_rng(0), random_params(config)
  assert params['decoder']['status_scale'].shape == (9 if last_event else 4, config.emb_dim)
  assert ('event_map' in params['decoder']) == last_event
  encoded, tokens = rng.normal(size=(2, 12, config.emb_dim)).astype(np.float32), rng.integers(0, 64, (2, 9))
  whole = decode(config, params, encoded, tokens)
  first, cache = decode(config, params, encoded, tokens, decode=True, mutable=['cache'])
  np.testing.assert_allclose(first, whole, atol=1e-4 * float(np.std(whole)))
  module = config.module(IDS)
  options = {'enable_dropout': False, 'method': module.decode, 'decode': True, 'mutable': ['cache']}
  step = jax.jit(functools.partial(module.apply, **options))
  for position in range(tokens.shape[1]):
    logits, cache = step({'params': params, **cache}, encoded, None, tokens[:, position : position + 1])
    np.testing.assert_allclose(logits[:, 0], whole[:, position], atol=3e-4 * float(np.std(whole)))


def test_event_state_embeddings_are_added_to_the_token_embeddings():
  params = random_params(CONFIG)
  decoder, table = params['decoder'], params['decoder']['token_embedder']['embedding']
  tokens = np.array([[42, 5, 50, 41, 30, 7]])  # tie, time, program, velocity, pitch, time
  module = CONFIG.module(IDS)
  found = module.apply({'params': params}, tokens, method=lambda network, x: network.decoder.embed_inputs(x))[0, -1]
  scale, event_map = decoder['status_scale'], decoder['event_map']
  state = (table[[7, 41, 50, 42]] * scale[:4]).sum(axis=0)
  event = (table[[5, 41, 50, 42, 30]] * scale[4:]).sum(axis=0)
  np.testing.assert_allclose(found, table[7] + state + event @ event_map, atol=1e-5)


def test_without_event_state_it_is_mr_mt3s_decoder():
  config = CONFIG.replace(event_state=False, last_event=False)
  params = random_params(config)
  assert not {'status_scale', 'event_map'} & set(params['decoder'])
  rng = np.random.default_rng(0)
  encoded, tokens = rng.normal(size=(2, 12, 16)).astype(np.float32), rng.integers(0, 64, (2, 6))
  wanted = decode(T5Config(**SIZES, memory_length=4), params, encoded, tokens)
  np.testing.assert_array_equal(decode(config, params, encoded, tokens), wanted)


def test_event_state_and_packed_examples_exclude_each_other():
  encoded, tokens = np.zeros((2, 12, 16), np.float32), np.ones((2, 6), np.int32)
  with pytest.raises(ValueError, match='cannot be packed where each has an event state'):
    decode(CONFIG, random_params(CONFIG), encoded, tokens, decoder_segment_ids=jnp.ones((2, 6), int))


def test_encoding_needs_little_of_the_decoder():
  params = random_params(CONFIG)
  kept = CONFIG.step_decoder(IDS, 8).encoder_params(params)
  assert set(kept['decoder']) == {'token_embedder', 'status_scale', 'event_map'}
  frames, prior = np.ones((1, 8, 16), np.float32), np.ones((1, 4), np.int32)
  module = CONFIG.module(IDS)
  encode = jax.jit(functools.partial(module.apply, enable_dropout=False, method=module.encode))
  encoded = [encode({'params': held}, frames, prior_tokens=prior) for held in (kept, params)]
  np.testing.assert_array_equal(*encoded)
