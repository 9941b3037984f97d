"""The event state: the last token of each kind, and the last complete event."""

import jax.numpy as jnp
import numpy as np

from mrmt3.tokens.event_state import event_state, next_event_state


def test_the_state_is_the_last_token_of_each_range():
  ranges, rng = ((1, 4), (7, 7)), np.random.default_rng(0)
  tokens = rng.integers(0, 10, (3, 20))
  expected = np.zeros((3, 20, 2), int)
  for row, place in np.ndindex(3, 20):
    for k, (first, last) in enumerate(ranges):
      found = [token for token in tokens[row, : place + 1] if first <= token <= last]
      expected[row, place, k] = found[-1] if found else 0
  np.testing.assert_array_equal(event_state(jnp.asarray(tokens), ranges), expected)
  state = jnp.zeros((3, 2), int)
  for place in range(20):
    state = next_event_state(state, jnp.asarray(tokens[:, place]), ranges)
    np.testing.assert_array_equal(state, expected[:, place])


def test_the_last_event_keeps_the_state_that_it_had():
  ranges, ends, rng = ((1, 4), (7, 7)), ((5, 6), (9, 9)), np.random.default_rng(0)
  tokens = rng.integers(0, 10, (3, 40))
  state = np.asarray(event_state(jnp.asarray(tokens), ranges))
  expected = np.zeros((3, 40, 5), int)
  expected[..., :2] = state
  for row, place in np.ndindex(3, 40):
    done = [k for k in range(place + 1) if tokens[row, k] in (5, 6, 9)]
    if done:
      expected[row, place, 2:] = [*state[row, done[-1]], tokens[row, done[-1]]]
  np.testing.assert_array_equal(event_state(jnp.asarray(tokens), ranges, ends), expected)
  found = jnp.zeros((3, 5), int)
  for place in range(40):
    found = next_event_state(found, jnp.asarray(tokens[:, place]), ranges, ends)
    np.testing.assert_array_equal(found, expected[:, place])
