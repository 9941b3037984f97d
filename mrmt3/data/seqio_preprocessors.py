"""seqio preprocessors: from small records to inputs, target tokens and prior tokens.

A record holds a few numbers until all random draws are made, so shuffling and iterator states stay small. Audio and
notes are added last, from an `examples.Library`. All randomness follows from the record's `seed`: an example is the
same on every host and after a restart.

| field of a record | type | meaning |
|---|---|---|
| split, piece | string | names |
| index, frames | int32 | number and length of the piece |
| chunk_start, chunk_end | int32 | the chunk that contains the segment, frames |
| seed | int64 `[2]` | determines all random draws |
| serial | int64 | see `SegmentSource` |

Records pass through a task in blocks, with a leading axis in each field, from `SegmentSource.in_blocks` to
`add_targets_and_inputs`. Passing single records from map to map would take longer than the computation itself.
`draw_window` and `memory_context.add_prior_segments` accept single records as well.

MT3's preprocessors, which work on other records, are in `mrmt3.preprocessors`.
"""

import collections
import logging
import os
import threading
import weakref

import numpy as np
import seqio
import tensorflow as tf

from mrmt3.data import examples
from mrmt3.data.example_config import CHUNKS_MT3, GRID, NO_PRIOR
from mrmt3.data.examples import NO_PIECE, Part, Window
from mrmt3.data.piece_validation import SEGMENTS_LEFT_OUT, SHORTENED, Problem
from mrmt3.data.record_randomness import Stream, uniform

MAX_SKIPPED = 1000  # consecutive examples with too many tokens; one more is an error


@seqio.map_over_dataset
def draw_window(record, segment_frames: int, sampling: str):
  """Add start_frame and num_frames, drawn uniformly from the record's chunk according to `ExampleConfig.sampling`.

  'grid' takes the chunk itself. 'random' and 'mr_mt3' take a full segment within the chunk (the whole chunk if it is
  shorter). 'mt3' takes a segment that overlaps the chunk and cuts it at the chunk's ends.
  """
  first, last = record['chunk_start'], record['chunk_end']
  if sampling == GRID:
    start, end = first, tf.minimum(first + segment_frames, last)
  elif sampling == CHUNKS_MT3:
    start = uniform(record, Stream.WINDOW, first - segment_frames + 1, last)
    start, end = tf.maximum(start, first), tf.minimum(start + segment_frames, last)
  else:
    start = uniform(record, Stream.WINDOW, first, tf.maximum(first, last - segment_frames) + 1)
    end = tf.minimum(start + segment_frames, last)
  full = sampling != CHUNKS_MT3
  return {
    **record,
    'start_frame': start,
    'num_frames': tf.fill(tf.shape(start), segment_frames) if full else end - start,
  }


def add_mix(dataset: tf.data.Dataset, library: examples.Library, max_pieces: int) -> tf.data.Dataset:
  """Add mix_pieces and mix_starts (int32 `[n, max_pieces - 1]`) to blocks: other segments to mix into the example.

  The number of segments in a mix is uniform in 1..max_pieces; unused places are NO_PIECE. Pieces are drawn in
  proportion to their length, starts uniformly.
  """
  length = library.spec.segment_frames

  def draw(splits: np.ndarray, seeds: np.ndarray):
    pieces = np.full((len(seeds), max_pieces - 1), NO_PIECE, np.int32)
    starts = np.empty_like(pieces)
    for row, (split, seed) in enumerate(zip(splits, seeds, strict=True)):
      frames = library.frames(split.decode())
      rng = np.random.default_rng((*seed.view(np.uint64).tolist(), Stream.MIX))
      count = rng.integers(0, max_pieces)
      pieces[row, :count] = np.searchsorted(np.cumsum(frames), rng.integers(0, frames.sum(), count), side='right')
      starts[row] = rng.integers(0, np.maximum(frames[pieces[row]] - length, 0) + 1)
    return pieces, starts

  def add(block):
    drawn = tf.numpy_function(draw, [block['split'], block['seed']], (tf.int32, tf.int32), stateful=False)
    for array in drawn:
      array.set_shape([None, max_pieces - 1])
    return {**block, 'mix_pieces': drawn[0], 'mix_starts': drawn[1]}

  return dataset.map(add)


_WINDOW_FIELDS = ('split', 'index', 'start_frame', 'num_frames', 'prior_starts', 'seed', 'mix_pieces', 'mix_starts')


