"""Caching of seqio tasks: the steps before the cache placeholder run once, and every training run reads the result.

seqio does the work (`seqio.beam_utils`, `seqio_cache_tasks`) on Apache Beam. By default Beam runs in this process and
holds all data that it shuffles in memory, so a split is processed in parts. Other runners process a split as a whole.
To read a cache, pass `--seqio_additional_cache_dirs=DIR` and set `utils.DatasetConfig.use_cached = True`. Requires the
extra `cache`.
"""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.utils.files import make_folder

# DirectRunner can be an alias of a runner that downloads a program and starts it as a server.
IN_PROCESS = '--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner'
PART_BYTES = 128_000_000  # size of the source files processed at once in this process


@dataclasses.dataclass(frozen=True)
class Cached:
  """A cached task.

  Attributes:
    task: its name.
    folder: path of its cache, as text, because it can be on another machine.
    examples: split -> number of examples; empty if the cache is on another machine.
    size: size of the cache in bytes; 0 if it is on another machine.
  """

  task: str
  folder: str
  examples: dict[str, int]
  size: int


def cache(
  tasks: Sequence[str],
  folder: str,
  *,
  modules: Sequence[str] = (),
  pipeline_options: Sequence[str] = (),
  min_shards: int = 64,
  seed: int | None = None,
  overwrite: bool = False,
  part_bytes: int = PART_BYTES,
) -> list[Cached]:
  """Cache tasks, each one atomically, and return the new caches. Tasks that are cached in `folder` are skipped.

  Args:
    tasks: registered names.
    folder: parent folder of all caches: a local path, or a path that Beam and TensorFlow can open (gs://...).
    modules: names of the modules that register the tasks. The caller has imported them, and Beam's workers will.
    pipeline_options: Beam's options, e.g. '--runner=DataflowRunner'. Without a runner, Beam runs in this process.
    min_shards: minimum number of files per split, so that training can shuffle them.
    seed: seed of the steps before the placeholder. None or 0: it follows from the names of the task and its files.
    overwrite: whether to replace caches in `folder`.
    part_bytes: size of the source files to process at once in this process, bytes; memory grows with it.

  Raises:
    UserError: a task is unknown or cannot be cached, its data is missing, or the disk is full.
  """
  import seqio
  from seqio.scripts import cache_tasks_main as tool  # needs apache_beam

  _check(tasks, min_shards)
  has_runner = any(option.partition('=')[0] == '--runner' for option in pipeline_options)
  is_local = '://' not in folder
  if not (is_local or has_runner):
    raise UserError(f'{folder} is not on this machine; choose a local folder, or a Beam runner that can write there')
  done = {task for task in tasks if not overwrite and is_local and is_cached(Path(folder), task)}
  missing = [task for task in dict.fromkeys(tasks) if task not in done]
  if not missing:
    return []
  folder = str(make_folder(os.path.expanduser(folder))) if is_local else folder
  logging.getLogger('apache_beam').setLevel(logging.ERROR)
  target = tempfile.mkdtemp(prefix='.cache.', dir=folder) if is_local else folder
  try:
    with _short_errors():
      if has_runner:
        tool.FLAGS(['mrmt3', f'--min_shards={min_shards}', f'--base_seed={seed or -1}'])
        _run_as_seqio(tool, missing, target, modules, pipeline_options, overwrite and not is_local)
      else:
        for task in missing:
          _run_in_parts(task, Path(target), modules, pipeline_options, min_shards, seed, part_bytes)
    if is_local:
      for task in missing:
        _move(Path(target), Path(folder), seqio.get_task_dir_from_name(task))
  finally:
    if is_local:
      shutil.rmtree(target, ignore_errors=True)
  return [_describe(task, os.path.join(folder, seqio.get_task_dir_from_name(task)), is_local) for task in missing]


def is_cached(folder: Path, task: str) -> bool:
  """Whether a local folder has a complete cache of a task."""
  import seqio

  return (folder.expanduser() / seqio.get_task_dir_from_name(task) / 'COMPLETED').is_file()


def _check(tasks, min_shards):
  import seqio

  if min_shards < 1:
    raise UserError(f'min_shards is {min_shards}; it must be 1 or more')
  for name in tasks:
    if name in seqio.MixtureRegistry.names():
      parts = ', '.join(task.name for task in seqio.MixtureRegistry.get(name).tasks)
      raise UserError(f'{name} is a mixture, which cannot be cached; cache its tasks: {parts}')
    if name not in seqio.TaskRegistry.names():
      raise UserError(f'there is no task {name!r}; register your own tasks in a module and pass it with --module')
    if not seqio.TaskRegistry.get(name).supports_caching:
      raise UserError(
        f'{name} cannot be cached: it has no cache placeholder. The tasks in tasks/ cache decoded pieces themselves; '
        "MT3's tasks, such as slakh_notes_ties_vb1_train, can be cached"
      )


@contextlib.contextmanager
def _short_errors():
  """Turn errors of reading, writing and Beam into a UserError of one line."""
  import tensorflow as tf

  try:
    yield
  except UserError:
    raise
  except (OSError, tf.errors.OpError) as error:
    reason = getattr(error, 'strerror', None) or getattr(error, 'message', None) or error
    raise UserError(f'cannot make the cache: {" ".join(str(reason).split())[:300]}') from error
  except Exception as error:  # Beam wraps a step's error and appends its own text
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(f'cannot make the cache: {" ".join(lines[0].split())[:300]}') from error


