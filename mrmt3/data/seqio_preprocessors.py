"""seqio preprocessors: from light records to inputs, target tokens and the prior segments' tokens.

A record is a few numbers until everything that is drawn has been drawn, so shuffling and the state of an iterator stay
small; audio and notes come last, from an `examples.Library`. All randomness follows from the record's own `seed`: an
example is the same whichever host makes it, and after a restart.

Fields of a record: `split` and `piece` (names, string), `index` (of the piece, int32), `frames` (of the piece, int32),
`chunk_start` and `chunk_end` (where the segment is to lie, frames, int32), `seed` (int64 `[2]`), `serial` (int64, see
`SegmentSource`).

MT3's preprocessors, which work on records of another kind, are `mrmt3.preprocessors`. Records go through a task in blocks, each field with an axis more in front, from `SegmentSource.in_blocks` to
`add_targets_and_inputs`: one by one, handing an example from step to step would take longer than all that is computed for
it. `draw_window` and `add_prior_segments` take single records too.
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
from mrmt3.data.example_config import CHUNKS_MR_MT3, CHUNKS_MT3, GRID, RANDOM
from mrmt3.data.examples import NO_PIECE, NO_PRIOR, Part, Window
from mrmt3.data.piece_validation import SEGMENTS_LEFT_OUT, SHORTENED, Problem

MOST_SKIPPED = 1000  # examples in a row that do not fit, before that is taken for a mistake

_START, _HOP, _DROPOUT, _MIX = range(4)  # streams of randomness
_GOLDEN = 0x9E3779B97F4A7C15  # between the streams, see SplitMix64


def _uniform(record, stream: int, low, high):
  """Returns int32 from low to high - 1, drawn from the record's seed; a block of records gives as many."""
  width = tf.cast(high - low, tf.float64)
  return low + tf.cast(_chance(record, stream) * width, tf.int32)


def _chance(record, stream: int):
  """Returns float64 from 0 to 1 (excluded), drawn from the record's seed; a block of records gives as many."""
  # SplitMix64: TensorFlow's own stateless draws take one seed a call.
  seed = tf.bitcast(record['seed'], tf.uint64)
  bits = _scrambled(seed[..., 0] + tf.constant((stream + 1) * _GOLDEN % 2**64, tf.uint64))
  bits = _scrambled(bits ^ seed[..., 1])
  return tf.cast(tf.bitwise.right_shift(bits, tf.constant(11, tf.uint64)), tf.float64) * 2.0**-53


def _scrambled(bits):
  for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
    bits = (bits ^ tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint64))) * tf.constant(factor, tf.uint64)
  return bits ^ tf.bitwise.right_shift(bits, tf.constant(31, tf.uint64))


@seqio.map_over_dataset
def draw_window(record, segment_frames: int, sampling: str):
  """Adds start_frame and num_frames, drawn uniformly from the record's chunk as `ExampleConfig.sampling` says.

  'grid' takes the chunk itself. 'random' and 'mr_mt3' take any full segment within the chunk (all of it where it is
  shorter), 'mt3' any that overlaps it, cut short at its ends.
  """
  first, last = record['chunk_start'], record['chunk_end']
  if sampling == GRID:
    start, end = first, tf.minimum(first + segment_frames, last)
  elif sampling == CHUNKS_MT3:
    start = _uniform(record, _START, first - segment_frames + 1, last)
    start, end = tf.maximum(start, first), tf.minimum(start + segment_frames, last)
  else:
    start = _uniform(record, _START, first, tf.maximum(first, last - segment_frames) + 1)
    end = tf.minimum(start + segment_frames, last)
  full = sampling != CHUNKS_MT3
  return {
    **record,
    'start_frame': start,
    'num_frames': tf.fill(tf.shape(start), segment_frames) if full else end - start,
  }


