import dataclasses

import jax
import jax.numpy as jnp
import network_fixture as fixture
import numpy as np
import pytest

from mrmt3 import network
from mrmt3.config import ModelSpec
from mrmt3.decoding import cached_decoder
from mrmt3.errors import UserError
from mrmt3.network import T5Config
from mrmt3.tokens.event_state import next_status, running_status

CONFIGS = {
  'mr_mt3': {},
  'one activation': {'mlp_activations': ('relu',)},
  'three activations': {'mlp_activations': ('gelu', 'linear', 'tanh')},
  'embedding as output': {'logits_via_embedding': True, 'memory_length': 0, 'positions': 'mt3'},
  'memory with its own softmax': {'memory_length': 5, 'memory_softmax': 'own'},
  'bfloat16': {'dtype': 'bfloat16'},
  'running status': {'running_status': ((3, 20), (40, 41), (50, 60))},
  'last event': {'running_status': ((3, 20), (40, 41)), 'event_ends': ((30, 39), (50, 55))},
  'last event in bfloat16': {
    'dtype': 'bfloat16',
    'running_status': ((3, 20), (40, 41)),
    'event_ends': ((30, 39), (50, 55)),
  },
}


@pytest.mark.parametrize('name', CONFIGS)
def test_steps_are_the_networks(name):
  config = dataclasses.replace(fixture.CONFIG, **CONFIGS[name])
  rng = np.random.default_rng(0)
  encoded = rng.normal(size=(2, 12, config.emb_dim)).astype(np.float32)
  tokens = rng.integers(0, config.vocab_size, (70, 2))
  module = network.Transformer(config)
  shapes = network.parameter_shapes(config, fixture.NUM_MEL_BINS)
  params = jax.tree.map(
    jnp.asarray,
    jax.tree.map(lambda x: rng.normal(1.0 if x.ndim == 1 else 0.0, 0.2, x.shape).astype(np.float32), shapes),
  )
  weights = cached_decoder.pack(params['decoder'], config)
  cache = cached_decoder.init_cache(weights, config, encoded, 40)
  whole = module.apply(
    {'params': params}, encoded, None, tokens.T, enable_dropout=False, method=network.Transformer.decode
  )
  ours = jax.jit(lambda *args: cached_decoder.step(weights, config, *args, len(tokens)))
  for position, now in enumerate(tokens):
    if position == 40:
      cache = cached_decoder.grow(cache, len(tokens))
    logits, cache = ours(now, position, cache)
    wanted = whole[:, position]
    assert logits.shape == wanted.shape and logits.dtype == np.float32
    if config.dtype == 'bfloat16':  # roundings in another order add up over the layers
      assert np.corrcoef(np.ravel(logits), np.ravel(wanted))[0, 1] > 0.98
    else:
      np.testing.assert_allclose(logits, wanted, atol=2e-4 * float(np.std(wanted)))


def test_the_running_status_is_the_last_token_of_each_range():
  ranges, rng = ((1, 4), (7, 7)), np.random.default_rng(0)
  tokens = rng.integers(0, 10, (3, 20))
  expected = np.zeros((3, 20, 2), int)
  for row, place in np.ndindex(3, 20):
    for k, (first, last) in enumerate(ranges):
      held = [token for token in tokens[row, : place + 1] if first <= token <= last]
      expected[row, place, k] = held[-1] if held else 0
  np.testing.assert_array_equal(running_status(jnp.asarray(tokens), ranges), expected)
  status = jnp.zeros((3, 2), int)
  for place in range(20):
    status = next_status(status, jnp.asarray(tokens[:, place]), ranges)
    np.testing.assert_array_equal(status, expected[:, place])