def _window(library, split, index, start, num_frames, prior_starts, seed, mix_pieces=(), mix_starts=()):
  """Return (split, Window) of a record's fields, given as numpy values."""
  parts = [Part(int(index), int(start))]
  parts += [Part(int(p), int(s)) for p, s in zip(mix_pieces, mix_starts, strict=True) if p != NO_PIECE]
  window = Window(tuple(parts), int(num_frames), tuple(prior_starts.tolist()), tuple(seed.view(np.uint64).tolist()))
  split = split.decode()
  return split, library.drawn(split, window)


def example_window(library: examples.Library, example) -> tuple[str, Window]:
  """Return (split, window) of a task's example, given as numpy values. The window defines the example's audio."""
  return _window(library, *(example[name] for name in _WINDOW_FIELDS if name in example))


def add_targets_and_inputs(
  dataset: tf.data.Dataset,
  library: examples.Library,
  sequence_length=None,
  output_features=None,
  *,
  cache_bytes: int = 0,
) -> tf.data.Dataset:
  """Split blocks into examples and add all features that come from pieces.

  | feature | type | content |
  |---|---|---|
  | targets | int32 `[length]` | tokens of the segment, EOS last |
  | prior_targets | int32 `[length]` | tokens of the prior segments, each padded to its share of the feature's length |
  | inputs | float32 `[valid frames, depth]` | log-mel of the segment's own samples (as in MT3), or the samples |
  | prior_inputs | float32 `[valid frames, depth]` | inputs of the latest prior segment, of length 0 if it is missing |
  | example_id | int64 `[3]` | index, start_frame, and the serial for `SegmentSource.starting_at` |

  inputs has fewer frames than a segment at the end of a piece; the feature converter pads it with 0 (as in MT3). It has
  samples if `ExampleConfig.log_mel_on` is 'device'. prior_inputs exists only with `ExampleConfig.prior_inputs`.

  `ExampleConfig.on_overflow` applies to examples with more tokens than `sequence_length`. A warning names each piece
  once, and `mrmt3 inspect` counts them. MAX_SKIPPED consecutive skips are an error.

  Args:
    dataset: blocks of records with prior_starts.
    library: the pieces.
    sequence_length: maximum length of 'targets' and 'prior_targets', from seqio; None for no limit.
    output_features: from seqio, unused.
    cache_bytes: size of the cache of inputs in memory, bytes. It helps if segments repeat (on a grid).
  """
  del output_features
  cutter = _Cutter(library, sequence_length or {}, cache_bytes)
  names, kinds, shapes = cutter.arrays()

  def cut(block):
    fields = [block[name] for name in _WINDOW_FIELDS if name in block]
    kept, lengths, *made = tf.numpy_function(cutter, fields, (tf.int32, tf.int32, *kinds), stateful=False)
    kept.set_shape([None])
    lengths.set_shape([None, len(names)])
    for array, shape in zip(made, shapes, strict=True):
      array.set_shape(shape)
    ids = [block['index'], block['start_frame'], block.get('serial', tf.fill(tf.shape(block['index']), -1))]
    block = {**block, 'example_id': tf.stack([tf.cast(x, tf.int64) for x in ids], axis=-1)}
    block = {name: tf.gather(x, kept) for name, x in block.items()}
    return {**block, 'lengths': lengths, **dict(zip(names, made, strict=True))}

  def without_padding(example):
    lengths = example.pop('lengths')
    return {**example, **{name: example[name][: lengths[k]] for k, name in enumerate(names)}}

  dataset = dataset.map(cut, num_parallel_calls=max(2, os.cpu_count() or 1)).unbatch()
  return dataset.map(without_padding)


