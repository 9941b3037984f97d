"""Finds a task or mixture by name and reads its examples, of any length, without trimming."""

import contextlib
import dataclasses
import importlib
import inspect
import os
import pkgutil
import re
import sys
import time
from collections.abc import Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

import gin
from mrmt3 import datasets, spectrograms, vocabularies
from mrmt3.config import ModelSpec
from mrmt3.data import catalogue, examples, seqio_preprocessors
from mrmt3.data.example_config import GRID, NO_PRIOR, PIECES
from mrmt3.engine import gin_utils, names, utils
from mrmt3.errors import UserError
from mrmt3.inspection import statistics as inspection_statistics
from mrmt3.notes.instruments import instruments_of
from mrmt3.special_tokens import SPECIAL_TOKENS
from mrmt3.tasks.mt3 import RecordsSource
from mrmt3.tasks.registration import LIBRARIES

DEFAULT_GIN = 'models/mr_mt3.gin'
LONGEST = 1 << 15  # tokens; longer than any segment, and arrays of this length are still small
_SCOPE = 'inspected'
_ANY_TASK = 'dataset'  # module of mrmt3.tasks whose task reads any data set of the catalogue
_HEADER = 'from __gin__ import dynamic_registration\nfrom mrmt3.inspection import task_reader'
_FIELDS = ('split', 'piece', 'index', 'frames', 'seed', 'start_frame', 'num_frames', 'hop', 'prior_starts')


@dataclasses.dataclass(frozen=True)
class Found:
  """A task or mixture, and what is needed to interpret its examples.

  Attributes:
    name: its name in seqio.
    task: the seqio Task or Mixture.
    libraries: libraries of its tasks that use `tasks.registration`.
    spec: front end, vocabulary and segment length.
    split: the split to read.
    limit: maximum number of tokens that the model accepts.
    use_cached: whether to read the task's cache.
  """

  name: str
  task: Any
  libraries: tuple[examples.Library, ...]
  spec: ModelSpec
  split: str
  limit: int
  use_cached: bool = False

  @property
  def codec(self):
    """The codec of the tokens."""
    return vocabularies.build_codec(self.spec.vocabulary)

  @property
  def config(self):
    """The ExampleConfig of the task (of the first task of a mixture), None if it has none."""
    return self.libraries[0].config if self.libraries else None


def task_modules() -> list[str]:
  """Return the names of the modules of mrmt3.tasks that declare a `task`, sorted."""
  import mrmt3.tasks

  found = sorted(module.name for module in pkgutil.iter_modules(mrmt3.tasks.__path__))
  return [name for name in found if hasattr(importlib.import_module(f'mrmt3.tasks.{name}'), 'task')]


def find(
  name: str,
  *,
  data: str | None = None,
  split: str | None = None,
  limit: int | None = None,
  modules: Sequence[str] = (),
  gin_files: Sequence[str] = (),
  gin_bindings: Sequence[str] = (),
  gin_search_paths: str = '',
  main_module: ModuleType | None = None,
) -> Found:
  """Return the task or mixture of a name. Replaces gin's configuration.

  Args:
    name: a name registered with seqio; a data set of a training's gin files ('train' for train/utils.DatasetConfig);
      or, with `data`, a module of mrmt3.tasks or a task of `catalogue.sources`.
    data: data_dir of the module's `task`, whose other arguments are bound by gin. For MT3's tasks, the folder with a
      folder per data set (it is stored in the environment variable MRMT3_RECORDS).
    split: 'train', ...; None: the training's split, or 'train'.
    limit: maximum number of tokens; None: the training's limit, or the model's.
    modules: modules to import first, so that they can register tasks.
    gin_files: gin files, as in training; none: DEFAULT_GIN.
    gin_bindings: NAME=VALUE, as in training's --gin.NAME=VALUE.
    gin_search_paths: as in training.
    main_module: what the gin files import as `__main__`: `mrmt3.train` for those of a training run. None leaves the
      module that was started.

  Raises:
    UserError: the name is unknown, or the task's targets do not match the model's vocabulary.
  """
  for module in ('mrmt3.tasks', *modules):
    _import(module)
  is_registered = name in seqio.TaskRegistry.names() or name in seqio.MixtureRegistry.names()
  if is_registered and data is not None and reads_records(name):
    os.environ[datasets.RECORDS], data = str(data), None
  if is_registered and data is None:
    chosen = SimpleNamespace(task=name, dataset_cfg=None, spec=None)
    if not set(_task_names(name)) <= LIBRARIES.keys():
      chosen.spec = _from_gin('', gin_files, gin_bindings, gin_search_paths, main_module).spec
  else:
    declaration = _declaration(name, data, bool(gin_files))
    chosen = _from_gin(declaration, gin_files, gin_bindings, gin_search_paths, main_module)
  cfg = chosen.dataset_cfg
  if cfg is not None and cfg.module:
    _import(cfg.module)
  task = chosen.task if cfg is None else cfg.mixture_or_task_name
  try:
    task = seqio.get_mixture_or_task(task) if isinstance(task, str) else task
  except ValueError as error:
    raise UserError(f'there is no task or mixture {task!r}; check the name, or register it with --module') from error
  parts = _task_names(task.name)
  libraries = tuple(LIBRARIES[part] for part in parts if part in LIBRARIES)
  spec = libraries[0].spec if libraries else chosen.spec
  if limit is None:
    limit = spec.targets_length if cfg is None else cfg.task_feature_lengths['targets']
  split = split or (cfg.split if cfg is not None else 'train')
  found = Found(task.name, task, libraries, spec, split, int(limit), cfg is not None and cfg.use_cached)
  _check(found)
  return found