def test_the_last_event_is_told_as_it_was():
  ranges, ends, rng = ((1, 4), (7, 7)), ((5, 6), (9, 9)), np.random.default_rng(0)
  tokens = rng.integers(0, 10, (3, 40))
  status = np.asarray(running_status(jnp.asarray(tokens), ranges))
  expected = np.zeros((3, 40, 5), int)
  expected[..., :2] = status
  for row, place in np.ndindex(3, 40):
    done = [k for k in range(place + 1) if tokens[row, k] in (5, 6, 9)]
    if done:
      expected[row, place, 2:] = [*status[row, done[-1]], tokens[row, done[-1]]]
  np.testing.assert_array_equal(running_status(jnp.asarray(tokens), ranges, ends), expected)
  held = jnp.zeros((3, 5), int)
  for place in range(40):
    held = next_status(held, jnp.asarray(tokens[:, place]), ranges, ends)
    np.testing.assert_array_equal(held, expected[:, place])


@pytest.mark.parametrize('softmax', network.MEMORY_SOFTMAXES)
@pytest.mark.parametrize('ends', [(), ((30, 39), (42, 44))])
def test_the_networks_own_cache_keeps_the_running_status(ends, softmax):
  config = dataclasses.replace(
    fixture.CONFIG, running_status=((3, 20), (40, 41)), event_ends=ends, memory_length=4, memory_softmax=softmax
  )
  rng = np.random.default_rng(0)
  shapes = network.parameter_shapes(config, fixture.NUM_MEL_BINS)
  params = jax.tree.map(lambda x: rng.normal(1.0 if x.ndim == 1 else 0.0, 0.2, x.shape).astype(np.float32), shapes)
  assert params['decoder']['status_scale'].shape == (5 if ends else 2, config.emb_dim)
  encoded, tokens = rng.normal(size=(2, 12, config.emb_dim)).astype(np.float32), rng.integers(0, 45, (2, 9))
  module, options = network.Transformer(config), {'enable_dropout': False, 'method': network.Transformer.decode}
  whole = module.apply({'params': params}, encoded, None, tokens, **options)
  first, cache = module.apply({'params': params}, encoded, None, tokens, decode=True, mutable=['cache'], **options)
  np.testing.assert_allclose(first, whole, atol=1e-4 * float(np.std(whole)))
  for place in range(tokens.shape[1]):
    now = tokens[:, place : place + 1]
    logits, cache = module.apply(
      {'params': params, **cache}, encoded, None, now, decode=True, mutable=['cache'], **options
    )
    np.testing.assert_allclose(logits[:, 0], whole[:, place], atol=3e-4 * float(np.std(whole)))


def test_say_once_needs_to_know_what_an_event_is():
  with pytest.raises(UserError, match='say_once is True; it must be False, or True with event_ends'):
    dataclasses.replace(fixture.CONFIG, say_once=True)


@pytest.mark.parametrize('ranges', [((5, 3),), ((0, 4),), ((3, 10**6),), (3, 4), 'x', ((1, 2, 3),)])
def test_a_running_status_of_nonsense_is_named(ranges):
  with pytest.raises(UserError, match='running_status'):
    dataclasses.replace(fixture.CONFIG, running_status=ranges)
  with pytest.raises(UserError, match='event_ends'):
    dataclasses.replace(fixture.CONFIG, running_status=((3, 4),), event_ends=ranges)


def test_events_are_told_of_by_a_running_status():
  with pytest.raises(UserError, match='no running_status'):
    dataclasses.replace(fixture.CONFIG, event_ends=((3, 4),))


def test_the_running_status_is_of_kinds_of_tokens():
  with pytest.raises(UserError, match='1132'):
    ModelSpec(T5Config(vocab_size=1536, running_status=((3, 1003), (1132, 1140))))
  ModelSpec(T5Config(vocab_size=1536, running_status=((3, 1003), (1132, 1133)), event_ends=((1004, 1131),)))
  with pytest.raises(UserError, match=r'event_ends has .1004, 1130'):
    ModelSpec(T5Config(vocab_size=1536, running_status=((3, 1003),), event_ends=((1004, 1130),)))
