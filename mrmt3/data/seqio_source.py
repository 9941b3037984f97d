"""The seqio data source of the tasks in tasks/: small records without audio, one per example of an epoch."""

import contextlib
import secrets
from collections.abc import Iterator

import numpy as np
import seqio
import tensorflow as tf

from mrmt3.data.example_config import CHUNK_FRAMES, CHUNKS_MR_MT3, CHUNKS_MT3, PIECES, RANDOM
from mrmt3.data.examples import Library
from mrmt3.utils import splitmix64

BLOCK = 16  # records


class SegmentSource(seqio.DataSource):
  """Yields one element per record; `in_blocks` computes each record from its serial number and the seed.

  Serial numbers count a host's records across epochs, so a stream can start at any record (`starting_at`). With
  shuffling, each epoch has its own order. All hosts together yield each example once per epoch, for any number of
  hosts. `seqio_preprocessors` lists the fields of a record.
  """

  def __init__(self, library: Library):
    super().__init__(splits=library.source.splits(), caching_permitted=False, performs_internal_shuffling=True)
    self._library = library
    self._tables = {}
    self._start = 0

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """Whether any number of hosts can share a split; always True."""
    return True

  def list_shards(self, split: str) -> list[str]:
    """Return the split's name as its only shard."""
    return [split]

  def chunks(self, split: str) -> tuple[np.ndarray, int]:
    """Return (cumulative number of records at the end of each piece, int64 `[pieces]`; frames per chunk)."""
    config, segment = self._library.config, self._library.spec.segment_frames
    frames = self._library.frames(split)
    if config.sampling == PIECES:
      return np.arange(1, len(frames) + 1), int(frames.max())
    if config.sampling == CHUNKS_MR_MT3:
      return np.cumsum(np.maximum((frames - 1) // CHUNK_FRAMES, 1)), CHUNK_FRAMES
    width = CHUNK_FRAMES if config.sampling == CHUNKS_MT3 else segment
    return np.cumsum(-(-frames // width)), width

  def fingerprint(self, split: str) -> str:
    """Return a text that changes when the pieces of a split change."""
    return self._library.source.fingerprint(split)

  def piece_names(self, split: str) -> list[str]:
    """Return the pieces' names, in order of their numbers."""
    return self._library.open(split)[0].names

  def num_records(self, split: str) -> int:
    """Return the number of examples per epoch of the split."""
    return int(self.chunks(split)[0][-1])

  @contextlib.contextmanager
  def starting_at(self, serial: int) -> Iterator[None]:
    """Context in which data sets start with the record of a serial number, counted from 0."""
    self._start = serial
    try:
      yield
    finally:
      self._start = 0

  def get_dataset(self, split='train', shuffle=True, seed=None, shard_info=None) -> tf.data.Dataset:
    """Return one identical element per record of this host and epoch, for `in_blocks`; UserError for an empty split.

    An element has the field order, int64 `[6]`: split number, number of records, number of hosts, this host, seed,
    whether to shuffle.
    """
    count = self.num_records(split)
    hosts, host = (shard_info.num_shards, shard_info.index) if shard_info else (1, 0)
    seed = secrets.randbits(62) if seed is None else int(seed) % 2**62
    order = np.array([self.splits.index(split), count, hosts, host, seed, shuffle], np.int64)
    dataset = tf.data.Dataset.from_tensors({'order': order}).repeat(_share(count, hosts, host))
    options = tf.data.Options()
    # An iterator's checkpoint then holds positions instead of the batches in preparation.
    options.experimental_symbolic_checkpoint = True
    # The following maps are many and small. Autotuning and extra threads would cost more than they gain; expensive maps
    # set num_parallel_calls themselves.
    options.autotune.enabled = False
    options.experimental_optimization.map_fusion = True
    options.experimental_optimization.map_and_batch_fusion = False
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options)

  def in_blocks(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Turn the elements of `get_dataset` into blocks of up to BLOCK records; fields get a leading axis.

    Call it after `repeat`, because serial numbers count across epochs.
    """
    kinds = (tf.string, tf.string, tf.int32, tf.int32, tf.int32, tf.int32, tf.int64)
    names = ('split', 'piece', 'index', 'frames', 'chunk_start', 'chunk_end', 'seed')

    def add(serial, block):
      order = block['order'][0]
      split, count, hosts, host, seed, shuffled = tf.unstack(order)
      share = _share(count, hosts, host)
      epoch, number = serial // share, host + serial % share * hosts
      number = tf.cond(shuffled > 0, lambda: _permuted(number, count, seed, epoch), lambda: number)
      made = tf.numpy_function(self._records, [split, number, seed, epoch], kinds, stateful=False)
      for array in made[:-1]:
        array.set_shape([None])
      made[-1].set_shape([None, 2])
      return {**dict(zip(names, made, strict=True)), 'serial': serial}

    return dataset.enumerate(self._start).batch(BLOCK).map(add)

  def _records(self, split: np.int64, numbers: np.ndarray, seed: np.int64, epochs: np.ndarray):
    """Return the fields of records: split, piece, index, frames, chunk_start and chunk_end `[n]`, seed `[n, 2]`."""
    split = self.splits[split]
    store, _ = self._library.open(split)
    if self._tables.get(split, (None,))[0] is not store:
      names = np.array([name.encode() for name in store.names], object)
      self._tables[split] = store, *self.chunks(split), self._library.frames(split).astype(np.int32), names
    _, ends, width, frames, names = self._tables[split]
    index = ends.searchsorted(numbers, side='right')
    of_piece = frames[index]
    first = ((numbers - np.where(index, ends[index - 1], 0)) * width).astype(np.int32)
    last = np.minimum(first + np.int32(width), of_piece)
    if self._library.config.sampling == RANDOM:
      first, last = np.zeros_like(first), of_piece
    splits = np.full(len(index), split.encode(), object)
    return splits, names[index], index.astype(np.int32), of_piece, first, last, _seeds(seed, epochs, numbers)


def _share(count, hosts, host):
  """Return the number of records per epoch of a host."""
  return (count - host + hosts - 1) // hosts


def _permuted(numbers, count, seed, epochs):
  """Return numbers below `count`, permuted within their epochs. The permutation is computed number by number.

  A shuffle buffer would be part of the iterator's state, which TensorFlow traverses for every example. That takes
  milliseconds for a split of 100,000 records.
  """
  # tf.random.experimental.index_shuffle wraps this operation, but takes a single seed and uses 4 rounds. With so few
  # rounds the last word of a seed, the epoch, hardly changes the order.
  seeds = tf.stack([tf.ones_like(epochs), tf.broadcast_to(seed, tf.shape(epochs)), epochs], axis=-1)
  return tf.raw_ops.RandomIndexShuffle(index=numbers, seed=seeds, max_index=count - 1, rounds=16)


def _seeds(seed, epochs, numbers) -> np.ndarray:
  """Return a seed for each record of each epoch, int64 `[n, 2]`, well mixed (SplitMix64)."""
  mixed = splitmix64.first_output
  state = mixed(np.uint64(seed) + mixed(epochs.astype(np.uint64)))
  low = mixed(state ^ mixed(numbers.astype(np.uint64)))
  # Not mixed(low): that is how draws are made of a seed.
  return np.stack([low, mixed(~low)], axis=-1).view(np.int64)
