import collections
import functools

import jax
import network_fixture as fixture
import numpy as np

from mrmt3 import network
from mrmt3.config import ModelSpec
from mrmt3.decoding import cached_decoder, greedy
from mrmt3.decoding.options import DecodingConfig
from mrmt3.tokens.token_ids import token_ids
from mrmt3.vocabularies import VocabularyConfig, build_codec, num_embeddings


def decode(params, config, inputs, prior, max_length, active=None, no_repeated_events=False):
  decoding, length = DecodingConfig(no_repeated_events), max_length + 2 + config.memory_length
  spec = ModelSpec(config, vocabulary=VOCABULARY, targets_length=length, decoding=decoding)
  context = {'prior_tokens': prior} if config.uses_prior else {}
  tokens = greedy.transcribe_segments(params, inputs, context, active, spec=spec, max_length=max_length)
  return np.asarray(tokens)


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


def test_a_cache_that_grows_often_yields_the_same(monkeypatch):
  f, params = fixture.FIXTURE, ending_params()
  prior = f['prior_targets']
  whole = decode(params, fixture.CONFIG, f['inputs'], prior, 48)
  monkeypatch.setattr(cached_decoder, 'FIRST_CACHE', 4)
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


VOCABULARY = VocabularyConfig(steps_per_second=4, max_shift_seconds=1, num_velocity_bins=1)


def test_no_event_is_repeated_and_all_else_is_as_ranked():
  """Weights of a decoder that repeats itself: with the processor, each token is the first one that repeats no event."""
  ids = token_ids(build_codec(VOCABULARY))
  sizes = {
    'emb_dim': 16,
    'num_heads': 2,
    'num_encoder_layers': 1,
    'num_decoder_layers': 1,
    'head_dim': 8,
    'mlp_dim': 16,
  }
  config = network.T5Config(vocab_size=num_embeddings(build_codec(VOCABULARY)), **sizes)
  inputs, tokens = np.random.default_rng(0).normal(size=(5, 12, 8)).astype(np.float32), np.zeros((5, 90), np.int32)
  params = network.Transformer(config).init(jax.random.key(1), inputs, tokens, tokens, enable_dropout=False)['params']
  params = jax.tree.map(lambda x: np.array(x) * 3, params)
  with_repeats = decode(params, config, inputs, None, 90)
  tokens = decode(params, config, inputs, None, 90, no_repeated_events=True)
  counts = [most_frequent_event(row, ids) for row in tokens]
  assert max(counts) == 1 < 5 < max(most_frequent_event(row, ids) for row in with_repeats)
  apply = jax.jit(functools.partial(network.Transformer(config).apply, enable_dropout=False))
  logits = np.array(apply({'params': params}, inputs, fixture.shift_right(tokens), np.ones_like(tokens)))
  for row, ranked in zip(tokens, logits, strict=True):
    emitted, state = set(), (0, 0, 0, 0)
    for token, scores in zip(row[: list(row).index(1) if 1 in row else None], ranked, strict=False):
      scores[[greedy.PAD_ID, *(end for before, end in emitted if before == state)]] = -np.inf
      assert token == scores.argmax()
      emitted.add((state, token)) if is_event(token, ids) else None
      state = next_state(state, token, ids)


def is_event(token, ids):
  return any(first <= token <= last for first, last in ids.event_ends)


def next_state(state, token, ids):
  pairs = zip(state, ids.state, strict=True)
  return tuple(token if first <= token <= last else old for old, (first, last) in pairs)


def most_frequent_event(tokens, ids):
  """Return how often the most frequent event is emitted."""
  state, found = (0, 0, 0, 0), collections.Counter({None: 0})
  for token in tokens:
    state = next_state(state, token, ids)
    found[state, token] += is_event(token, ids)
  return max(found.values())