def reads_records(name: str) -> bool:
  """Whether a registered task or mixture reads MT3's records from the folder MRMT3_RECORDS."""
  return any(isinstance(seqio.TaskRegistry.get(part).source, RecordsSource) for part in _task_names(name))


def _import(module):
  try:
    importlib.import_module(module)
  except Exception as error:  # a user's module can raise anything
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'cannot import the module {module}: {reason}') from error


def _task_names(name):
  return [task.name for task in seqio.get_subtasks(seqio.get_mixture_or_task(name))]


def _declaration(name, data, is_run):
  """Return gin text that binds the task or data set of a name; UserError for an unknown name."""
  if data is None and is_run:
    return f'from t5x import utils\ntask_reader.chosen.dataset_cfg = @{_identifier(name)}/utils.DatasetConfig()\n'
  known = sorted({*task_modules(), *catalogue.sources()})
  if name not in known:
    raise UserError(
      f'unknown task {name!r}; choose one of {", ".join(known)} (with --data), a data set of gin files such as train '
      '(with --gin_file), or a task registered with seqio (with --module)'
    )
  if data is None:
    raise UserError(f'{name} needs its data: add --data DIR')
  values = {'data_dir': repr(data), 'spec': '%SPEC', 'examples': '@example_config.ExampleConfig()'}
  module = name
  if name not in task_modules():
    module, values = _ANY_TASK, {'name': repr(name), **values}
  arguments = inspect.signature(importlib.import_module(f'mrmt3.tasks.{module}').task).parameters
  bound = [f'{_SCOPE}/{module}.task.{field} = {value}' for field, value in values.items() if field in arguments]
  lines = [
    f'from mrmt3.tasks import {module}',
    'from mrmt3.data import example_config',
    f'task_reader.chosen.task = @{_SCOPE}/{module}.task()',
    *bound,
  ]
  return '\n'.join(lines) + '\n'


def _identifier(name):
  if not name.isidentifier():
    raise UserError(f'the gin files have no data set {name!r}; a training has train and train_eval')
  return name


def chosen(task=None, dataset_cfg=None, spec=None) -> SimpleNamespace:
  """Hold gin's values for a name: a task's name or a utils.DatasetConfig, and the ModelSpec."""
  return SimpleNamespace(task=task, dataset_cfg=dataset_cfg, spec=spec)


def _from_gin(declaration, gin_files, gin_bindings, gin_search_paths, main_module=None):
  """Parse the declaration, the files and the bindings (later ones take precedence) and return `chosen`."""
  argv = [f'--gin_file={file}' for file in gin_files or [DEFAULT_GIN]] + [
    f'--gin.{binding}' for binding in gin_bindings
  ]
  flags = gin_utils.parse_flags([*argv, f'--gin_search_paths={gin_search_paths}'], 'mrmt3 inspect', '')
  gin_utils.check_files(flags)
  names.use_own_engine()
  gin.clear_config()
  with _as_main(main_module or sys.modules['__main__']):
    gin.parse_config(f'{_HEADER}\n{declaration}task_reader.chosen.spec = %SPEC\n')
    gin_utils.parse_config(flags, complete=False)
  if 'utils.DatasetConfig' in declaration:
    _require_dataset(declaration.rsplit('@', 1)[1].split('/')[0], gin_files)
  # Only the task and the spec must be bound. Other required macros (an optimizer, a model_dir) raise an error if used.
  missing = [
    f'{name} = @{name}/task_reader.unset()' for name in re.findall(r'^(\w+) = %gin.REQUIRED$', gin.config_str(), re.M)
  ]
  gin.parse_config('\n'.join([_HEADER, *missing]))
  try:
    return gin_utils.call(gin.get_configurable(chosen))
  except UserError as error:
    raise UserError(gin_utils.one_line(error)) from error


