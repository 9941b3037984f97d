import itertools

import numpy as np
import pytest

from mrmt3.notes.note_array import as_notes, trim_overlapping_notes
from mrmt3.tokens import shuffling
from mrmt3.tokens.segment_targets import encode_piece, segment_targets
from mrmt3.tokens.shuffling import Shuffle, shuffled_order
from mrmt3.vocabularies import VocabularyConfig, build_codec

CODEC = build_codec(VocabularyConfig(num_velocity_bins=1))
STEPS = np.repeat([0, 2, 9], 8)
IS_ONSET = np.tile([False] * 3 + [True] * 5, 3)
KEYS = np.tile([1, 2, 3, 1, 2, 3, 4, 5], 3)  # every note that ends is repeated


def orders(shuffle, count=300, steps=STEPS, is_onset=IS_ONSET, keys=KEYS):
  rng = np.random.default_rng(0)
  return np.array([shuffled_order(steps, is_onset, keys, shuffle, rng) for _ in range(count)])


@pytest.mark.parametrize('scope', shuffling.SCOPES)
def test_shuffles_are_permutations_within_steps(scope):
  for order in orders(Shuffle(scope)):
    assert sorted(order) == list(range(len(STEPS)))
    np.testing.assert_array_equal(STEPS[order], STEPS)


def test_the_papers_scope_keeps_note_offs_first_and_shuffles_every_step():
  shuffled = orders(Shuffle())
  for order in shuffled:
    np.testing.assert_array_equal(IS_ONSET[order], IS_ONSET)
  for group in (slice(0, 3), slice(3, 8), slice(8, 11), slice(11, 16), slice(16, 19), slice(19, 24)):
    members = np.arange(24)[group]
    for place in members:  # each event of a group takes each position of the group about equally often
      counts = np.bincount(shuffled[:, place], minlength=24)[members]
      assert counts.min() > 300 / len(members) / 2
      assert counts.sum() == 300


def test_the_published_scope_mixes_but_leaves_first_step_and_last_group():
  shuffled = orders(Shuffle('mr_mt3'))
  np.testing.assert_array_equal(shuffled[:, :8], np.tile(np.arange(8), (300, 1)))
  np.testing.assert_array_equal(shuffled[:, 16:], np.tile(np.arange(16, 24), (300, 1)))
  for place in range(8, 16):
    assert np.bincount(shuffled[:, place], minlength=24)[8:16].min() > 300 / 8 / 2


def test_the_published_scope_shuffles_a_first_group_that_follows_a_shift():
  shuffled = orders(Shuffle('mr_mt3'), steps=STEPS + 1)
  assert len({tuple(order[:8]) for order in shuffled}) > 200


def test_a_note_shorter_than_a_step_stays_whole():
  steps = np.zeros(5, int)
  is_onset = np.array([True, False, True, False, True])  # key 7: on, off, on; key 8: off, on
  keys = np.array([7, 7, 7, 8, 8])
  for order in orders(Shuffle(), 50, steps, is_onset, keys).tolist():
    assert order.index(0) < order.index(1) < order.index(2)
    assert order.index(3) < order.index(4)


def test_notes_that_overlap_keep_their_order():
  is_onset = np.array([True, True, False, False])
  for order in orders(Shuffle(), 50, np.zeros(4, int), is_onset, np.zeros(4, int)).tolist():
    assert order == [0, 1, 2, 3]


def test_same_seed_same_order():
  np.testing.assert_array_equal(orders(Shuffle(), 5), orders(Shuffle(), 5))


def test_unknown_scopes_are_refused():
  with pytest.raises(ValueError, match='scope'):
    Shuffle('all')


def test_nothing_to_shuffle():
  nothing = np.zeros(0, int)
  for scope in shuffling.SCOPES:
    assert len(shuffled_order(nothing, nothing > 0, nothing, Shuffle(scope), np.random.default_rng(0))) == 0


def test_events_are_shuffled_whole_and_state_changes_removed_afterwards():
  rows = [(1.0, 2.0, 50 + i, 80, 8 * (i % 2), 0) for i in range(6)] + [(1.0, 1.1, 36, 80, 0, 1)]
  piece = encode_piece(as_notes(rows), CODEC)
  rng = np.random.default_rng(3)
  lengths = set()
  for _ in range(40):
    ids = segment_targets(piece, 0, 200, codec=CODEC, shuffle=Shuffle(), rng=rng)
    events = [CODEC.decode_event_index(i) for i in ids[:-1] - 3]
    program, notes = None, []
    for before, event in itertools.pairwise(events):
      if event.type == 'program':
        assert event.value != program
        assert before.type != 'program'
        program = event.value
      elif event.type == 'pitch':
        notes.append((event.value, program))
    assert sorted(notes) == [(50 + i, 8 * (i % 2)) for i in range(6)]
    assert sum(event.type == 'velocity' for event in events) == 1
    lengths.add(len(ids))
  assert len(lengths) > 1  # fewer program changes where programs happen to come together


def test_the_tie_section_keeps_its_order():
  rows = [(0.0, 9.0, 50 + i, 80, i % 3, 0) for i in range(9)]
  piece = encode_piece(trim_overlapping_notes(as_notes(rows)), CODEC)
  plain = segment_targets(piece, 200, 200, codec=CODEC)
  rng = np.random.default_rng(0)
  kept = segment_targets(piece, 200, 200, codec=CODEC, shuffle=Shuffle(), rng=rng)
  np.testing.assert_array_equal(kept, plain)
