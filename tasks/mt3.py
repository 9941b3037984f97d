"""MT3's seqio tasks and mixtures, with MT3's names, which `mrmt3.tasks` re-exports.

A training task maps a record to audio frames and the piece's tokens, splits them into chunks of 2000 frames (which can
be cached), selects a random segment with its targets, and computes the log-mel. Evaluation tasks split pieces into
consecutive segments; the metrics join their predictions.

MT3 reads records from its own buckets. If the environment variable MRMT3_RECORDS is set, they are read from this folder
instead, which has a subfolder per data set, as `mrmt3 dataset convert` writes it. `mrmt3 dataset cache` writes caches,
which `--seqio_additional_cache_dirs` adds.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping

import seqio
import tensorflow as tf

from mrmt3 import (
  datasets,
  metrics,
  mixing,
  preprocessors,
  run_length_encoding,
  spectrograms,
  vocabularies,
)
from mrmt3.data.mt3_postprocessing import postprocess, trim_eos  # noqa: F401 - MT3 has trim_eos here
from mrmt3.data.records.tfrecord import find_records
from mrmt3.errors import UserError
from mrmt3.event_codec import Event

MAX_NUM_CACHED_FRAMES = 2000
SPECTROGRAM_CONFIG = spectrograms.SpectrogramConfig()
VOCAB_CONFIG_FULL = vocabularies.VocabularyConfig()
VOCAB_CONFIG_NOVELOCITY = vocabularies.VocabularyConfig(num_velocity_bins=1)


def construct_task_name(
  task_prefix: str,
  spectrogram_config: spectrograms.SpectrogramConfig = SPECTROGRAM_CONFIG,
  vocab_config: vocabularies.VocabularyConfig = VOCAB_CONFIG_FULL,
  task_suffix: str | None = None,
) -> str:
  """Return a task's name, e.g. 'slakh_notes_ties_vb1_train': prefix, differences from the default configs, suffix."""
  parts = (task_prefix, spectrogram_config.abbrev_str, vocab_config.abbrev_str, task_suffix)
  return '_'.join(part for part in parts if part)


class RecordsSource(seqio.TFExampleDataSource):
  """A data set's records: local files if MRMT3_RECORDS is set (see `datasets.local_pattern`), else MT3's buckets."""

  def __init__(self, dataset_config: datasets.DatasetConfig, split_to_filepattern: Mapping[str, str]):
    super().__init__(dict(split_to_filepattern), dataset_config.features)
    self._name = dataset_config.name
    self._patterns = dict(split_to_filepattern)

  def list_shards(self, split: str) -> list[str]:
    """Return the split's files, sorted; UserError if there are none."""
    pattern = datasets.local_pattern(self._name, self._patterns[split])
    try:
      files = sorted(tf.io.gfile.glob(pattern))
    except tf.errors.OpError:
      files = []
    if not files:
      raise UserError(
        f'{self._name}: no files {pattern}; set {datasets.RECORDS}=DIR to the folder that contains the folder '
        f'{self._name} (`mrmt3 dataset` lists where to get the data sets)'
      )
    return files

  def count_records(self, split: str) -> int:
    """Return the number of records; UserError if the files are not local."""
    files = self.list_shards(split)
    if any('://' in file for file in files):
      raise UserError(
        f'{self._name}: records can only be counted in local files; cache the task, or set {datasets.RECORDS}'
      )
    return sum(len(find_records(pathlib.Path(file))) for file in files)


