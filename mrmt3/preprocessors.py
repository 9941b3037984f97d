"""seqio preprocessors: from (track, slot) records to log-mel inputs, target tokens and the prior segment's tokens.

Records stay light (a few numbers) until after shuffling; audio and notes of a track are read once and kept in a
`TrackStore`. A record holds `track` (folder, string), `frames` (of the whole piece, int32) and `start_frame` (int32).
"""

import collections
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf

from mrmt3 import audio_io, segment_tokens, slakh, spectrograms, vocabularies
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError

MOST_SKIPPED = 1000  # segments in a row that do not fit, before that is taken for a mistake
OVERFLOWS = ('skip', 'error')
NO_PRIOR = -1  # prior_start_frame where there is no room for a prior segment


class TrackStore:
  """Audio and encoded notes of tracks, read on first use, the least recently used ones forgotten beyond a budget.

  Safe to use from several threads.

  Args:
    spec: front end and vocabulary.
    max_bytes: audio kept in memory, in bytes.
  """

  def __init__(self, spec: ModelSpec, max_bytes: int = 1 << 30):
    self.spec = spec
    self.codec = vocabularies.build_codec(spec.vocabulary)
    self._max_bytes = max_bytes
    self._tracks: collections.OrderedDict[str, tuple] = collections.OrderedDict()
    self._bytes = 0
    self._lock = threading.Lock()

  def get(self, folder: str) -> tuple[np.ndarray, segment_tokens.PieceEvents]:
    """Returns (samples `[n]` float32, events) of a Slakh-layout track folder."""
    with self._lock:
      if folder in self._tracks:
        self._tracks.move_to_end(folder)
        return self._tracks[folder]
    track = slakh.Track(Path(folder))
    samples = audio_io.read_audio(track.audio_path, self.spec.spectrogram.sample_rate)
    notes = segment_tokens.trim_overlapping_notes(slakh.read_notes(track))
    entry = samples, segment_tokens.encode_piece(notes, self.codec)
    with self._lock:
      if folder not in self._tracks:
        self._tracks[folder] = entry
        self._bytes += samples.nbytes
      while self._bytes > self._max_bytes and len(self._tracks) > 1:
        _, (oldest, _) = self._tracks.popitem(last=False)
        self._bytes -= oldest.nbytes
    return entry


@seqio.map_over_dataset(num_seeds=1)
def draw_start_frame(record, seed, segment_frames: int):
  """Replaces start_frame by one drawn uniformly from all full segments of the piece (0 in a piece shorter than one)."""
  starts = tf.maximum(record['frames'] - segment_frames, 0) + 1
  return {**record, 'start_frame': tf.random.stateless_uniform([], seed, 0, starts, tf.int32)}


@seqio.map_over_dataset(num_seeds=2)
def add_prior_segment(record, seeds, segment_frames: int, max_hop: int, memory_dropout: float = 0.0):
  """Adds prior_start_frame: `hop` segments before start_frame, hop drawn uniformly from 1..max_hop (paper, section 3.2).

  The prior segment may begin anywhere in the piece, frame 0 included. It is NO_PRIOR where there is no room, and (beyond
  the paper) with probability `memory_dropout`, so that the network cannot lean on the memory alone.
  """
  hop = tf.random.stateless_uniform([], seeds[0], 1, max_hop + 1, tf.int32)
  prior = record['start_frame'] - hop * segment_frames
  keep = tf.random.stateless_uniform([], seeds[1]) >= memory_dropout
  return {**record, 'prior_start_frame': tf.where((prior >= 0) & keep, prior, NO_PRIOR)}


def add_log_mel(dataset: tf.data.Dataset, store: TrackStore, cache_bytes: int = 0) -> tf.data.Dataset:
  """Adds inputs `[frames, mel]` float32: the segment's log-mel, computed from its own samples only (as MT3).

  Args:
    dataset: records.
    store: where tracks come from.
    cache_bytes: log-mels kept in memory, in bytes; useful where the same segments come again (a grid, not random ones).
  """
  spec, cache = store.spec, {}
  room = cache_bytes // (4 * spec.segment_frames * spec.spectrogram.num_mel_bins)

  def log_mel(folder: bytes, start: np.int32) -> np.ndarray:
    key = folder, int(start)
    if key not in cache:
      mel = segment_log_mel(store.get(folder.decode())[0], int(start), spec)
      if len(cache) >= room:
        return mel
      cache[key] = mel
    return cache[key]

  def add(record):
    mel = tf.numpy_function(log_mel, [record['track'], record['start_frame']], tf.float32)
    mel.set_shape([None, spec.spectrogram.num_mel_bins])
    return {**record, 'inputs': mel}

  return dataset.map(add, num_parallel_calls=tf.data.AUTOTUNE)


