import numpy as np
import pytest
import tensorflow as tf

from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.length_bucketing import group_by_length
from mrmt3.errors import UserError

LENGTHS = np.random.default_rng(0).integers(1, 40, 100).tolist()


def grouped(block=24, group=6, lengths=LENGTHS):
  """Return the examples (targets, inputs, number) in their new order."""

  def examples():
    for number, length in enumerate(lengths):
      yield {
        'targets': np.full(length, number, np.int32),
        'inputs': np.full((length // 2, 3), number, np.float32),
        'seed': np.array([number, 7]),
        'number': number,
      }

  signature = {
    'targets': tf.TensorSpec([None], tf.int32),
    'inputs': tf.TensorSpec([None, 3], tf.float32),
    'seed': tf.TensorSpec([2], tf.int64),
    'number': tf.TensorSpec([], tf.int32),
  }
  dataset = tf.data.Dataset.from_generator(examples, output_signature=signature)
  return list(group_by_length(dataset, block, group).as_numpy_iterator())


def test_every_example_comes_once_and_unchanged():
  found = grouped()
  assert sorted(int(example['number']) for example in found) == list(range(100))
  for example in found:
    number = int(example['number'])
    np.testing.assert_array_equal(example['targets'], np.full(LENGTHS[number], number))
    np.testing.assert_array_equal(example['inputs'], np.full((LENGTHS[number] // 2, 3), number))


def test_groups_have_similar_lengths_and_each_block_another_order():
  lengths = np.array([len(example['targets']) for example in grouped()])[:96].reshape(4, 4, 6)
  drawn = np.array(LENGTHS[:96]).reshape(4, 24)
  orders = set()
  for groups, block in zip(lengths, drawn, strict=True):
    ranks = groups.max(axis=1).argsort(kind='stable')
    np.testing.assert_array_equal(groups[ranks].reshape(-1), np.sort(block))
    orders.add(tuple(ranks))
  assert len(orders) > 1


def test_the_same_examples_come_in_the_same_order():
  first, again = grouped(), grouped()
  assert [int(x['number']) for x in first] == [int(x['number']) for x in again]


@pytest.mark.parametrize('block, group', [(10, 4), (-4, 4), (8, 0)])
def test_sizes_that_do_not_fit_are_named(block, group):
  with pytest.raises(UserError, match='length_'):
    ExampleConfig(length_block=block, length_group=group)