def unset():
  """Raise a UserError for an unset gin macro. Its gin scope is the macro's name."""
  name = gin.current_scope_str().split('/')[-1]
  raise UserError(f'gin: {name} is not set; add --gin.{name}=VALUE')


def _require_dataset(name, gin_files):
  try:
    gin.query_parameter(f'{name}/utils.DatasetConfig.mixture_or_task_name')
  except ValueError as error:
    raise UserError(
      f'{", ".join(gin_files)} has no data set {name!r}: bind {name}/utils.DatasetConfig.mixture_or_task_name, or add '
      '--data DIR to inspect a module of tasks/'
    ) from error


@contextlib.contextmanager
def _as_main(module: ModuleType) -> Iterator[None]:
  """Make `module` the one that gin files import as `__main__`, for as long as they are parsed."""
  main = sys.modules['__main__']
  sys.modules['__main__'] = module
  try:
    yield
  finally:
    sys.modules['__main__'] = main


def _check(found):
  splits = [split for part in _task_names(found.name) for split in seqio.TaskRegistry.get(part).splits]
  if found.split not in splits:
    raise UserError(f'{found.name} has no split {found.split!r}; it has {", ".join(dict.fromkeys(splits))}')
  if 'targets' not in found.task.output_features:
    raise UserError(f'{found.name} has no targets; its features are {", ".join(found.task.output_features)}')
  vocabulary = found.task.output_features['targets'].vocabulary
  size, wanted = vocabulary.vocab_size - vocabulary.extra_ids, SPECIAL_TOKENS + found.codec.num_classes
  if size != wanted:
    raise UserError(
      f"{found.name}: the targets' vocabulary has {size} ids, the model's has {wanted}; pass the model's --gin_file, "
      'or bind vocabularies.VocabularyConfig'
    )


@dataclasses.dataclass(frozen=True)
class Shown:
  """A segment to plot and play.

  Attributes:
    segment: its tokens.
    log_mel: float32 `[frames, mel]`; None if the task provides neither log-mels nor samples.
    prior_log_mel: log-mel of the latest prior segment; None if it is unknown or missing.
    samples: float32 `[n]`; None if the task provides only log-mels.
  """

  segment: inspection_statistics.Segment
  log_mel: np.ndarray | None
  prior_log_mel: np.ndarray | None
  samples: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Reading:
  """The outcome of `read`.

  Attributes:
    segments: segments of all examples.
    shown: segments to plot and play.
    features: name -> (dtype, smallest and largest shape, whether the task declares it); tokens without padding.
    examples: number of examples.
    total: number of examples per epoch; None if it is unknown.
    seconds: time for all examples except the first one.
  """

  segments: list[inspection_statistics.Segment]
  shown: list[Shown]
  features: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], bool]]
  examples: int
  total: int | None
  seconds: float

  @property
  def rate(self) -> float | None:
    """Examples per second, without the first one, which includes one-time setup; None for a single example."""
    return (self.examples - 1) / self.seconds if self.examples > 1 and self.seconds > 0 else None