@seqio.map_over_dataset
def add_prior_segments(
  record,
  segment_frames: int,
  max_hop: int,
  prior_segments: int = 1,
  memory_dropout: float = 0.0,
  sampling: str = RANDOM,
):
  """Adds hop and prior_starts: where the prior segments begin (MR-MT3, section 3.2).

  The latest prior segment lies `hop` segments before the example, hop drawn uniformly from 1..max_hop; others lie right
  before it. A prior segment may begin anywhere in the piece, its first frame included; with sampling 'mr_mt3' only
  within the chunk and not on its first frame (as published).

  Args:
    record: with start_frame.
    segment_frames: length of a segment.
    max_hop: L_max_hop.
    prior_segments: how many.
    memory_dropout: probability that there are none (beyond the paper).
    sampling: see above.

  Returns:
    the record with hop (int32, as drawn) and prior_starts (int32 `[prior_segments]`, earliest first, NO_PRIOR where there
    is no room).
  """
  hop = _uniform(record, _HOP, 1, tf.constant(max_hop + 1))
  back = hop[..., None] + tf.range(prior_segments - 1, -1, -1)
  starts = record['start_frame'][..., None] - back * segment_frames
  wanted = starts > record['chunk_start'][..., None] if sampling == CHUNKS_MR_MT3 else starts >= 0
  if memory_dropout:
    wanted &= _chance(record, _DROPOUT)[..., None] >= memory_dropout
  return {**record, 'hop': hop, 'prior_starts': tf.where(wanted, starts, NO_PRIOR)}


def add_mix(dataset: tf.data.Dataset, library: examples.Library, max_pieces: int) -> tf.data.Dataset:
  """Adds to blocks mix_pieces and mix_starts (int32 `[n, max_pieces - 1]`): other segments to be heard at the same time.

  One to max_pieces segments are heard, each number as likely; NO_PIECE for those that are not. Pieces are drawn by their
  length, starts uniformly.
  """
  length = library.spec.segment_frames

  def draw(splits: np.ndarray, seeds: np.ndarray):
    pieces = np.full((len(seeds), max_pieces - 1), NO_PIECE, np.int32)
    starts = np.empty_like(pieces)
    for row, (split, seed) in enumerate(zip(splits, seeds, strict=True)):
      frames = library.frames(split.decode())
      rng = np.random.default_rng((*seed.view(np.uint64).tolist(), _MIX))
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
  """Returns (split, Window) of the fields of a record in numpy."""
  parts = [Part(int(index), int(start))]
  parts += [Part(int(p), int(s)) for p, s in zip(mix_pieces, mix_starts, strict=True) if p != NO_PIECE]
  window = Window(tuple(parts), int(num_frames), tuple(prior_starts.tolist()), tuple(seed.view(np.uint64).tolist()))
  split = split.decode()
  return split, library.drawn(split, window)


def example_window(library: examples.Library, example) -> tuple[str, Window]:
  """Returns (split, window) of an example as a task gives it, in numpy: what its audio is cut by."""
  return _window(library, *(example[name] for name in _WINDOW_FIELDS if name in example))


def add_targets_and_inputs(
  dataset: tf.data.Dataset,
  library: examples.Library,
  sequence_length=None,
  output_features=None,
  *,
  cache_bytes: int = 0,
) -> tf.data.Dataset:
  """Makes single examples of blocks, with targets, prior_targets and inputs: all that is cut from pieces, in one call.

  targets and prior_targets `[length]` int32 are the tokens, EOS last, of the segment and of its prior segments. Several
  prior segments follow each other, each padded to its share of the feature's length. An example with more tokens than
  sequence_length says is left out, or what else `ExampleConfig.on_overflow` wants; it is named once a piece, `mrmt3 inspect`
  counts, and MOST_SKIPPED in a row stop all the same.

  inputs `[valid frames, depth]` float32 are the segment's log-mel, computed from its own samples only (as MT3). There are
  fewer than a segment's frames where the piece ends; what the feature converter pads with is 0 (as MT3). With
  `ExampleConfig.log_mel_on` 'device' the inputs are the samples, `[valid frames, hop]`; with prior_inputs there are also
  prior_inputs, those of the latest prior segment (of length 0 where there is none).

  example_id `[3]` int64 are index and start_frame, to name an example by, and the serial number of the record from which a
  stream of records can begin that is to give it, see `SegmentSource.starting_at`.

  Args:
    dataset: blocks of records with prior_starts.
    library: where pieces come from.
    sequence_length: from seqio: longest 'targets' and 'prior_targets'; None for no limit.
    output_features: from seqio, unused.
    cache_bytes: inputs kept in memory, bytes; useful where the same segments come again (a grid, not random ones).
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
  """Cuts what blocks of records say, as a numpy function.

  Called with the fields of a block it returns: which rows are kept, int32 `[n]`; how long each array is in each row,
  int32 `[n, arrays]`; and the arrays, `[n, longest, ...]`, padded with 0.
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
    """Returns the arrays' names, dtypes and shapes."""
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
    """Returns (targets, prior_targets), or None where they do not fit."""
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
    """Returns (inputs,), with prior_inputs (inputs, prior_inputs)."""
    library, inputs = self._library, self._inputs_of(split, window)
    if not library.config.prior_inputs:
      return (inputs,)
    prior = window.prior_starts[-1]
    if prior == NO_PRIOR:
      return inputs, inputs[:0]
    return inputs, library.inputs(library.samples(split, window, prior, library.spec.segment_frames))


