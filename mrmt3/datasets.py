"""MT3's data sets: the locations of their TFRecords and the features of a record (as in MT3; imports TensorFlow).

The file patterns are those of `data.sources.mt3_records`, which reads the same files for our own tasks.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from mrmt3.data.sources.mt3_records import PUBLISHED
from mrmt3.notes.note_sequence_protos import TrackSpec

RECORDS = 'MRMT3_RECORDS'  # environment variable: a folder with a subfolder per data set, named as the data set

_MAESTRO_BUCKET = 'gs://magentadata/datasets/maestro'
_BUCKET = 'gs://mt3/data/datasets'


@dataclasses.dataclass
class InferEvalSplit:
  """An evaluation split.

  Attributes:
    name: key in DatasetConfig.paths.
    suffix: suffix of the task's name.
    include_in_mixture: whether the mixture of all evaluation tasks includes it.
  """

  name: str
  suffix: str
  include_in_mixture: bool = True


@dataclasses.dataclass
class DatasetConfig:
  """A transcription data set of TFRecords.

  Attributes:
    name: prefix of the task names.
    paths: split -> file pattern.
    features: name -> specification of a record's feature.
    train_split: key in `paths` for training.
    train_eval_split: key in `paths` for the loss during training.
    infer_eval_splits: the evaluation splits.
    track_specs: tracks with scores of their own.
  """

  name: str
  paths: Mapping[str, str]
  features: Mapping[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature]
  train_split: str
  train_eval_split: str
  infer_eval_splits: Sequence[InferEvalSplit]
  track_specs: Sequence[TrackSpec] = dataclasses.field(default_factory=list)


def _one(dtype, shape=()):
  return tf.io.FixedLenFeature(list(shape), dtype)


def _many(dtype):
  return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)


_WAV_RECORD = {name: _one(tf.string) for name in ('audio', 'sequence', 'id')}
_SAMPLES_RECORD = {
  'id': _one(tf.string),
  'sample_rate': _one(tf.float32),
  'audio': _many(tf.float32),
  'sequence': _one(tf.string),
}
_URMP_RECORD = {
  **_WAV_RECORD,
  'tracks': _many(tf.int64),
  'inst_names': _many(tf.string),
  'instrument_sequences': _many(tf.string),
}
_STEMS_RECORD = {
  'audio_sample_rate': _one(tf.int64),
  'stems_shape': _one(tf.int64, (2,)),
  'mix': _many(tf.float32),
  'stems': _many(tf.float32),
  **{name: _one(tf.string) for name in ('target_type', 'track_id')},
  **{name: _many(tf.string) for name in ('inst_names', 'note_sequences', 'src_ids')},
  **{name: _many(tf.int64) for name in ('midi_class', 'plugin_name', 'program_num', 'slakh_class')},
}

_ALL_SPLITS = (
  InferEvalSplit('train', 'eval_train'),
  InferEvalSplit('validation', 'validation'),
  InferEvalSplit('test', 'test', include_in_mixture=False),
)
_SUBSETS = (  # large data sets, of which training evaluates only a subset
  InferEvalSplit('train', 'eval_train_full', include_in_mixture=False),
  InferEvalSplit('train_subset', 'eval_train'),
  InferEvalSplit('validation', 'validation_full', include_in_mixture=False),
  InferEvalSplit('validation_subset', 'validation'),
  InferEvalSplit('test', 'test', include_in_mixture=False),
)


def _config(name: str, folder: str, features, splits, track_specs=()) -> DatasetConfig:
  _, paths = PUBLISHED[name]
  return DatasetConfig(
    name=name,
    paths={split: f'{folder}/{pattern}' for split, pattern in paths.items()},
    features=features,
    train_split='train',
    train_eval_split='validation_subset' if splits is _SUBSETS else 'validation',
    infer_eval_splits=list(splits),
    track_specs=list(track_specs),
  )


MAESTROV1_CONFIG = _config('maestrov1', f'{_MAESTRO_BUCKET}/v1.0.0', _WAV_RECORD, _SUBSETS)
MAESTROV3_CONFIG = _config('maestrov3', f'{_MAESTRO_BUCKET}/v3.0.0', _WAV_RECORD, _SUBSETS)
GUITARSET_CONFIG = _config(
  'guitarset', f'{_BUCKET}/guitarset', {**_WAV_RECORD, 'velocity_range': _one(tf.string)}, _ALL_SPLITS[:2]
)
URMP_CONFIG = _config('urmp', f'{_BUCKET}/urmp', _URMP_RECORD, _ALL_SPLITS[:2])
MUSICNET_CONFIG = _config('musicnet', f'{_BUCKET}/musicnet', _SAMPLES_RECORD, _ALL_SPLITS)
MUSICNET_EM_CONFIG = _config('musicnet_em', f'{_BUCKET}/musicnet_em', _SAMPLES_RECORD, _ALL_SPLITS)
CERBERUS4_CONFIG = _config(
  'cerberus4',
  f'{_BUCKET}/cerberus4',
  _STEMS_RECORD,
  _SUBSETS,
  [
    TrackSpec('bass', program=32),
    TrackSpec('drums', is_drum=True),
    TrackSpec('guitar', program=24),
    TrackSpec('piano'),
  ],
)
SLAKH_CONFIG = _config('slakh', f'{_BUCKET}/slakh', _STEMS_RECORD, _SUBSETS)


def local_pattern(name: str, pattern: str) -> str:
  """Map a file pattern in MT3's buckets to local files: the same file names in MRMT3_RECORDS/<name>.

  Without MRMT3_RECORDS, and for patterns elsewhere, the pattern is returned unchanged.
  """
  folder = os.environ.get(RECORDS)
  if not folder or not pattern.startswith((_MAESTRO_BUCKET, _BUCKET)):
    return pattern
  return os.path.join(os.path.expanduser(folder), name, pattern.rpartition('/')[2])