def add_transcription_task_to_registry(
  dataset_config: datasets.DatasetConfig,
  spectrogram_config: spectrograms.SpectrogramConfig,
  vocab_config: vocabularies.VocabularyConfig,
  tokenize_fn: Callable[..., tf.data.Dataset],
  onsets_only: bool,
  include_ties: bool,
  skip_too_long: bool = False,
) -> None:
  """Register a data set's training task (suffix 'train'), evaluation tasks, and their mixture (suffix 'eval').

  Args:
    dataset_config: the data set.
    spectrogram_config: spectrogram config.
    vocab_config: vocabulary config.
    tokenize_fn: one of the tokenize_* functions of `preprocessors`, with its own arguments bound.
    onsets_only: whether the tokens encode onsets only.
    include_ties: whether targets begin with a tie section.
    skip_too_long: whether to drop training examples that are too long, instead of raising an error.
  """
  codec = vocabularies.build_codec(vocab_config)
  features = {
    'targets': seqio.Feature(vocabularies.vocabulary_from_codec(codec)),
    'inputs': seqio.ContinuousFeature(dtype=tf.float32, rank=2),
  }
  name = functools.partial(
    construct_task_name,
    f'{dataset_config.name}_{"onsets" if onsets_only else "notes"}{"_ties" if include_ties else ""}',
    spectrogram_config,
    vocab_config,
  )
  tokenize = functools.partial(
    tokenize_fn, spectrogram_config=spectrogram_config, codec=codec, onsets_only=onsets_only, include_ties=include_ties
  )
  log_mel = functools.partial(preprocessors.compute_spectrograms, spectrogram_config=spectrogram_config)
  append_eos = functools.partial(seqio.preprocessors.tokenize_and_append_eos, copy_pretokenized=False)
  paths = dataset_config.paths

  def source(**splits):
    return RecordsSource(dataset_config, {k: paths[split] for k, split in splits.items()})

  seqio.TaskRegistry.add(
    name('train'),
    source=source(train=dataset_config.train_split, eval=dataset_config.train_eval_split),
    output_features=features,
    preprocessors=[
      functools.partial(tokenize, is_training_data=True),
      *_random_segment(codec, include_ties),
      log_mel,
      functools.partial(preprocessors.handle_too_long, skip=skip_too_long),
      append_eos,
    ],
    metric_fns=[],
  )
  in_mixture = []
  for split in dataset_config.infer_eval_splits:
    seqio.TaskRegistry.add(
      name(split.suffix),
      source=source(eval=split.name),
      output_features=features,
      preprocessors=[
        functools.partial(tokenize, is_training_data='train' in split.name),
        *_consecutive_segments(),
        log_mel,
        preprocessors.handle_too_long,
        append_eos,
      ],
      postprocess_fn=functools.partial(postprocess, codec=codec),
      metric_fns=[
        functools.partial(
          metrics.transcription_metrics,
          codec=codec,
          spectrogram_config=spectrogram_config,
          onsets_only=onsets_only,
          use_ties=include_ties,
          track_specs=dataset_config.track_specs or None,
        )
      ],
    )
    in_mixture += [name(split.suffix)] if split.include_in_mixture else []
  seqio.MixtureRegistry.add(name('eval'), in_mixture, default_rate=1)


def _random_segment(codec, include_ties) -> list[Callable]:
  """Return the preprocessors from a tokenized piece to a random segment with its targets."""
  cut = {
    'feature_key': 'inputs',
    'additional_feature_keys': ['input_event_start_indices', 'input_event_end_indices', 'input_state_event_indices'],
    'passthrough_feature_keys': ['targets', 'state_events'],
  }
  tie = codec.encode_event(Event('tie', 0)) if include_ties else None
  return [
    functools.partial(preprocessors.split_tokens, max_tokens_per_segment=MAX_NUM_CACHED_FRAMES, **cut),
    seqio.CacheDatasetPlaceholder(),
    functools.partial(preprocessors.select_random_chunk, uniform_random_start=True, **cut),
    functools.partial(run_length_encoding.extract_target_sequence_with_indices, state_events_end_token=tie),
    functools.partial(preprocessors.map_midi_programs, codec=codec),
    run_length_encoding.run_length_encode_shifts_fn(codec),
    functools.partial(mixing.mix_transcription_examples, codec=codec),
    run_length_encoding.remove_redundant_state_changes_fn(
      codec, state_change_event_types=run_length_encoding.STATE_CHANGE_TYPES
    ),
  ]


