"""Task over any folder in the Slakh2100 layout: mixes as inputs, per-stem MIDI as targets.

`task(...)` registers a seqio task and returns its name, so that gin chooses data and preprocessing in one place:

    utils.DatasetConfig.mixture_or_task_name = @slakh.task()
    slakh.task.data_dir = '/data/slakh2100_flac_redux'
"""

import functools
import hashlib

import seqio
import soundfile
import tensorflow as tf

from mrmt3 import preprocessors, slakh, spectrograms, token_shuffling, vocabularies
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError

SPLITS = ('train', 'validation', 'test')
SAMPLINGS = ('random', 'grid')


class SlotSource(seqio.DataSource):
  """Light records, one for every segment-long slot of every track: track, frames, start_frame.

  Shuffled, every repetition has a new order; in order, pieces follow each other from beginning to end.

  Args:
    data_dir: folder in the Slakh2100 layout.
    spec: front end and segment length.
  """

  def __init__(self, data_dir: str, spec: ModelSpec):
    super().__init__(splits=SPLITS, caching_permitted=False, performs_internal_shuffling=True)
    self._data_dir = data_dir
    self._spec = spec
    self._read_slots = functools.lru_cache(self._slots)

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """seqio shards the records, which are light."""
    return False

  def list_shards(self, split: str) -> list[str]:
    """Returns the split as its only shard."""
    return [split]

  def _slots(self, split: str) -> dict[str, list]:
    slots = {'track': [], 'frames': [], 'start_frame': []}
    for track in slakh.find_tracks(self._data_dir, split):
      info = soundfile.info(track.audio_path)
      samples = -(-info.frames * self._spec.spectrogram.sample_rate // info.samplerate)
      frames = spectrograms.num_frames(samples, self._spec.spectrogram)
      for start in range(0, frames, self._spec.segment_frames):
        slots['track'].append(str(track.path))
        slots['frames'].append(frames)
        slots['start_frame'].append(start)
    if not slots['track']:
      raise UserError(f'{self._data_dir}: no track of the split {split!r} in the Slakh layout found there')
    return slots

  def get_dataset(
      self, split='train', shuffle=True, seed=None, shard_info=None, *, sequence_length=None, use_cached=False, num_epochs=1
  ) -> tf.data.Dataset:
    """Returns the records of a split; UserError if there are none."""
    del shard_info, sequence_length, use_cached, num_epochs
    slots = self._read_slots(split)
    count = len(slots['track'])
    columns = {
        'track': tf.constant(slots['track']),
        'frames': tf.constant(slots['frames'], tf.int32),
        'start_frame': tf.constant(slots['start_frame'], tf.int32),
    }
    dataset = tf.data.Dataset.range(count)
    if shuffle:
      # Indices, not records, stand in the shuffle buffer: a full permutation costs 8 bytes a slot.
      dataset = dataset.shuffle(count, seed=seed, reshuffle_each_iteration=True)
    return dataset.map(lambda index: {name: column[index] for name, column in columns.items()})


def task(
    data_dir: str,
    spec: ModelSpec,
    sampling: str = 'random',
    max_hop: int = 1,
    memory_dropout: float = 0.0,
    shuffle_scope: str | None = None,
    on_overflow: str = 'skip',
    audio_cache_bytes: int = 1 << 30,
    log_mel_cache_bytes: int = 0,
) -> str:
  """Registers a task over a Slakh-layout folder and returns its name.

  Features: inputs `[frames, mel]` float32, targets and prior_targets `[length]` int32 with EOS.

  Args:
    data_dir: folder with train / validation / test and TrackNNNNN in them.
    spec: front end, vocabulary and segment length.
    sampling: 'random' draws each segment's start anew; 'grid' takes the segments that inference uses.
    max_hop: L_max_hop, the prior segment is 1..max_hop segments back (paper: 1, 3 or 8). Evaluation wants 1.
    memory_dropout: probability of an empty prior segment; 0 in the paper. Evaluation wants 0.
    shuffle_scope: None, or how far events of one time step are permuted: 'paper' or 'mr_mt3'.
    on_overflow: see preprocessors.add_targets.
    audio_cache_bytes: audio kept in memory.
    log_mel_cache_bytes: log-mels kept in memory (for 'grid').

  Raises:
    UserError: for values out of range.
  """
  if sampling not in SAMPLINGS:
    raise UserError(f"slakh.task.sampling is {sampling!r}; it is one of {', '.join(SAMPLINGS)}")
  if max_hop < 1:
    raise UserError(f'slakh.task.max_hop is {max_hop}; the prior segment is at least 1 segment back')
  if not 0 <= memory_dropout <= 1:
    raise UserError(f'slakh.task.memory_dropout is {memory_dropout}; it is a probability')
  if on_overflow not in preprocessors.OVERFLOWS:
    raise UserError(f"slakh.task.on_overflow is {on_overflow!r}; it is one of {', '.join(preprocessors.OVERFLOWS)}")
  if shuffle_scope is not None and shuffle_scope not in token_shuffling.SCOPES:
    raise UserError(f"slakh.task.shuffle_scope is {shuffle_scope!r}; it is None or one of {', '.join(token_shuffling.SCOPES)}")
  settings = (
      str(data_dir), spec, sampling, max_hop, memory_dropout, shuffle_scope, on_overflow, audio_cache_bytes,
      log_mel_cache_bytes,
  )  # fmt: skip
  name = f'slakh_{sampling}_hop{max_hop}_{hashlib.sha1(repr(settings).encode()).hexdigest()[:8]}'
  if name in seqio.TaskRegistry.names():
    return name
  store = preprocessors.TrackStore(spec, audio_cache_bytes)
  segment = {'segment_frames': spec.segment_frames}
  tokens = seqio.Feature(vocabularies.vocabulary_from_codec(store.codec), add_eos=False)
  seqio.TaskRegistry.add(
      name,
      source=SlotSource(data_dir, spec),
      preprocessors=[
          *([functools.partial(preprocessors.draw_start_frame, **segment)] if sampling == 'random' else []),
          functools.partial(
              preprocessors.add_prior_segment, **segment, max_hop=max_hop, memory_dropout=memory_dropout
          ),
          functools.partial(
              preprocessors.add_targets, store=store, shuffle_scope=shuffle_scope, on_overflow=on_overflow
          ),
          functools.partial(preprocessors.add_log_mel, store=store, cache_bytes=log_mel_cache_bytes),
      ],
      output_features={
          'inputs': seqio.ContinuousFeature(dtype=tf.float32, rank=2),
          'targets': tokens,
          'prior_targets': tokens,
      },
      shuffle_buffer_size=None,
  )
  return name