class _Cutter:
  """Computes the features of blocks of records, as a numpy function.

  Called with the fields of a block, it returns the rows that are kept, int32 `[n]`; the length of each array in each
  row, int32 `[n, arrays]`; and the arrays, `[n, longest, ...]`, padded with 0.
  """

  def __init__(self, library: examples.Library, limits, cache_bytes: int):
    config = library.config
    longest = limits.get('prior_targets') or library.spec.targets_length * config.prior_segments
    self._library = library
    self._target_limit = limits.get('targets')
    self._prior_limit = longest // config.prior_segments if config.prior_segments > 1 else limits.get('prior_targets')
    self._overflow = _Overflow(library)
    self._inputs_of = _InputsCache(library, cache_bytes)

  def arrays(self) -> tuple[tuple, tuple, tuple]:
    """Return the arrays' names, dtypes and shapes."""
    names, kinds = ('targets', 'prior_targets', 'inputs'), (tf.int32, tf.int32, tf.float32)
    frames = [None, None, self._inputs_of.depth]
    shapes = [None, None], [None, None], frames
    if self._library.config.prior_inputs:
      return (*names, 'prior_inputs'), (*kinds, tf.float32), (*shapes, frames)
    return names, kinds, shapes

  def __call__(self, *block):
    kept, rows = [], []
    for row, fields in enumerate(zip(*block, strict=True)):
      split, window = _window(self._library, *fields)
      tokens = self._fitting_tokens(split, window)
      if tokens is not None:
        kept.append(row)
        rows.append((*tokens, *self._inputs(split, window)))
    names, kinds, _ = self.arrays()
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    lengths = np.array([[len(x) for x in row] for row in rows], np.int32).reshape(-1, len(names))
    ends = [()] * 2 + [(self._inputs_of.depth,)] * (len(names) - 2)
    padded = [_padded(*column) for column in zip(columns, ends, kinds, strict=True)]
    return np.array(kept, np.int32), lengths, *padded

  def _fitting_tokens(self, split, window):
    """Return (targets, prior_targets), or None if the example is skipped."""
    targets, priors = self._library.tokens(split, window)
    main = window.parts[0]
    targets = self._overflow.fit(targets, self._target_limit, split, main.piece, main.start_frame)
    priors = [
      self._overflow.fit(prior, self._prior_limit, split, main.piece, start)
      for prior, start in zip(priors, window.prior_starts, strict=True)
    ]
    if targets is None or any(prior is None for prior in priors):
      return None
    self._overflow.fitted()
    if len(priors) == 1:
      return targets, priors[0]
    return targets, np.concatenate([np.pad(prior, (0, self._prior_limit - len(prior))) for prior in priors])

  def _inputs(self, split, window):
    """Return (inputs,), or (inputs, prior_inputs) if they are configured."""
    library, inputs = self._library, self._inputs_of(split, window)
    if not library.config.prior_inputs:
      return (inputs,)
    prior = window.prior_starts[-1]
    if prior == NO_PRIOR:
      return inputs, inputs[:0]
    return inputs, library.inputs(library.samples(split, window, prior, library.spec.segment_frames))


def _padded(arrays, end: tuple, kind: tf.DType) -> np.ndarray:
  """Return arrays `[length, *end]` as one `[n, longest or 1, *end]`, padded with 0."""
  # tf.data crashes when it slices rows of an array without elements.
  longest = max(1, max(map(len, arrays), default=0))
  whole = np.empty((len(arrays), longest, *end), kind.as_numpy_dtype)
  for place, array in zip(whole, arrays, strict=True):
    place[: len(array)] = array
    place[len(array) :] = 0
  return whole


class _InputsCache:
  """Computes the inputs of windows and caches them up to a size."""

  def __init__(self, library: examples.Library, max_bytes: int):
    config, spec = library.config, library.spec
    self.depth = spec.spectrogram.hop_width if config.log_mel_on == 'device' else spec.spectrogram.num_mel_bins
    self._library = library
    self._capacity = 0 if config.composes or config.effects else max_bytes // (4 * spec.segment_frames * self.depth)
    self._kept = {}

  def __call__(self, split: str, window: Window) -> np.ndarray:
    """Return float32 `[valid frames, depth]`."""
    key = split, window.parts[0].piece, window.parts[0].start_frame, window.num_frames
    inputs = self._kept.get(key)
    if inputs is None:
      inputs = self._library.inputs(self._library.samples(split, window))
      if len(self._kept) < self._capacity:
        self._kept[key] = inputs
    return inputs