def _consecutive_segments() -> list[Callable]:
  """Return the preprocessors from a tokenized piece to its segments, without targets: the metrics use the notes."""
  return [
    seqio.CacheDatasetPlaceholder(),
    preprocessors.add_unique_id,
    preprocessors.pad_notesequence_array,
    functools.partial(
      preprocessors.split_tokens_to_inputs_length,
      feature_key='inputs',
      additional_feature_keys=['input_times', 'sequence'],
      passthrough_feature_keys=['unique_id'],
    ),
    preprocessors.add_dummy_targets,
  ]


_WAV = functools.partial(preprocessors.tokenize_transcription_example, audio_is_samples=False, id_feature_key='id')
_SAMPLES = functools.partial(preprocessors.tokenize_transcription_example, audio_is_samples=True, id_feature_key='id')
_URMP = functools.partial(
  preprocessors.tokenize_example_with_program_lookup,
  inst_name_to_program_fn=preprocessors.urmp_instrument_to_program,
  id_feature_key='id',
)
_STEMS = functools.partial(preprocessors.tokenize_slakh_example, ignore_pitch_bends=True)

for _config, _vocab_config, _tokenize_fn, _include_ties in (
  (datasets.MAESTROV1_CONFIG, VOCAB_CONFIG_FULL, _WAV, False),
  (datasets.MAESTROV3_CONFIG, VOCAB_CONFIG_FULL, _WAV, False),
  (datasets.MAESTROV3_CONFIG, VOCAB_CONFIG_NOVELOCITY, _WAV, True),
  (datasets.GUITARSET_CONFIG, VOCAB_CONFIG_NOVELOCITY, preprocessors.tokenize_guitarset_example, True),
  (datasets.URMP_CONFIG, VOCAB_CONFIG_NOVELOCITY, _URMP, True),
  (datasets.MUSICNET_CONFIG, VOCAB_CONFIG_NOVELOCITY, _SAMPLES, True),
  (datasets.MUSICNET_EM_CONFIG, VOCAB_CONFIG_NOVELOCITY, _SAMPLES, True),
  (
    datasets.CERBERUS4_CONFIG,
    VOCAB_CONFIG_NOVELOCITY,
    functools.partial(_STEMS, track_specs=datasets.CERBERUS4_CONFIG.track_specs),
    True,
  ),
  (datasets.SLAKH_CONFIG, VOCAB_CONFIG_NOVELOCITY, functools.partial(_STEMS, track_specs=None), True),
):
  add_transcription_task_to_registry(
    _config, SPECTROGRAM_CONFIG, _vocab_config, _tokenize_fn, onsets_only=False, include_ties=_include_ties
  )

MIXTURE_DATASET_NAMES = ['maestrov3', 'guitarset', 'urmp', 'musicnet_em', 'cerberus4', 'slakh']
MIXING_TEMPERATURE = 10 / 3


def _ties_name(dataset_name, suffix):
  return construct_task_name(f'{dataset_name}_notes_ties', SPECTROGRAM_CONFIG, VOCAB_CONFIG_NOVELOCITY, suffix)


MIXTURE_TRAIN_TASK_NAMES = [_ties_name(name, 'train') for name in MIXTURE_DATASET_NAMES]
MIXTURE_EVAL_TASK_NAMES = [_ties_name(name, 'validation') for name in MIXTURE_DATASET_NAMES]
MIXTURE_TEST_TASK_NAMES = []


def _mixing_rate(task: seqio.Task, split: str) -> float:
  """Return a task's mixing rate, from the number of examples in its cache, or of its records if there is no cache.

  The source does not report the number to seqio, which would then keep small data sets, with their audio, in memory.
  """
  if task.cache_dir:
    return seqio.mixing_rate_num_examples(task, temperature=MIXING_TEMPERATURE, split=split)
  return float(task.source.count_records(split)) ** (1 / MIXING_TEMPERATURE)


for _suffix, _names, _split in (
  ('train', MIXTURE_TRAIN_TASK_NAMES, 'train'),
  ('eval', MIXTURE_EVAL_TASK_NAMES, 'eval'),
):
  seqio.MixtureRegistry.add(
    _ties_name('mega', _suffix),
    _names,
    default_rate=functools.partial(_mixing_rate, split=_split),
  )
