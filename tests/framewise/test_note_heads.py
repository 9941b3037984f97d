"""The note heads: which events become candidates, in which order, and which notes continue from the segment before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3.framewise.candidates import MAX_TIES, TIE
from mrmt3.framewise.harmonic_stacking import PITCHES
from mrmt3.framewise.note_heads import DRUMS, KINDS, OFFSETS, ONSETS, FrameHead, NoteHeads, with_ends
from mrmt3.notes.instruments import NUM_CLASSES


def jax_arrays(arguments):
  return [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in arguments]


def init(module, *arguments, method):
  arguments = jax_arrays(arguments)
  return jax.jit(lambda key: module.init(key, *arguments, method=method))(jax.random.key(0))


def apply(module, params, *arguments, method=None):
  arguments = jax_arrays(arguments)
  return jax.jit(lambda params: module.apply(params, *arguments, method=method))(params)


@pytest.fixture
def heads():
  """Return heads whose event logits are the first two values of an encoder frame, and their parameters."""
  module = NoteHeads(8, hidden=4)
  params = init(module, jnp.zeros((1, 6, 8)), 2, method=module.candidates)['params']
  params = jax.tree.map(jnp.zeros_like, params)
  params['events']['kernel'] = jnp.zeros((8, KINDS)).at[0, 60].set(1.0).at[1, DRUMS.start + 38].set(1.0)
  params['events_bias'] = jnp.full((KINDS,), -5.0)
  return module, params


def candidates_of(heads, frames, number):
  module, params = heads
  return apply(module, {'params': params}, frames, number, method=module.candidates)


def kinds_of(found):
  return (found.groups[0] * 128 + found.pitches[0]).tolist()


def sigmoid(x):
  return 1 / (1 + np.exp(-np.asarray(x)))


def test_candidates_are_the_likeliest_events_in_order_of_time(heads):
  frames = np.zeros((1, 6, 8), np.float32)
  frames[0, 1:5, 0] = [2, 6, 3, 1]  # one onset, at its peak
  frames[0, 1, 1] = 9
  found = candidates_of(heads, frames, 2)
  assert found.frames[0].tolist() == [1, 2] and kinds_of(found) == [DRUMS.start + 38, 60]


def test_candidates_of_a_frame_are_in_token_order(heads):
  """Offsets first, then onsets by class and pitch, then drums."""
  module, params = heads
  kinds = [DRUMS.start + 36, 64, OFFSETS.start + 70, 60, 62, OFFSETS.start + 50]
  params['events']['kernel'] = jnp.zeros((8, KINDS)).at[0, jnp.array(kinds)].set(1.0)
  # Pitch 62 is of class 3, all else of class 5.
  params['kind'] = jnp.ones((KINDS, 4)).at[62].set(jnp.array([0.0, 1.0, 0.0, 0.0]))
  params['class_of']['kernel'] = jnp.zeros((4, NUM_CLASSES)).at[0, 5].set(2.0).at[1, 3].set(1.0)
  frames = np.zeros((1, 6, 8), np.float32)
  frames[0, 2, 0] = 9
  found = candidates_of((module, params), frames, 6)
  assert kinds_of(found) == [OFFSETS.start + 50, OFFSETS.start + 70, 62, 60, 64, DRUMS.start + 36]
  assert (found.frames[0] == 2).all()
  assert found.classes[0, :-1].argmax(axis=-1).tolist() == [5, 5, 3, 5, 5] and not found.classes[0, -1].any()
  likely = sigmoid(4) + 2 * sigmoid(-5)  # in the frame, or in one of the two around it
  np.testing.assert_allclose(found.scores, np.full((1, 6), np.log(likely / (1 - likely))), rtol=1e-3)


def test_a_plateau_is_one_candidate(heads):
  frames = np.zeros((1, 6, 8), np.float32)
  frames[0, 2:4, 0] = 6
  frames[0, 5, 0] = 4
  found = candidates_of(heads, frames, 2)
  assert found.frames[0].tolist() == [3, 5] and kinds_of(found) == [60, 60]
  # Both frames of the plateau count for it; the other candidate is about as likely as not.
  np.testing.assert_allclose(sigmoid(found.scores[0]), [1 - 1e-4, sigmoid(-1) + sigmoid(-5)], atol=1e-5)


def test_heads_have_parameters_for_candidates_only(heads):
  assert not set(heads[1]) & {'time', 'before', 'name_of_kind', 'name_of_class', 'certainty', 'carried'}


def test_pitch_features_add_to_their_own_pitch():
  module, rng = NoteHeads(8, hidden=4), np.random.default_rng(0)
  frames, pitches = (rng.normal(size=size).astype(np.float32) for size in ((2, 5, 8), (3, PITCHES, 5, 2)))
  params = init(module, frames, 3, pitches, method=module.candidates)
  changed = pitches.copy()
  changed[:, 60 - 21, 2, 1] += 1
  pairs = zip(apply(module, params, frames, pitches), apply(module, params, frames, changed), strict=True)
  events, sounding = (np.argwhere(np.abs(np.asarray(x - y)) > 1e-6).tolist() for x, y in pairs)
  assert events == [[1, 2, ONSETS.start + 60], [1, 2, OFFSETS.start + 60]] and sounding == [[1, 2, 60]]


def test_event_features_take_the_pitch_features_of_pitched_events():
  module, rng = NoteHeads(8, hidden=16), np.random.default_rng(0)
  frames, pitches = (rng.normal(size=size).astype(np.float32) for size in ((2, 5, 8), (3, PITCHES, 5, 2)))
  places, kinds = jnp.array([[2, 2, 2, 1]] * 2), jnp.array([[60, DRUMS.start + 60, OFFSETS.start + 61, 60]] * 2)
  params = init(module, frames, pitches, places, kinds, method=module.event_features)
  changed = pitches.copy()
  changed[:, 60 - 21, 2, 1] += 3
  one, other = (
    apply(module, params, frames, x, places, kinds, method=module.event_features) for x in (pitches, changed)
  )
  assert one.shape == (2, 4, 16)
  # Only the onset of that pitch in that frame.
  assert np.unique(np.argwhere(np.asarray(one != other))[:, :2], axis=0).tolist() == [[1, 0]]


def test_held_notes_continue_where_their_pitch_sounds():
  module, frames = NoteHeads(8), jnp.zeros((3, 6, 8))
  params = init(module, frames, None, jnp.zeros((3, NUM_CLASSES, 128), bool), method=module.ties)
  params = {**params['params'], 'sounds_bias': jnp.full(128, -4.0).at[jnp.array([60, 62, 64])].set(4.0)}
  held = np.zeros((3, NUM_CLASSES, 128), bool)
  # Pitch 70 is held, but no longer sounds; 62 and 64 sound, but are not held.
  held[:, 7, 60] = held[:, 2, 60] = held[:, 7, 70] = True

  def likely(adjacent):
    ties = apply(module, {'params': params}, frames, None, jnp.asarray(held), adjacent, method=module.ties)
    assert (ties.groups == TIE).all() and not ties.frames.any() and ties.scores.shape == (3, MAX_TIES)
    rows = zip(ties.scores, ties.classes.argmax(axis=-1), ties.pitches, strict=True)
    return [[(int(c), int(p)) for s, c, p in zip(*row, strict=True) if s > 0] for row in rows]

  found = likely(jnp.array([True, True, False]))
  assert found[0] == found[1] == [(2, 60), (7, 60)]
  # Where it is not known what is held, whatever sounds may continue.
  assert sorted(pitch for _, pitch in found[2]) == [60, 62, 64]
  assert likely(None)[2] == found[0]


def test_fresh_heads_expect_few_events():
  frames = jnp.zeros((1, 3, 8))
  (events, sounding), _ = NoteHeads(8).init_with_output(jax.random.key(0), frames)
  np.testing.assert_allclose(sigmoid(events), 1 / 129, rtol=1e-4)
  np.testing.assert_allclose(sigmoid(sounding), 1 / 129, rtol=1e-4)
  classes = FrameHead().init_with_output(jax.random.key(0), frames)[0]
  assert classes.shape == (1, 3, NUM_CLASSES + 1) and events.shape == (1, 3, KINDS) and sounding.shape == (1, 3, 128)
  np.testing.assert_allclose(sigmoid(classes), 1 / (NUM_CLASSES + 2), rtol=1e-4)


def test_events_in_the_context_are_left_to_other_segments(heads):
  """Eight frames, two of context at each end; an onset in each of frames 0, 2, 4 and 6, and drums in frame 1."""
  module, params = heads
  frames = np.zeros((1, 8, 8), np.float32)
  frames[0, [0, 2, 4, 6], 0] = [9, 8, 7, 9]
  frames[0, 1, 1] = 9
  nothing = np.zeros((1, 2, KINDS), bool)

  def found(taken):
    events = apply(module, {'params': params}, frames, 4, None, 2, jnp.asarray(taken), method=module.candidates)
    real = np.asarray(events.scores[0] > 0)
    return sorted(zip(np.array(kinds_of(events))[real].tolist(), events.frames[0][real].tolist(), strict=True))

  # The frame before the first one counts for it.
  assert found(nothing) == [(60, 0), (60, 2), (DRUMS.start + 38, 0)]
  taken = nothing.copy()
  taken[0, 0, DRUMS.start + 38] = taken[0, 0, 60] = True
  assert found(taken) == [(60, 0), (60, 2)]
  taken[0, 1, 60] = True
  assert found(taken) == [(60, 2)]


def test_notes_end_where_they_no_longer_sound():
  onsets, offsets, sounding = (np.full((1, 12, 128), -9.0, np.float32) for _ in range(3))
  sounding[0, 1:5, 60] = sounding[0, 1:5, 64] = 9.0  # frames 1 to 4
  sounding[0, [1, 3], 62] = 9.0  # interrupted for a frame
  offsets[0, 6, 64] = 3.0  # detected
  onsets[0, 7, 66] = 9.0  # too short to be found sounding
  found = np.asarray(with_ends(*map(jnp.asarray, (onsets, offsets, sounding))))
  changed = np.argwhere(found != offsets)[:, 1:].tolist()
  assert sorted(changed) == [[4, 62], [5, 60], [8, 66]]
  assert sigmoid(found[0, 5, 60]) == 0.5
