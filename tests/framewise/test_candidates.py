"""Note candidates: weighting of classes by the instruments so far, and the order of tokens."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3.framewise import candidates
from mrmt3.framewise.candidates import DRUM, OFF, ON, TIE, NoteCandidates
from mrmt3.notes.instruments import NUM_CLASSES


def weighted(classes, strength, class_counts=None):
  """Return the classes of notes `[n, NUM_CLASSES]`, all of them certain, weighted by shares."""
  classes = jnp.asarray(classes)[None]
  counted = jnp.ones(classes.shape[:2])
  return np.asarray(candidates.weigh_classes(classes, counted, class_counts, strength))[0]


def ten_notes():
  """Return the classes of nine notes that are certainly of class 3, and of one that is of class 3 or 5."""
  classes = np.zeros((10, NUM_CLASSES), np.float32)
  classes[:9, 3] = 1.0
  classes[9, [3, 5]] = [0.4, 0.6]
  return classes


def test_the_instrument_with_most_notes_becomes_likelier():
  classes = ten_notes()
  np.testing.assert_allclose(weighted(classes, 0.0), classes, atol=1e-6)
  weighed = weighted(classes, 1.0)
  assert weighed[9].argmax() == 3 and weighed[9, 3] > 0.8
  np.testing.assert_allclose(weighed.sum(axis=-1), 1.0, atol=1e-5)
  np.testing.assert_allclose(weighed[:9], classes[:9], atol=1e-6)


def test_strength_1_is_bayes_rule_with_the_shares_as_prior():
  # 0.4 times 1/4 against 0.6 times 3/4.
  counts = jnp.zeros((1, NUM_CLASSES), jnp.int32).at[0, 3].set(25000).at[0, 5].set(75000)
  wanted = [0.1 / 0.55, 0.45 / 0.55]
  np.testing.assert_allclose(weighted(ten_notes()[9:], 1.0, counts)[0, [3, 5]], wanted, atol=5e-3)


def test_drums_stay_without_a_class():
  assert not weighted(np.zeros((2, NUM_CLASSES), np.float32), 1.0).any()


def test_notes_that_do_not_count_have_no_share():
  counted = jnp.asarray([[0.0] * 9 + [1.0]])
  assert np.asarray(candidates.weigh_classes(jnp.asarray(ten_notes())[None], counted, None, 1.0))[0, 9].argmax() == 5


def test_candidates_are_sorted_again_after_weighting():
  classes = jnp.zeros((1, 3, NUM_CLASSES)).at[0, :2, 5].set(1.0).at[0, 2, [3, 5]].set(jnp.array([0.6, 0.4]))
  events = NoteCandidates(
    jnp.array([[0, 4, 4]]), jnp.full((1, 3), ON), jnp.array([[60, 64, 70]]), jnp.full((1, 3), 3.0), classes
  )
  assert candidates.in_token_order(events).pitches.tolist() == [[60, 70, 64]]
  assert candidates.weigh_candidates(events, None, 2.0, 0.25).pitches.tolist() == [[60, 64, 70]]
  # Onsets below the threshold do not count: then nothing speaks against class 3.
  unlikely = events._replace(scores=jnp.array([[-3.0, -3.0, 3.0]]))
  assert candidates.weigh_candidates(unlikely, None, 2.0, 0.25).pitches.tolist() == [[60, 70, 64]]


def test_only_onsets_count_as_notes():
  classes = jnp.zeros((1, 3, NUM_CLASSES)).at[0, :2, 5].set(1.0).at[0, 2, [3, 5]].set(jnp.array([0.6, 0.4]))
  events = NoteCandidates(
    jnp.array([[0, 4, 4]]), jnp.array([[OFF, OFF, ON]]), jnp.array([[60, 64, 70]]), jnp.full((1, 3), 3.0), classes
  )
  last = candidates.weigh_candidates(events, None, 2.0, 0.25).classes[0, 2]
  assert last.argmax() == 3 and last[3] > 0.6


def test_token_order_is_frame_group_class_pitch():
  ordered = [(2, TIE, 60, 4), (2, OFF, 50, 4), (2, ON, 60, 3), (2, ON, 40, 5), (2, ON, 41, 5), (2, DRUM, 36, 0)]
  ordered = [(1, DRUM, 90, 0), *ordered, (3, OFF, 20, 1)]
  frames, groups, pitches, classes = np.random.default_rng(0).permutation(ordered).T
  shares = np.eye(NUM_CLASSES, dtype=np.float32)[classes] * (groups != DRUM)[:, None]
  events = NoteCandidates(*(jnp.asarray(x)[None] for x in (frames, groups, pitches, pitches / 128, shares)))
  found = candidates.in_token_order(events)
  assert [tuple(row) for row in np.stack([x[0] for x in found[:3]], axis=-1)] == [row[:3] for row in ordered]
  np.testing.assert_array_equal(found.scores[0] * 128, found.pitches[0])
  assert found.classes[0].argmax(axis=-1).tolist() == [row[3] for row in ordered]


@pytest.mark.parametrize('probability', [0.0, 0.3, 1.0])
def test_logits_of_probabilities_are_finite(probability):
  value = float(candidates.logit(jnp.array(probability)))
  assert np.isfinite(value) and 1 / (1 + np.exp(-value)) == pytest.approx(probability, abs=2e-4)


def test_restricted_classes_are_the_likeliest_allowed_ones():
  classes = np.zeros((1, 4, NUM_CLASSES), np.float32)
  classes[0, :2, 7], classes[0, 0, [3, 5]], classes[0, 2, 7] = 0.5, [0.1, 0.4], 1.0
  groups = jnp.array([[ON, ON, TIE, DRUM]])
  events = NoteCandidates(jnp.array([[1, 2, 0, 3]]), groups, jnp.full((1, 4), 60), jnp.full((1, 4), 3.0), classes)
  found = candidates.restrict_classes(events, jnp.zeros(NUM_CLASSES, bool).at[jnp.array([3, 5])].set(True))
  assert found.frames.tolist() == [[0, 1, 2, 3]]
  shares = np.asarray(found.classes[0])
  assert not shares[0].any() and not shares[3].any()  # a note of a known class that is not allowed, and drums
  np.testing.assert_allclose(shares[1, [3, 5]], [0.2, 0.8], atol=1e-6)
  np.testing.assert_allclose(shares[2, [3, 5]], [0.5, 0.5], atol=1e-6)  # nothing is known of it but what is allowed
  none = candidates.restrict_classes(events, jnp.zeros(NUM_CLASSES, bool))
  assert not np.asarray(none.classes).any()
