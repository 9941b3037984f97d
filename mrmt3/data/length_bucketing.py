"""Examples of like length side by side, so that a batch has little padding."""

import tensorflow as tf

_LENGTH = 'length of '


def group_by_length(dataset: tf.data.Dataset, block: int, group: int) -> tf.data.Dataset:
  """Returns the examples in another order: of every `block` of them, the `group` with the shortest targets, and so on.

  The groups of a block follow each other in random order, drawn from its first example's seed: the same examples always
  come in the same order. A last block that is not full is only sorted.

  Args:
    dataset: examples with targets `[length]` and seed (int64 `[2]`); example_id, if they have any, as `preprocessors` makes it.
    block: how many are sorted; they wait in memory.
    group: how many stay together, the batch; divides `block`.
  """
  ragged = [name for name, spec in dataset.element_spec.items() if spec.shape.rank and spec.shape[0] is None]

  def with_lengths(example):
    return {**example, **{_LENGTH + name: tf.shape(example[name])[0] for name in ragged}}

  def arrange(examples):
    if 'example_id' in examples:
      # All of a block begin with its first example's record.
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
