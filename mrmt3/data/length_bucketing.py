"""Length bucketing: examples of similar length form a batch, so that batches need little padding."""

import tensorflow as tf

_LENGTH = 'length of '


def group_by_length(dataset: tf.data.Dataset, block: int, group: int) -> tf.data.Dataset:
  """Reorder examples: sort each `block` by target length, cut it into groups and shuffle the groups.

  The seed of the block's first example determines the order of its groups, so the order is reproducible. An incomplete
  last block is sorted, not shuffled.

  Args:
    dataset: examples with targets `[length]` and seed (int64 `[2]`), and optionally example_id (int64 `[3]`), see
      `seqio_preprocessors.add_targets_and_inputs`.
    block: number of examples to sort; they are kept in memory.
    group: number of examples that stay together, the batch size; divides `block`.
  """
  ragged = [name for name, spec in dataset.element_spec.items() if spec.shape.rank and spec.shape[0] is None]

  def with_lengths(example):
    return {**example, **{_LENGTH + name: tf.shape(example[name])[0] for name in ragged}}

  def arrange(examples):
    if 'example_id' in examples:
      # To repeat any example of a block, the stream must start at the record of the block's first example.
      ids = examples['example_id']
      examples = {
        **examples,
        'example_id': tf.concat([ids[:, :2], tf.repeat(ids[:1, 2:], tf.shape(ids)[0], axis=0)], axis=1),
      }
    order = tf.argsort(examples[_LENGTH + 'targets'], stable=True)
    if tf.shape(order)[0] == block:
      groups = tf.reshape(order, [-1, group])
      order = tf.reshape(tf.random.experimental.stateless_shuffle(groups, examples['seed'][0]), [-1])
    return {name: tf.gather(feature, order) for name, feature in examples.items()}

  def without_padding(example):
    cut = {name: example[name][: example[_LENGTH + name]] for name in ragged}
    return {**{name: x for name, x in example.items() if not name.startswith(_LENGTH)}, **cut}

  dataset = dataset.map(with_lengths)
  return dataset.padded_batch(block).map(arrange).unbatch().map(without_padding)
