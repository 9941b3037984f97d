"""The seqio data source under all tasks here: light records, one for each place in a split where an example may lie."""

import numpy as np
import seqio
import tensorflow as tf

from mrmt3.example_config import CHUNK_FRAMES, CHUNKS_MR_MT3, CHUNKS_MT3, PIECES, RANDOM
from mrmt3.examples import Library

RECORDS_AT_ONCE = 64
MOST_SHUFFLED = 4_000_000  # records in the shuffle buffer, 8 bytes each: an iterator's state stays below 50 MB


class SegmentSource(seqio.DataSource):
  """Records of (split, piece, index, frames, chunk_start, chunk_end, seed), see `preprocessors`.

  Shuffled, every repetition has a new order. The order and the seeds are drawn before records go to hosts, so however many
  hosts there are, together they have the same examples, each once.
  """

  def __init__(self, library: Library):
    super().__init__(splits=library.source.splits(), caching_permitted=False, performs_internal_shuffling=True)
    self._library = library

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
    """Returns the records of a split; UserError if there are none."""
    ends, width = self.chunks(split)
    count = int(ends[-1])
    frames = self._library.frames(split)
    names = tf.constant(self._library.open(split)[0].names)
    begins = tf.constant(ends - np.diff(ends, prepend=0), tf.int64)
    ends, frames = tf.constant(ends, tf.int64), tf.constant(frames, tf.int32)
    order = tf.data.Dataset.range(count)
    if shuffle:
      order = order.shuffle(min(count, MOST_SHUFFLED), seed=seed, reshuffle_each_iteration=True)
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2, drop_remainder=True)
    dataset = tf.data.Dataset.zip(order, seeds)
    if shard_info:
      dataset = dataset.shard(shard_info.num_shards, shard_info.index)
    sampling = self._library.config.sampling

    def records(position, drawn):
      index = tf.searchsorted(ends, position, side='right')
      first = tf.cast(position - tf.gather(begins, index), tf.int32) * width
      of_piece = tf.gather(frames, index)
      last = tf.minimum(first + width, of_piece)
      if sampling == RANDOM:
        first, last = tf.zeros_like(first), of_piece
      return {
          'split': tf.fill(tf.shape(index), split),
          'piece': tf.gather(names, index),
          'index': index,
          'frames': of_piece,
          'chunk_start': first,
          'chunk_end': last,
          'seed': drawn,
      }

    options = tf.data.Options()
    # An iterator's state then holds positions, and not the batches that were being made.
    options.experimental_symbolic_checkpoint = True
    # The steps that follow are many and small: keeping account of each to tune it, or handing examples to other threads,
    # would cost more than it can gain. What is worth a thread says itself how many it wants.
    options.autotune.enabled = False
    options.experimental_optimization.map_fusion = True
    options.experimental_optimization.map_and_batch_fusion = False
    options.threading.max_intra_op_parallelism = 1
    # Many at a time: one by one, these few operations would take a third of all the time that an example does.
    return dataset.batch(RECORDS_AT_ONCE).map(records).unbatch().with_options(options)
