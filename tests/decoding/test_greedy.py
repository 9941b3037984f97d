import collections
import functools

import jax
import network_fixture as fixture
import numpy as np

from mrmt3 import network
from mrmt3.decoding import greedy


def decode(params, config, inputs, prior, max_length, active=None):
  return np.asarray(greedy.transcribe_segments(params, inputs, prior, active, config=config, max_length=max_length))


def teacher_forced_argmax(params, config, inputs, prior, tokens):
  """What the network ranks first after each prefix of `tokens`, without a cache."""
  apply = jax.jit(functools.partial(network.Transformer(config).apply, enable_dropout=False))
  logits = apply({'params': params}, inputs, fixture.shift_right(tokens), np.ones_like(tokens), prior_tokens=prior)
  return np.asarray(logits).argmax(axis=-1)


def test_t5x_fixture():
  f = fixture.T5X
  tokens = decode(fixture.t5x_params(), fixture.T5X_CONFIG, f['inputs'], None, f['greedy'].shape[1])
  np.testing.assert_array_equal(tokens, f['greedy'])


def ending_params():
  """Weights under which rows end at different places: EOS is an everyday token."""
  params = jax.tree.map(np.array, fixture.params())
  kernel = params['decoder']['logits_dense']['kernel']
  kernel[:, greedy.EOS_ID] += 0.6 * kernel[:, 300:306].sum(axis=1)
  return params


def test_rows_end_at_eos_and_equal_teacher_forcing():
  f, params = fixture.FIXTURE, ending_params()
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(6, 40, 64)).astype(np.float32)
  prior = rng.integers(0, 1400, (6, f['prior_targets'].shape[1])).astype(np.int32)
  tokens = decode(params, fixture.CONFIG, inputs, prior, 90)  # the cache grows once
  ends = [list(row).index(1) if 1 in row else None for row in tokens]
  assert len(set(ends)) > 2, ends
  assert any(end is None or end > 45 for end in ends), 'the cache never grew'
  expected = teacher_forced_argmax(params, fixture.CONFIG, inputs, prior, tokens)
  for row, wanted, end in zip(tokens, expected, ends, strict=True):
    length = 90 if end is None else end + 1
    np.testing.assert_array_equal(row[:length], wanted[:length])
    assert not row[length:].any()


def test_a_row_does_not_depend_on_its_neighbours_and_inactive_rows_are_empty():
  f, params = fixture.FIXTURE, ending_params()
  together, alone = (
    decode(params, fixture.CONFIG, f['inputs'], f['prior_targets'], 48, np.array(active))
    for active in ([True, True, True], [False, True, False])
  )
  np.testing.assert_array_equal(alone[1], together[1])
  assert not alone[[0, 2]].any()
  assert together.any(axis=1).all()


def test_a_cache_that_grows_often_says_the_same(monkeypatch):
  f, params = fixture.FIXTURE, ending_params()
  prior = f['prior_targets']
  whole = decode(params, fixture.CONFIG, f['inputs'], prior, 48)
  monkeypatch.setattr(greedy, 'FIRST_CACHE', 4)
  short = decode(
    params, fixture.CONFIG, f['inputs'], prior, 19
  )  # 3, 5, 10 and 19; a length that nothing else has compiled
  np.testing.assert_array_equal(short, whole[:, :19])
  # All rows rest from the start: the later loops have nothing to do.
  assert not decode(params, fixture.CONFIG, f['inputs'], prior, 21, np.zeros(3, bool)).any()


def test_a_single_token():
  f = fixture.FIXTURE
  tokens = decode(fixture.params(), fixture.CONFIG, f['inputs'], f['prior_targets'], 1)
  assert tokens.shape == (3, 1)
  assert tokens.dtype == np.int32
  assert tokens.all()


def test_no_event_is_said_twice_and_all_else_is_as_ranked():
  sizes = {
    'vocab_size': 40,
    'emb_dim': 16,
    'num_heads': 2,
    'num_encoder_layers': 1,
    'num_decoder_layers': 1,
    'head_dim': 8,
    'mlp_dim': 16,
  }
  config = network.T5Config(**sizes, running_status=((3, 8), (9, 10), (11, 14)), event_ends=((15, 25), (26, 30)))
  inputs, tokens = np.random.default_rng(0).normal(size=(5, 12, 8)).astype(np.float32), np.zeros((5, 90), np.int32)
  params = network.Transformer(config).init(jax.random.key(1), inputs, tokens, tokens, enable_dropout=False)['params']
  params = jax.tree.map(lambda x: np.array(x) * 3, params)
  with_repeats = decode(params, config, inputs, None, 90)
  tokens = decode(params, config.replace(say_once=True), inputs, None, 90)
  assert [count(row) for row in tokens] == [1] * 5 and max(count(row) for row in with_repeats) > 5
  apply = jax.jit(functools.partial(network.Transformer(config).apply, enable_dropout=False))
  logits = np.array(apply({'params': params}, inputs, fixture.shift_right(tokens), np.ones_like(tokens)))
  for row, ranked in zip(tokens, logits, strict=True):
    said = set()
    status = [0, 0, 0]
    for token, scores in zip(row[: list(row).index(1) if 1 in row else None], ranked, strict=False):
      scores[[end for time_velocity_program, end in said if time_velocity_program == tuple(status)]] = -np.inf
      assert token == scores.argmax()
      if 15 <= token <= 30:
        said.add((tuple(status), token))
      status = [
        token if first <= token <= last else old
        for old, (first, last) in zip(status, config.running_status, strict=True)
      ]


def count(tokens):
  """Returns how often the event that is said most often is said."""
  status, found = (0, 0, 0), collections.Counter()
  for token in tokens:
    status = tuple(
      token if first <= token <= last else old
      for old, (first, last) in zip(status, ((3, 8), (9, 10), (11, 14)), strict=True)
    )
    found[status, token] += 15 <= token <= 30
  return max(found.values())