def segment_log_mel(samples: np.ndarray, start_frame: int, spec: ModelSpec) -> np.ndarray:
  """Returns the log-mel `[segment_frames, mel]` of a segment; frames beyond the piece's last are 0 (as MT3)."""
  hop, frames = spec.spectrogram.hop_width, spec.segment_frames
  segment = np.zeros(frames * hop, np.float32)
  part = samples[start_frame * hop : (start_frame + frames) * hop]
  segment[: len(part)] = part
  mel = np.array(spectrograms.compute_spectrogram(segment, spec.spectrogram), np.float32)
  mel[max(0, spectrograms.num_frames(len(samples), spec.spectrogram) - start_frame) :] = 0.0
  return mel


def add_targets(
    dataset: tf.data.Dataset,
    store: TrackStore,
    sequence_length,
    output_features=None,
    *,
    shuffle_scope: str | None = None,
    on_overflow: str = 'skip',
) -> tf.data.Dataset:
  """Adds targets and prior_targets `[length]` int32: the tokens, EOS last, of the segment and of its prior segment.

  Both take the same path; a missing prior segment is the empty one (tie, EOS).

  Args:
    dataset: records with prior_start_frame.
    store: where tracks come from.
    sequence_length: from seqio: longest 'targets' and 'prior_targets'; None for no limit.
    output_features: from seqio, unused.
    shuffle_scope: None keeps events of one step in canonical order, else a scope of `token_shuffling`; targets and
      prior targets are shuffled independently.
    on_overflow: what happens to a segment with more tokens than sequence_length: 'skip' leaves the example out and
      warns once a track (MOST_SKIPPED in a row stop all the same), 'error' stops.
  """
  del output_features
  limits = sequence_length or {}
  encode = segment_encoder(store, shuffle_scope)
  warned = set()
  skipped_in_a_row = 0

  def tokens(folder: bytes, start: np.int32, prior_start: np.int32, seed: np.ndarray):
    nonlocal skipped_in_a_row
    rng = np.random.default_rng(seed.view(np.uint32))
    both = encode(folder.decode(), int(start), rng), encode(folder.decode(), int(prior_start), rng)
    for name, ids in zip(('targets', 'prior_targets'), both, strict=True):
      if len(ids) > (limits.get(name) or len(ids)):
        message = f'{folder.decode()}, frame {start}: {len(ids)} {name} do not fit {limits[name]}'
        skipped_in_a_row += 1
        if on_overflow == 'error' or skipped_in_a_row > MOST_SKIPPED:
          raise UserError(f'{message}; raise task_feature_lengths')
        if folder not in warned:
          warned.add(folder)
          logging.warning('%s; such segments are left out', message)
        return *both, False
    skipped_in_a_row = 0
    return *both, True

  @seqio.map_over_dataset(num_seeds=1)
  def add(record, seed):
    arguments = [record['track'], record['start_frame'], record['prior_start_frame'], tf.cast(seed, tf.int32)]
    targets, prior_targets, fits = tf.numpy_function(tokens, arguments, (tf.int32, tf.int32, tf.bool))
    targets.set_shape([None])
    prior_targets.set_shape([None])
    fits.set_shape([])
    return {**record, 'targets': targets, 'prior_targets': prior_targets, 'fits': fits}

  return add(dataset).filter(lambda record: record['fits'])


def segment_encoder(
    store: TrackStore, shuffle_scope: str | None = None
) -> Callable[[str, int, np.random.Generator], np.ndarray]:
  """Returns (track folder, start frame or NO_PRIOR, generator) -> the segment's tokens `[length]` int32, EOS last."""
  from mrmt3 import token_shuffling

  spec = store.spec
  shuffle = None if shuffle_scope is None else token_shuffling.Shuffle(scope=shuffle_scope)
  empty = segment_tokens.empty_segment(store.codec)

  def encode(folder: str, start: int, rng: np.random.Generator) -> np.ndarray:
    if start == NO_PRIOR:
      return empty
    samples, events = store.get(folder)
    return segment_tokens.segment_targets(
        events,
        start,
        spec.segment_frames,
        frames_per_second=spec.spectrogram.frames_per_second,
        piece_frames=spectrograms.num_frames(len(samples), spec.spectrogram),
        codec=store.codec,
        shuffle=shuffle,
        rng=rng,
    )

  return encode