def _padded(arrays, end: tuple, kind: tf.DType) -> np.ndarray:
  """Returns arrays `[length, *end]` as one `[n, longest or 1, *end]`, padded with 0."""
  # tf.data crashes where it takes rows out of an array without elements.
  longest = max(1, max(map(len, arrays), default=0))
  whole = np.empty((len(arrays), longest, *end), kind.as_numpy_dtype)
  for place, array in zip(whole, arrays, strict=True):
    place[: len(array)] = array
    place[len(array) :] = 0
  return whole


class _InputsCache:
  """Makes the inputs of windows, and keeps them while there is room."""

  def __init__(self, library: examples.Library, max_bytes: int):
    config, spec = library.config, library.spec
    self.depth = spec.spectrogram.hop_width if config.log_mel_on == 'device' else spec.spectrogram.num_mel_bins
    self._library = library
    self._room = 0 if config.composes else max_bytes // (4 * spec.segment_frames * self.depth)
    self._kept = {}

  def __call__(self, split: str, window: Window) -> np.ndarray:
    """Returns float32 `[valid frames, depth]`."""
    key = split, window.parts[0].piece, window.parts[0].start_frame, window.num_frames
    inputs = self._kept.get(key)
    if inputs is None:
      inputs = self._library.inputs(self._library.samples(split, window))
      if len(self._kept) < self._room:
        self._kept[key] = inputs
    return inputs


class _Overflow:
  """Segments that are too long: names them, and stops where nothing seems to fit.

  Each piece is named once on stderr; the store's skipped.jsonl gets a line whenever its count has doubled, and the last count
  when this is not used any more or the process ends.
  """

  def __init__(self, library: examples.Library, policy: str | None = None):
    self._library, self._policy = library, policy or library.config.on_overflow
    self._in_a_row = 0
    self._counts = collections.Counter()
    self._unwritten = {}
    self._lock = threading.Lock()
    weakref.finalize(self, _write_problems, self._unwritten)

  def fit(self, tokens: np.ndarray, limit: int | None, split: str, piece: int, frame: int) -> np.ndarray | None:
    """As `examples.fit_tokens`, aloud; the segment is that of a piece from a frame on."""
    if limit is None or len(tokens) <= limit:
      return tokens
    store, _ = self._library.open(split)
    what = f'{store.names[piece]}, frame {frame}'
    with self._lock:
      self._in_a_row += self._policy != 'cut'
      policy = 'error' if self._in_a_row > MOST_SKIPPED else self._policy
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
          logging.warning('%s: %d tokens do not fit %d; %s, and so are others', what, len(tokens), limit, action)
    return examples.fit_tokens(tokens, limit, policy, what)

  def fitted(self) -> None:
    """Notes that an example did fit."""
    self._in_a_row = 0


def _write_problems(unwritten: dict) -> None:
  for store, name, problem in unwritten.values():
    store.note_problem(name, problem)


def add_whole_piece(
  dataset: tf.data.Dataset, library: examples.Library, sequence_length=None, output_features=None
) -> tf.data.Dataset:
  """Makes of blocks an example of each whole piece, all its segments in order, so that memory can be carried.

  Adds inputs `[segments, frames, depth]` float32 (frames beyond the piece's end are 0), targets `[segments, length]` int32
  (padded; tokens that do not fit are cut, which is named: scores are taken from the notes), valid_frames `[segments]` int32
  and notes `[notes, 6]` float64, the reference (columns as `notes.as_rows`, untrimmed).
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
    # seqio's evaluator and t5x's inference write down, and do not decode, what is called *_pretokenized.
    named = {**record, 'targets_pretokenized': record['piece']}
    return {**named, 'inputs': inputs, 'targets': targets, 'valid_frames': valid, 'notes': notes}

  return dataset.unbatch().map(add, num_parallel_calls=1)