def read(found: Found, count: int, shown: int, seed: int = 0) -> Reading:
  """Read examples in random order. Long examples are not skipped.

  Args:
    found: the task.
    count: maximum number of examples. Tasks that draw no random segments provide at most one epoch.
    shown: number of segments to keep for plots and audio.
    seed: seed of the order and of all random draws.

  Raises:
    UserError: the data cannot be read, or there are no examples.
  """
  dataset = _dataset(found, seed)
  prior_segments = found.config.prior_segments if found.config else 1
  codec, length = found.codec, found.spec.segment_frames
  segments, kept, features, done = [], [], {}, 0
  begin = time.perf_counter()
  for example in _iterate(dataset.take(count), found.name):
    begin = begin if done else time.perf_counter()
    done += 1
    _note_features(features, example, found.task.output_features, prior_segments)
    own = inspection_statistics.segments_of(example, codec, length, prior_segments)
    segments += own
    if len(kept) < shown:
      # Spread over the whole piece, to show more than its beginning.
      number = min(shown - len(kept), len(own))
      kept += [
        (example, own[place], place) for place in ((2 * np.arange(number) + 1) * len(own) // (2 * number)).tolist()
      ]
  seconds = time.perf_counter() - begin
  if not segments:
    raise UserError(f'{found.name} has no examples in the split {found.split!r}; choose another --split')
  return Reading(segments, [_shown(found, *one) for one in kept], features, done, _epoch(found), seconds)


def _dataset(found, seed):
  lengths = {'inputs': found.spec.segment_frames, 'targets': LONGEST, 'prior_targets': LONGEST}
  if found.config:
    lengths['prior_targets'] *= found.config.prior_segments
  # Random segments differ in each epoch, so a small data set is read several times.
  epochs = None if found.config and found.config.sampling not in (GRID, PIECES) else 1
  options = {
    'split': found.split,
    'shuffle': True,
    'seed': seed,
    'num_epochs': epochs,
    'trim_output_features': False,
    'use_cached': found.use_cached,
  }
  if isinstance(found.task, seqio.Mixture) and len(found.libraries) == len(_task_names(found.name)):
    options['passthrough_features'] = _FIELDS
  try:
    return found.task.get_dataset(lengths, **options)
  except (ValueError, tf.errors.OpError) as error:
    raise UserError(f'{found.name}: {gin_utils.one_line(error)}') from error


def _iterate(dataset, name):
  try:
    yield from utils.iterate(dataset)
  except tf.errors.OpError as error:
    lines = [line for line in error.message.splitlines() if line.strip()] or [type(error).__name__]
    raise UserError(f'{name}: {lines[0].strip()}') from error


def _note_features(features, example, output_features, prior_segments):
  for name, value in example.items():
    value = np.asarray(value)
    shape = value.shape
    if name in ('targets', 'prior_targets'):
      # Padding to LONGEST comes from this module, so report lengths without padding.
      rows = value.reshape(prior_segments if name == 'prior_targets' else len(value) if value.ndim == 2 else 1, -1)
      longest = max((len(inspection_statistics.without_padding(row)) for row in rows), default=0)
      shape = (*shape[:-1], longest * (len(rows) if value.ndim == 1 else 1))
    _, low, high, _ = features.get(name, (None, shape, shape, None))
    dtype = 'string' if value.dtype == object or value.dtype.kind == 'S' else value.dtype.name
    if len(low) == len(shape):
      low, high = tuple(map(min, low, shape)), tuple(map(max, high, shape))
    features[name] = dtype, low, high, name in output_features


def _epoch(found):
  """Return the number of examples per epoch, None if that would require reading all of them."""
  if isinstance(found.task, seqio.Mixture) or not found.libraries:
    return None
  return found.task.source.num_records(found.split)


def instruments_of_pieces(found: Found) -> list[list[tuple[int, bool]]] | None:
  """Return the instruments of each piece of the split; None if the pieces are unknown."""
  if not found.libraries or len(found.libraries) != len(_task_names(found.name)):
    return None
  stores = [library.open(found.split)[0] for library in found.libraries if found.split in library.source.splits()]
  return [instruments_of(store.notes(index)) for store in stores for index in range(len(store))]


def _shown(found, example, segment, place):
  library, spec = _library_of(found, example), found.spec
  inputs = np.asarray(example['inputs'])
  inputs = inputs[place] if inputs.ndim == 3 else inputs
  has_samples = library.config.log_mel_on == 'device' if library else inputs.shape[-1] == spec.spectrogram.hop_width
  samples = inputs.reshape(-1) if has_samples else None
  prior_samples = None
  if library is not None:
    if library.config.sampling == PIECES:
      part = examples.Part(int(example['index']), segment.start_frame)
      split, window = found.split, examples.Window((part,), spec.segment_frames)
    else:
      split, window = seqio_preprocessors.example_window(library, example)
    samples = library.samples(split, window).reshape(-1)
    if segment.prior_starts[-1] != NO_PRIOR:
      prior_samples = library.samples(split, window, segment.prior_starts[-1], spec.segment_frames).reshape(-1)
  is_log_mel = inputs.ndim == 2 and inputs.shape[-1] == spec.spectrogram.num_mel_bins and not has_samples
  log_mel = inputs if is_log_mel else _log_mel(samples, spec)
  return Shown(segment, log_mel, _log_mel(prior_samples, spec), samples)


def _log_mel(samples, spec):
  return None if samples is None else spectrograms.compute_spectrogram(samples, spec.spectrogram)


def _library_of(found, example):
  """Return the library of an example, None if it has none."""
  if not {'piece', 'index', 'frames'} <= example.keys():
    return None
  for library in found.libraries:
    if found.split in library.source.splits():
      store, index = library.open(found.split)[0], int(example['index'])
      if index < len(store) and store.names[index].encode() == example['piece']:
        return library
  return None
