"""Tests of token corruption: the requested share is dropped or replaced, the rest stays."""

import numpy as np
import pytest

from mrmt3 import vocabularies
from mrmt3.tokens.corruption import corrupt_tokens

CODEC = vocabularies.build_codec(vocabularies.VocabularyConfig(num_velocity_bins=1))
TYPES = ('shift', 'pitch', 'velocity', 'tie', 'program', 'drum')


def type_of(token):
  (found,) = [t for t in TYPES if CODEC.event_type_range(t)[0] <= token - 3 <= CODEC.event_type_range(t)[1]]
  return found


def all_tokens(rng, count):
  return rng.integers(3, 3 + CODEC.num_classes, count).astype(np.int32)


def test_nothing_changes_without_probability():
  rng = np.random.default_rng(0)
  tokens = all_tokens(rng, 500)
  np.testing.assert_array_equal(corrupt_tokens(tokens, CODEC, drop=0.0, replace=0.0, rng=rng), tokens)


def test_replaced_tokens_keep_their_type_and_are_others():
  rng = np.random.default_rng(0)
  tokens = all_tokens(rng, 5000)
  changed = corrupt_tokens(tokens, CODEC, drop=0.0, replace=1.0, rng=rng)
  assert len(changed) == len(tokens)
  for before, after in zip(tokens.tolist(), changed.tolist(), strict=True):
    assert type_of(before) == type_of(after)
    assert (before != after) == (type_of(before) in ('pitch', 'program', 'drum'))


@pytest.mark.parametrize('drop, replace', [(0.3, 0.0), (0.0, 0.2), (0.25, 0.25)])
def test_shares_are_as_asked(drop, replace):
  rng = np.random.default_rng(1)
  first, _ = CODEC.event_type_range('pitch')
  tokens = np.full(10_000, 3 + first + 5, np.int32)
  changed = corrupt_tokens(tokens, CODEC, drop=drop, replace=replace, rng=rng)
  assert abs((10_000 - len(changed)) - 10_000 * drop) <= 5 * np.sqrt(10_000 * drop * (1 - drop))
  replaced = np.count_nonzero(changed != tokens[0])
  assert abs(replaced - 10_000 * replace) <= 5 * np.sqrt(10_000 * replace * (1 - replace))


def test_special_tokens_stay():
  tokens = np.array([1, 0, 0, 2], np.int32)
  np.testing.assert_array_equal(
    corrupt_tokens(tokens, CODEC, drop=1.0, replace=0.0, rng=np.random.default_rng(0)), tokens
  )
