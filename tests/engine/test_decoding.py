"""Decoding with a cache, compared with exhaustive searches on a network that is a table."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3.engine import decoding

VOCABULARY, LENGTH, EOS = 5, 4, 1


def table(seed):
  """Return log-probabilities [position, last token, token]."""
  logits = np.random.default_rng(seed).normal(size=(LENGTH, VOCABULARY, VOCABULARY)) * 2
  logits[..., 0] = -1e9  # padding is never predicted
  return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))


def network(log_p):
  """Return a step whose cache holds the position and the tokens so far, in place of keys and values."""

  def step(state):
    position = state.cache['index']
    held = state.cache['tokens'].at[:, position].set(state.cur_token[:, 0])
    return log_p[position, held[:, position]], {'index': position + 1, 'tokens': held}

  return step


def cache(rows):
  return {'index': jnp.int32(0), 'tokens': jnp.zeros((rows, LENGTH), jnp.int32)}


def score(log_p, tokens):
  last, total = 0, 0.0
  for position, token in enumerate(tokens):
    total += float(log_p[position, last, token])
    last = token
  return total


@pytest.mark.parametrize('seed', range(6))
def test_greedy(seed):
  log_p, inputs = table(seed), jnp.zeros((2, LENGTH), jnp.int32)
  tokens, scores = decoding.temperature_sample(inputs, cache(2), network(log_p), EOS)
  expected, last = [], 0
  for position in range(LENGTH):
    last = int(log_p[position, last].argmax())
    expected.append(last)
    if last == EOS:
      break
  np.testing.assert_array_equal(tokens[:, 0], [expected + [0] * (LENGTH - len(expected))] * 2)
  np.testing.assert_allclose(scores[:, 0], score(log_p, expected), rtol=1e-5)


@pytest.mark.parametrize('seed', range(6))
def test_a_wide_beam_finds_the_best_of_all(seed):
  log_p, beams = table(seed), VOCABULARY**LENGTH
  tokens, scores = decoding.beam_search(
    jnp.zeros((1, LENGTH), jnp.int32), cache(1), network(log_p), EOS, num_decodes=beams
  )
  finished = [(*body, EOS) for n in range(LENGTH) for body in itertools.product(range(2, VOCABULARY), repeat=n)]
  best = max(finished, key=lambda t: score(log_p, t) / ((5 + len(t)) / 6) ** 0.6)
  np.testing.assert_array_equal(tokens[0, -1], [*best, *[0] * (LENGTH - len(best))])
  np.testing.assert_allclose(scores[0, -1], score(log_p, best) / ((5 + len(best)) / 6) ** 0.6, rtol=1e-5)


def test_one_beam_is_not_greedy():
  """A second-best EOS makes a finished hypothesis, which is preferred to a live one that never ends."""
  p = np.full((LENGTH, VOCABULARY, VOCABULARY), 1e-9)
  p[:, :, 2], p[:, :, EOS] = 0.6, 0.4
  log_p = jnp.log(jnp.asarray(p, jnp.float32))
  inputs = jnp.zeros((1, LENGTH), jnp.int32)
  assert EOS not in np.asarray(decoding.temperature_sample(inputs, cache(1), network(log_p), EOS)[0])
  tokens, _ = decoding.beam_search(inputs, cache(1), network(log_p), EOS, num_decodes=1)
  np.testing.assert_array_equal(tokens[0, 0], [EOS, 0, 0, 0])


def test_drawing_follows_the_probabilities_and_the_key():
  log_p, inputs = table(1), jnp.zeros((1, LENGTH), jnp.int32)

  def draw(key, **options):
    return decoding.temperature_sample(inputs, cache(1), network(log_p), EOS, jax.random.key(key), 4000, **options)[0][
      0
    ]

  first = np.bincount(draw(0, topk=0)[:, 0], minlength=VOCABULARY) / 4000
  np.testing.assert_allclose(first, np.exp(log_p[0, 0]), atol=0.03)
  np.testing.assert_array_equal(draw(5, topk=0), draw(5, topk=0))
  two = set(np.unique(draw(0, topk=2)[:, 0]).tolist())
  assert two == set(np.argsort(log_p[0, 0])[-2:].tolist())
