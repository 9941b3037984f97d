"""The seqio data source under all tasks here: light records, one for each place in a split where an example may lie."""

import numpy as np
import seqio
import tensorflow as tf

from mrmt3.example_config import CHUNK_FRAMES, CHUNKS_MR_MT3, CHUNKS_MT3, PIECES, RANDOM
from mrmt3.examples import Library

BLOCK = 16  # records
_PER_SPLIT = 2**40  # record numbers


class SegmentSource(seqio.DataSource):
  """Numbers of records with a seed each; `in_blocks` makes records of them, see `preprocessors`.

  Shuffled, every repetition has a new order. The order and the seeds are drawn before records go to hosts, so however many
  hosts there are, together they have the same examples, each once.
  """

  def __init__(self, library: Library):
    super().__init__(splits=library.source.splits(), caching_permitted=False, performs_internal_shuffling=True)
    self._library = library
    self._tables = {}

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """Whether any number of hosts can share a split: they can."""
    return True

  def list_shards(self, split: str) -> list[str]:
    """Returns the split as its only shard."""
    return [split]

  def chunks(self, split: str) -> tuple[np.ndarray, int]:
    """Returns (end of each piece's records in the count of all of them, int64 `[pieces]`, frames from chunk to chunk)."""
    config, segment = self._library.config, self._library.spec.segment_frames
    frames = self._library.frames(split)
    if config.sampling == PIECES:
      return np.arange(1, len(frames) + 1), int(frames.max())
    if config.sampling == CHUNKS_MR_MT3:
      return np.cumsum(np.maximum((frames - 1) // CHUNK_FRAMES, 1)), CHUNK_FRAMES
    width = CHUNK_FRAMES if config.sampling == CHUNKS_MT3 else segment
    return np.cumsum(-(-frames // width)), width

  def fingerprint(self, split: str) -> str:
    """Returns a text that changes when the pieces of a split change."""
    return self._library.source.fingerprint(split)

  def piece_names(self, split: str) -> list[str]:
    """Returns the pieces' names, by number."""
    return self._library.open(split)[0].names

  def num_records(self, split: str) -> int:
    """Returns how many examples an epoch of the split has."""
    return int(self.chunks(split)[0][-1])

  def get_dataset(self, split='train', shuffle=True, seed=None, shard_info=None) -> tf.data.Dataset:
    """Returns position (int64, the record's number and its split's) and seed (int64 `[2]`); UserError for an empty split."""
    count = self.num_records(split)
    # A name beside each number would have to be put there by one more step for every record.
    first = self.splits.index(split) * _PER_SPLIT
    order = _shuffled(first, count, seed) if shuffle else tf.data.Dataset.range(first, first + count)
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2, drop_remainder=True)
    dataset = tf.data.Dataset.zip({'position': order, 'seed': seeds})
    if shard_info:
      dataset = dataset.shard(shard_info.num_shards, shard_info.index)
    options = tf.data.Options()
    # An iterator's state then holds positions, and not the batches that were being made.
    options.experimental_symbolic_checkpoint = True
    # The steps that follow are many and small: keeping account of each to tune it, or handing examples to other threads,
    # would cost more than it can gain. What is worth a thread says itself how many it wants.
    options.autotune.enabled = False
    options.experimental_optimization.map_fusion = True
    options.experimental_optimization.map_and_batch_fusion = False
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options)

  def in_blocks(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Makes blocks of up to BLOCK records of what `get_dataset` returned, for preprocessors; fields get an axis in front.

    This comes behind the repetition of epochs and not in the source: a position saved right at the end of an epoch that ends
    with a block which is not full is restored wrong by TensorFlow, an epoch too far.
    """
    kinds = (tf.string, tf.string, tf.int32, tf.int32, tf.int32, tf.int32)
    names = ('split', 'piece', 'index', 'frames', 'chunk_start', 'chunk_end')

    def add(block):
      made = tf.numpy_function(self._places, [block['position']], kinds, stateful=False)
      for array in made:
        array.set_shape([None])
      return {**dict(zip(names, made, strict=True)), 'seed': block['seed']}

    return dataset.batch(BLOCK).map(add)

  def _places(self, positions: np.ndarray):
    """Returns split and piece (names), index, frames, chunk_start and chunk_end `[n]` of records, all of one split."""
    split, positions = self.splits[positions[0] // _PER_SPLIT], positions % _PER_SPLIT
    store, _ = self._library.open(split)
    if self._tables.get(split, (None,))[0] is not store:
      names = np.array([name.encode() for name in store.names], object)
      self._tables[split] = store, *self.chunks(split), self._library.frames(split).astype(np.int32), names
    _, ends, width, frames, names = self._tables[split]
    index = ends.searchsorted(positions, side='right')
    of_piece = frames[index]
    first = ((positions - np.where(index, ends[index - 1], 0)) * width).astype(np.int32)
    last = np.minimum(first + np.int32(width), of_piece)
    if self._library.config.sampling == RANDOM:
      first, last = np.zeros_like(first), of_piece
    splits = np.full(len(index), split.encode(), object)
    return splits, names[index], index.astype(np.int32), of_piece, first, last


def _shuffled(first: int, count: int, seed: int | None) -> tf.data.Dataset:
  """Returns `count` numbers from `first` on in random order, another one in every repetition.

  The order is a permutation that is calculated, number by number. A shuffle buffer would be part of an iterator's state,
  and TensorFlow goes through that state for every example: milliseconds, where a split has 100,000 records.
  """

  def permuted(epoch_seed):
    numbers = tf.data.Dataset.range(count)
    return numbers.map(lambda number: first + tf.random.experimental.index_shuffle(number, epoch_seed, count - 1))

  epoch_seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2, drop_remainder=True)
  return epoch_seeds.take(1).flat_map(permuted)