class _Overflow:
  """Handles segments with too many tokens: reports them, and fails if too many follow each other.

  A warning names each piece once. The store's skipped.jsonl gets a line whenever a piece's count doubles, and a line
  with the final count when this object is garbage-collected or the process ends.
  """

  def __init__(self, library: examples.Library, policy: str | None = None):
    self._library, self._policy = library, policy or library.config.on_overflow
    self._in_a_row = 0
    self._counts = collections.Counter()
    self._unwritten = {}
    self._lock = threading.Lock()
    weakref.finalize(self, _write_problems, self._unwritten)

  def fit(self, tokens: np.ndarray, limit: int | None, split: str, piece: int, frame: int) -> np.ndarray | None:
    """Like `examples.fit_tokens`, with a report; the segment starts at a frame of a piece."""
    if limit is None or len(tokens) <= limit:
      return tokens
    store, _ = self._library.open(split)
    what = f'{store.names[piece]}, frame {frame}'
    with self._lock:
      self._in_a_row += self._policy != 'cut'
      policy = 'error' if self._in_a_row > MAX_SKIPPED else self._policy
      self._counts[split, piece] += 1
      count = self._counts[split, piece]
      if policy != 'error':
        action = SHORTENED if policy == 'cut' else SEGMENTS_LEFT_OUT
        text = f'{count} segments have more tokens than {limit} (the last one, frame {frame}, {len(tokens)})'
        name, problem = store.names[piece], Problem('too-many-tokens', count, text, action)
        self._unwritten[split, piece] = store, name, problem
        if count & (count - 1) == 0:
          del self._unwritten[split, piece]
          store.note_problem(name, problem)
        if count == 1:
          logging.warning(
            '%s: %d tokens exceed the limit of %d; %s, and so are later ones of this piece',
            what,
            len(tokens),
            limit,
            action,
          )
    return examples.fit_tokens(tokens, limit, policy, what)

  def fitted(self) -> None:
    """Reset the count of consecutive examples with too many tokens."""
    self._in_a_row = 0


def _write_problems(unwritten: dict) -> None:
  for store, name, problem in unwritten.values():
    store.note_problem(name, problem)


def add_whole_piece(
  dataset: tf.data.Dataset, library: examples.Library, sequence_length=None, output_features=None
) -> tf.data.Dataset:
  """Turn blocks into one example per piece with all its segments in order, so that memory can be carried over.

  | feature | type | content |
  |---|---|---|
  | inputs | float32 `[segments, frames, depth]` | 0 for frames beyond the piece's end |
  | targets | int32 `[segments, length]` | padded with 0; cut with a warning if too long, because scores use the notes |
  | valid_frames | int32 `[segments]` | frames within the piece |
  | notes | float64 `[notes, 6]` | the reference, untrimmed, with the columns of `note_array.as_rows` |
  """
  del output_features
  from mrmt3 import spectrograms
  from mrmt3.notes import note_array as note_tables

  config, spec = library.config, library.spec
  limit = (sequence_length or {}).get('targets') or spec.targets_length
  limit = limit if isinstance(limit, int) else limit[-1]
  overflow = _Overflow(library, 'cut')
  depth = spec.spectrogram.hop_width if config.log_mel_on == 'device' else spec.spectrogram.num_mel_bins

  def read(split: bytes, index: np.int32):
    split, index = split.decode(), int(index)
    store, _ = library.open(split)
    cut, valid = spectrograms.piece_segments(store.audio(index), spec.spectrogram, spec.segment_frames)
    inputs = cut.reshape(len(cut), spec.segment_frames, -1)
    if config.log_mel_on == 'host':
      inputs = spectrograms.clear_invalid_frames(spectrograms.compute_spectrogram(cut, spec.spectrogram), valid)
    targets = np.zeros((len(cut), limit), np.int32)
    for segment in range(len(cut)):
      window = Window((Part(index, segment * spec.segment_frames),), spec.segment_frames)
      tokens, _ = library.tokens(split, window)
      tokens = overflow.fit(tokens, limit, split, index, segment * spec.segment_frames)
      targets[segment, : len(tokens)] = tokens
    return inputs, targets, valid, note_tables.as_rows(store.notes(index))

  def add(record):
    kinds = (tf.float32, tf.int32, tf.int32, tf.float64)
    inputs, targets, valid, notes = tf.numpy_function(read, [record['split'], record['index']], kinds, stateful=False)
    inputs.set_shape([None, spec.segment_frames, depth])
    targets.set_shape([None, limit])
    valid.set_shape([None])
    notes.set_shape([None, 6])
    # seqio's evaluator and t5x's inference write features named *_pretokenized without decoding them.
    named = {**record, 'targets_pretokenized': record['piece']}
    return {**named, 'inputs': inputs, 'targets': targets, 'valid_frames': valid, 'notes': notes}

  return dataset.unbatch().map(add, num_parallel_calls=1)
