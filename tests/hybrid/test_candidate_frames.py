"""Note candidates as encoder frames: what their embeddings consist of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3.framewise.note_heads import DRUMS, KINDS, OFFSETS
from mrmt3.hybrid import candidate_frames
from mrmt3.hybrid.candidate_frames import CandidateNoteHeads, time_code
from mrmt3.notes.instruments import NUM_CLASSES

MODULE = CandidateNoteHeads(8, hidden=4)
CODES = time_code(np.arange(6), 8)


@functools.partial(jax.jit, static_argnums=2)
def frames_of(params, frames, number):
  """Return the likeliest events as encoder frames, and as candidates."""

  def both(module):
    candidates = module.candidates(frames, number)
    return module.as_frames(frames, candidates), candidates

  return MODULE.apply({'params': params}, method=both)


@functools.cache
def _shapes():
  def init(key):
    def both(module):
      frames = jnp.zeros((1, 6, 8))
      return module.as_frames(frames, module.candidates(frames, 2))

    return MODULE.init(key, method=both)['params']

  return jax.eval_shape(init, jax.random.key(0))


@pytest.fixture
def params():
  """Return parameters: the first two values of a frame are logits, a candidate is its time and kind alone."""
  params = jax.tree.map(lambda x: jnp.zeros(x.shape), _shapes())
  params['events']['kernel'] = jnp.zeros((8, KINDS)).at[0, 60].set(1.0).at[1, DRUMS.start + 38].set(1.0)
  params['events_bias'] = jnp.full((KINDS,), -5.0)
  params['time']['kernel'] = jnp.eye(8)
  params['name_of_kind'] = jax.random.normal(jax.random.key(1), (KINDS, 8))
  return params


def test_a_candidate_is_the_sum_of_its_time_and_kind(params):
  frames = np.zeros((1, 6, 8), np.float32)
  frames[0, 1:5, 0] = [2, 6, 3, 1]  # one onset, at its peak
  frames[0, 1, 1] = 9
  found = frames_of(params, frames, 2)[0]
  kinds = np.asarray(params['name_of_kind'])
  np.testing.assert_allclose(found[0], [kinds[DRUMS.start + 38] + CODES[1], kinds[60] + CODES[2]], atol=1e-6)


def test_candidates_of_a_frame_follow_the_token_order(params):
  """Offsets first, then onsets by class and pitch, then drums; classes have embeddings as well."""
  kinds = [DRUMS.start + 36, 64, OFFSETS.start + 70, 60, 62, OFFSETS.start + 50]
  params['events']['kernel'] = jnp.zeros((8, KINDS)).at[0, jnp.array(kinds)].set(1.0)
  # Pitch 62 is of class 3, all else of class 5.
  params['kind'] = jnp.ones((KINDS, 4)).at[62].set(jnp.array([0.0, 1.0, 0.0, 0.0]))
  params['class_of']['kernel'] = jnp.zeros((4, NUM_CLASSES)).at[0, 5].set(40.0).at[1, 3].set(20.0)
  params['name_of_class'] = jax.random.normal(jax.random.key(2), (NUM_CLASSES, 8))
  frames = np.zeros((1, 6, 8), np.float32)
  frames[0, 2, 0] = 9
  found, candidates = frames_of(params, frames, 6)
  wanted = [OFFSETS.start + 50, OFFSETS.start + 70, 62, 60, 64, DRUMS.start + 36]
  assert (candidates.groups[0] * 128 + candidates.pitches[0]).tolist() == wanted
  classes = np.concatenate([np.asarray(params['name_of_class'])[[5, 5, 3, 5, 5]], np.zeros((1, 8))])
  np.testing.assert_allclose(found[0], np.asarray(params['name_of_kind'])[wanted] + classes + CODES[2], atol=1e-5)


def test_a_candidate_carries_the_event_before_it(params):
  params['before']['kernel'] = 2.0 * jnp.eye(8)
  frames = np.zeros((1, 6, 8), np.float32)
  frames[0, 1, 0], frames[0, 3, 0] = 9, 8
  found = frames_of(params, frames, 2)[0]
  kind = np.asarray(params['name_of_kind'])[60]
  first = kind + CODES[1]
  np.testing.assert_allclose(found[0], [first, kind + CODES[3] + 2.0 * first], rtol=2e-3, atol=2e-3)


def test_an_unlikely_candidate_has_a_small_embedding(params):
  frames = np.zeros((1, 6, 8), np.float32)
  frames[0, 2:4, 0] = 6  # a plateau is one candidate
  frames[0, 5, 0] = 4
  found = frames_of(params, frames, 2)[0]
  kind = np.asarray(params['name_of_kind'])[60]
  np.testing.assert_allclose(found[0, 0], kind + CODES[3], atol=1e-6)
  certainty = 1 / (1 + np.exp(1)) + 1 / (1 + np.exp(5))
  np.testing.assert_allclose(found[0, 1], 1.5 * certainty * (kind + CODES[5]), atol=1e-5)


def test_certainty_is_added(params):
  frames = np.zeros((1, 6, 8), np.float32)
  frames[0, 2, 0], frames[0, 5, 0] = 9, 4
  plain, _ = frames_of(params, frames, 2)
  found, candidates = frames_of({**params, 'certainty': jnp.arange(8.0)}, frames, 2)
  certain = 1 / (1 + np.exp(-np.asarray(candidates.scores[0])))
  np.testing.assert_allclose(found[0] - plain[0], certain[:, None] * np.arange(8), atol=1e-5)


def test_the_event_before_is_the_last_that_is_real():
  certain = np.array([[1.0, 0.25, 0.5, 0.0, 1.0]])
  found = np.asarray(candidate_frames._event_before(jnp.asarray(certain)))[0]
  wanted = np.zeros((5, 5))
  for n, m in np.ndindex(5, 5):
    if m < n:
      wanted[n, m] = certain[0, m] * np.prod(1 - certain[0, m + 1 : n])
  np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_gradients_reach_the_encoder_through_candidates():
  rng = np.random.default_rng(2)
  params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), _shapes())
  frames = jax.random.normal(jax.random.key(2), (1, 6, 8))
  slope = jax.jit(jax.grad(lambda x: (frames_of(params, x, 3)[0] ** 2).sum()))(frames)
  assert float(jnp.abs(slope).max()) > 0 and bool(jnp.isfinite(slope).all())


def test_time_codes_fade_with_distance():
  codes = time_code(np.arange(64), 192)
  alike = codes @ codes[20] / 96
  assert alike[20] == pytest.approx(1) and alike[19] == pytest.approx(alike[21])
  assert (np.diff(alike[20:30]) < 0).all() and alike[21] > 0.5 and alike[30] < 0.3 and alike[50] < 0.1
