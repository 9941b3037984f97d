"""seqio preprocessors: from light records to inputs, target tokens and the prior segments' tokens.

A record is a few numbers until everything that is drawn has been drawn, so shuffling and the state of an iterator stay
small; audio and notes come last, from an `examples.Library`. All randomness follows from the record's own `seed`: an
example is the same whichever host makes it, and after a restart.

Fields of a record: `split` and `piece` (names, string), `index` (of the piece, int32), `frames` (of the piece, int32),
`chunk_start` and `chunk_end` (where the segment is to lie, frames, int32), `seed` (int64 `[2]`).

MT3's preprocessors, which work on records of another kind, are here by name; see `mt3_preprocessors`, `example_tokenizers`.
"""

import atexit
import collections
import gc
import logging
import threading

import numpy as np
import seqio
import tensorflow as tf

from mrmt3 import examples
from mrmt3.example_config import CHUNKS_MR_MT3, CHUNKS_MT3, GRID, RANDOM
from mrmt3.example_tokenizers import (  # noqa: F401
    PitchBendError,
    add_track_to_notesequence,
    guitarset_instrument_to_program,
    slakh_class_to_program_and_is_drum,
    tokenize_example_with_program_lookup,
    tokenize_guitarset_example,
    tokenize_slakh_example,
    tokenize_transcription_example,
    urmp_instrument_to_program,
)
from mrmt3.examples import NO_PIECE, NO_PRIOR, Part, Window
from mrmt3.mt3_preprocessors import (  # noqa: F401
    add_dummy_targets,
    add_unique_id,
    compute_spectrograms,
    handle_too_long,
    map_midi_programs,
    pad_notesequence_array,
)

MOST_SKIPPED = 1000  # examples in a row that do not fit, before that is taken for a mistake

_START, _HOP, _DROPOUT, _MIX = range(4)  # streams of randomness


@atexit.register
def _end_iterators() -> None:
  """Ends all open iterators: at Python's end their threads would wait for its lock for ever, and the process for them."""
  for item in gc.get_objects():
    if issubclass(type(item), tf.data.Iterator) and hasattr(item, '_iterator_resource'):
      item._iterator_resource = None


def _uniform(record, stream: int, low, high, shape=()):
  """Returns int32 `shape` from low to high - 1, drawn from the record's seed."""
  seed = tf.random.experimental.stateless_fold_in(record['seed'], stream)
  return tf.random.stateless_uniform(shape, seed, low, high, tf.int32)


def _chance(record, stream: int, shape=()):
  """Returns float32 `shape` from 0 to 1, drawn from the record's seed."""
  return tf.random.stateless_uniform(shape, tf.random.experimental.stateless_fold_in(record['seed'], stream))


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
  return {**record, 'start_frame': start, 'num_frames': segment_frames if sampling != CHUNKS_MT3 else end - start}