def _run_as_seqio(tool, tasks, folder, modules, pipeline_options, overwrite):
  import apache_beam as beam
  import seqio
  from apache_beam.options.pipeline_options import PipelineOptions

  before = seqio.get_global_cache_dirs()
  seqio.add_global_cache_dirs([folder])
  try:
    with beam.Pipeline(options=PipelineOptions(list(pipeline_options))) as pipeline:
      tool.run_pipeline(
        pipeline, tasks, folder, modules_to_import=modules, overwrite=overwrite, ignore_other_caches=True
      )
  finally:
    seqio.set_global_cache_dirs(before)


def _run_in_parts(name, folder, modules, pipeline_options, min_shards, seed, part_bytes):
  """Write a task's cache as in `seqio_cache_tasks`, one part of the source files at a time."""
  import seqio
  from seqio import beam_utils

  task = seqio.TaskRegistry.get(name)
  made = folder / seqio.get_task_dir_from_name(name)
  made.mkdir(parents=True)
  for split in task.splits:
    step = beam_utils.PreprocessTask(task, split, modules_to_import=modules, preprocessors_seed=seed)
    parts = _parts(step.shards, part_bytes)
    counts = [max(len(part), -(-min_shards * len(part) // len(step.shards))) for part in parts]
    for number, (part, count) in enumerate(zip(parts, counts, strict=True)):
      _run_part(step, task, part, made / f'part{number}', count, pipeline_options)
    _join(made, len(parts), split)
  (made / 'COMPLETED').touch()


def _parts(shards, part_bytes):
  """Return groups of (number, file) with at most `part_bytes` each, or a single file. Missing files count 0 bytes."""
  parts, size = [[]], 0
  for number, shard in shards:
    own = os.path.getsize(shard) if os.path.isfile(shard) else 0
    if parts[-1] and size + own > part_bytes:
      parts.append([])
      size = 0
    parts[-1].append((number, shard))
    size += own
  return parts


def _run_part(step, task, shards, folder, count, pipeline_options):
  """Write `folder` with `count` files of examples, info.json and stats.json."""
  import apache_beam as beam
  from apache_beam.options.pipeline_options import PipelineOptions
  from seqio import beam_utils

  with beam.Pipeline(options=PipelineOptions([*pipeline_options, IN_PROCESS])) as pipeline:
    # The same transforms as in the step's own `expand`, for some of its files.
    examples = pipeline | beam.Create(shards) | beam.FlatMap(step._emit_examples) | beam.Reshuffle()
    _ = examples | 'records' >> beam_utils.WriteExampleTfRecord(str(folder / 'examples'), num_shards=count)
    info = examples | 'info' >> beam_utils.GetInfo(count)
    _ = info | 'write info' >> beam_utils.WriteJson(str(folder / 'info.json'))
    stats = examples | 'stats' >> beam_utils.GetStats(task.output_features)
    _ = stats | 'write stats' >> beam_utils.WriteJson(str(folder / 'stats.json'))


def _join(made: Path, parts: int, split: str):
  """Merge the parts' files under the names that seqio expects."""
  import seqio

  folders = [made / f'part{number}' for number in range(parts)]
  files = [file for folder in folders for file in sorted(folder.glob('examples-*'))]
  prefix = seqio.get_cached_tfrecord_prefix(str(made), split)
  for number, file in enumerate(files):
    file.rename(f'{prefix}-{number:05d}-of-{len(files):05d}')
  infos = [json.loads((folder / 'info.json').read_text('utf-8')) for folder in folders]
  info = next((info for info in infos if info), None)
  if info is None:
    raise UserError(f'the split {split!r} has no examples; check the source files of the task')
  total = {}
  for folder in folders:
    for name, value in json.loads((folder / 'stats.json').read_text('utf-8')).items():
      total[name] = max(total.get(name, 0), value) if '_max_' in name else total.get(name, 0) + value
  info['num_shards'] = len(files)
  Path(seqio.get_cached_info_path(str(made), split)).write_text(
    json.dumps(info, sort_keys=True, indent=2) + '\n', 'utf-8'
  )
  Path(seqio.get_cached_stats_path(str(made), split)).write_text(
    json.dumps(total, sort_keys=True, indent=2) + '\n', 'utf-8'
  )
  for folder in folders:
    shutil.rmtree(folder)


def _move(made: Path, folder: Path, name: str):
  """Move a task's cache to its place and remove an older one."""
  old = folder / name
  if old.exists():
    old.rename(made / f'{name}.before')
  (made / name).rename(old)


def _describe(task, folder, is_local):
  if not is_local:
    return Cached(task, folder, {}, 0)
  files = [path for path in Path(folder).rglob('*') if path.is_file()]
  stats = {
    path.name.split('.')[1]: json.loads(path.read_text('utf-8')) for path in files if path.name.startswith('stats.')
  }
  size = sum(path.stat().st_size for path in files)
  return Cached(task, folder, {split: values['examples'] for split, values in stats.items()}, size)