@seqio.map_over_dataset
def add_prior_segments(
    record, segment_frames: int, max_hop: int, prior_segments: int = 1, memory_dropout: float = 0.0, sampling: str = RANDOM
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
  hop = _uniform(record, _HOP, 1, max_hop + 1)
  back = hop + tf.range(prior_segments - 1, -1, -1)
  starts = record['start_frame'] - back * segment_frames
  has_room = starts > record['chunk_start'] if sampling == CHUNKS_MR_MT3 else starts >= 0
  keep = _chance(record, _DROPOUT) >= memory_dropout
  return {**record, 'hop': hop, 'prior_starts': tf.where(has_room & keep, starts, NO_PRIOR)}


def add_mix(dataset: tf.data.Dataset, library: examples.Library, max_pieces: int) -> tf.data.Dataset:
  """Adds mix_pieces and mix_starts (int32 `[max_pieces - 1]`): other segments to be heard at the same time.

  One to max_pieces segments are heard, each number as likely; NO_PIECE for those that are not. Pieces are drawn by their
  length, starts uniformly.
  """
  length = library.spec.segment_frames

  def draw(split: bytes, seed: np.ndarray):
    frames = library.frames(split.decode())
    rng = np.random.default_rng((*seed.view(np.uint64).tolist(), _MIX))
    pieces = np.full(max_pieces - 1, NO_PIECE, np.int32)
    count = rng.integers(0, max_pieces)
    pieces[:count] = np.searchsorted(np.cumsum(frames), rng.integers(0, frames.sum(), count), side='right')
    starts = rng.integers(0, np.maximum(frames[pieces] - length, 0) + 1)
    return pieces, starts.astype(np.int32)

  def add(record):
    drawn = tf.numpy_function(draw, [record['split'], record['seed']], (tf.int32, tf.int32), stateful=False)
    for array in drawn:
      array.set_shape([max_pieces - 1])
    return {**record, 'mix_pieces': drawn[0], 'mix_starts': drawn[1]}

  return dataset.map(add, num_parallel_calls=tf.data.AUTOTUNE)


_WINDOW_FIELDS = ('split', 'index', 'start_frame', 'num_frames', 'prior_starts', 'seed', 'mix_pieces', 'mix_starts')


def _window_arguments(record):
  empty = tf.zeros([0], tf.int32)
  return [record.get(name, empty) for name in _WINDOW_FIELDS]


def _window(library, split, index, start, num_frames, prior_starts, seed, mix_pieces, mix_starts):
  """Returns (split, Window) of the fields of a record, as a numpy function gets them."""
  parts = [Part(int(index), int(start))]
  parts += [Part(int(p), int(s)) for p, s in zip(mix_pieces, mix_starts, strict=True) if p != NO_PIECE]
  window = Window(tuple(parts), int(num_frames), tuple(prior_starts.tolist()), tuple(seed.view(np.uint64).tolist()))
  split = split.decode()
  return split, library.with_stems(split, window)


def example_window(library: examples.Library, example) -> tuple[str, Window]:
  """Returns (split, window) of an example as a task gives it, in numpy: what its audio is cut by."""
  empty = np.zeros(0, np.int32)
  return _window(library, *(example.get(name, empty) for name in _WINDOW_FIELDS))


def add_targets_and_inputs(
    dataset: tf.data.Dataset,
    library: examples.Library,
    sequence_length=None,
    output_features=None,
    *,
    cache_bytes: int = 0,
) -> tf.data.Dataset:
  """Adds targets, prior_targets and inputs: all that is cut from a piece, in one call, since calls are what takes time.

  targets and prior_targets `[length]` int32 are the tokens, EOS last, of the segment and of its prior segments. Several
  prior segments follow each other, each padded to its share of the feature's length. An example with more tokens than
  sequence_length says is left out, or what else `ExampleConfig.on_overflow` wants; it is named once a piece, `mrmt3 inspect`
  counts, and MOST_SKIPPED in a row stop all the same.

  inputs `[valid frames, depth]` float32 are the segment's log-mel, computed from its own samples only (as MT3). There are
  fewer than a segment's frames where the piece ends; what the feature converter pads with is 0 (as MT3). With
  `ExampleConfig.log_mel_on` 'device' the inputs are the samples, `[valid frames, hop]`; with prior_inputs there are also
  prior_inputs, those of the latest prior segment (of length 0 where there is none).

  Args:
    dataset: records with prior_starts.
    library: where pieces come from.
    sequence_length: from seqio: longest 'targets' and 'prior_targets'; None for no limit.
    output_features: from seqio, unused.
    cache_bytes: inputs kept in memory, bytes; useful where the same segments come again (a grid, not random ones).
  """
  del output_features
  config, spec, limits = library.config, library.spec, sequence_length or {}
  longest = limits.get('prior_targets') or spec.targets_length * config.prior_segments
  prior_limit = longest // config.prior_segments if config.prior_segments > 1 else limits.get('prior_targets')
  overflow = _Overflow(config.on_overflow)
  inputs_of = _InputsCache(library, cache_bytes)
  no_tokens, no_inputs = np.zeros(0, np.int32), np.zeros((0, inputs_of.depth), np.float32)

  def cut(*fields):
    split, window = _window(library, *fields)
    targets, priors = library.tokens(split, window)
    what = f'{library.open(split)[0].names[window.parts[0].piece]}, frame {window.parts[0].start_frame}'
    targets = overflow.fit(targets, limits.get('targets'), what)
    priors = [overflow.fit(prior, prior_limit, f'{what} (prior segment)') for prior in priors]
    if targets is None or any(prior is None for prior in priors):
      return False, no_tokens, no_tokens, no_inputs, no_inputs
    overflow.fitted()
    if len(priors) > 1:
      priors = [np.pad(prior, (0, prior_limit - len(prior))) for prior in priors]
    prior_inputs = no_inputs
    if config.prior_inputs and window.prior_starts[-1] != NO_PRIOR:
      prior_inputs = library.inputs(library.samples(split, window, window.prior_starts[-1], spec.segment_frames))
    return True, targets, np.concatenate(priors), inputs_of(split, window), prior_inputs

  def add(record):
    kinds = (tf.bool, tf.int32, tf.int32, tf.float32, tf.float32)
    made = tf.numpy_function(cut, _window_arguments(record), kinds, stateful=False)
    shapes = [], [None], [None], [None, inputs_of.depth], [None, inputs_of.depth]
    for array, shape in zip(made, shapes, strict=True):
      array.set_shape(shape)
    names = ('fits', 'targets', 'prior_targets', 'inputs', 'prior_inputs')
    made = dict(zip(names, made, strict=True))
    return {**record, **{name: x for name, x in made.items() if name != 'prior_inputs' or config.prior_inputs}}

  return dataset.map(add, num_parallel_calls=tf.data.AUTOTUNE).filter(lambda record: record['fits'])


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
  """Examples that are too long: names each piece once, and stops where nothing seems to fit."""

  def __init__(self, policy: str):
    self._policy = policy
    self._in_a_row = 0
    self._warned = collections.Counter()
    self._lock = threading.Lock()

  def fit(self, tokens: np.ndarray, limit: int | None, what: str) -> np.ndarray | None:
    """As `examples.fit_tokens`, aloud."""
    if limit is None or len(tokens) <= limit:
      return tokens
    with self._lock:
      self._in_a_row += self._policy != 'cut'
      in_a_row = self._in_a_row
      piece = what.split(',')[0]
      self._warned[piece] += 1
      if self._warned[piece] == 1:
        fate = 'cut' if self._policy == 'cut' else 'left out'
        logging.warning('%s: %d tokens do not fit %d; such segments are %s', what, len(tokens), limit, fate)
    policy = 'error' if in_a_row > MOST_SKIPPED else self._policy
    return examples.fit_tokens(tokens, limit, policy, what)

  def fitted(self) -> None:
    """Notes that an example did fit."""
    self._in_a_row = 0


def add_whole_piece(
    dataset: tf.data.Dataset, library: examples.Library, sequence_length=None, output_features=None
) -> tf.data.Dataset:
  """Makes an example of each whole piece, all its segments in order, so that memory can be carried.

  Adds inputs `[segments, frames, depth]` float32 (frames beyond the piece's end are 0), targets `[segments, length]` int32
  (padded; tokens that do not fit are cut, which is named: scores are taken from the notes), valid_frames `[segments]` int32
  and notes `[notes, 6]` float64, the reference (columns as `notes.as_rows`, untrimmed).
  """
  del output_features
  from mrmt3 import notes as note_tables
  from mrmt3 import spectrograms

  config, spec = library.config, library.spec
  limit = (sequence_length or {}).get('targets') or spec.targets_length
  limit = limit if isinstance(limit, int) else limit[-1]
  overflow = _Overflow('cut')
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
      tokens = overflow.fit(tokens, limit, f'{store.names[index]}, segment {segment}')
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

  return dataset.map(add, num_parallel_calls=1)
