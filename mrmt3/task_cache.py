"""Caches seqio tasks: what their steps before the cache placeholder make is computed once and read by every run.

The work is seqio's (`seqio_cache_tasks`), on Apache Beam, by default in this process. Caches are read with
`--seqio_additional_cache_dirs=DIR` and `utils.DatasetConfig.use_cached = True`. Needs the extra `cache`.
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
from mrmt3.files import make_folder

# The plain name stands for a runner that may fetch a program of its own and start it as a server.
IN_PROCESS = '--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner'
TASKS_MODULE = 'mrmt3.tasks'


@dataclasses.dataclass(frozen=True)
class Cached:
  """A cached task.

  Attributes:
    task: its name.
    folder: its cache, as text: it may be on another machine.
    examples: split -> number of examples; empty where the cache is on another machine.
    size: bytes of the cache; 0 where it is on another machine.
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
) -> list[Cached]:
  """Caches tasks, each whole or not at all, and returns what was made; what is cached there already is left alone.

  Args:
    tasks: registered names.
    folder: of all caches; a path on this machine, or one that Beam and TensorFlow know (gs://...).
    modules: that register tasks, imported here and by Beam's workers, besides `mrmt3.tasks`.
    pipeline_options: Beam's, e.g. '--runner=DataflowRunner'; without a runner the pipeline runs in this process.
    min_shards: files a split at least, so that training can shuffle them.
    seed: of what is drawn before the placeholder; None draws it from the task's name.
    overwrite: whether what is cached in `folder` is made anew.

  Raises:
    UserError: no such task, one that cannot be cached, its data is not there, or no room to write.
  """
  import seqio
  from seqio.scripts import cache_tasks_main as tool  # needs apache_beam

  _check(tasks, min_shards)
  is_local = '://' not in folder
  done = {task for task in tasks if not overwrite and is_local and is_cached(Path(folder), task)}
  coming = [task for task in dict.fromkeys(tasks) if task not in done]
  if not coming:
    return []
  if is_local:
    folder = str(make_folder(os.path.expanduser(folder)))
  values = {'min_shards': min_shards, 'base_seed': seed or -1}
  tool.FLAGS(['mrmt3', *(f'--{name}={value}' for name, value in values.items())])
  logging.getLogger('apache_beam').setLevel(logging.ERROR)
  target = tempfile.mkdtemp(prefix='.cache.', dir=folder) if is_local else folder
  try:
    with _told():
      _run(tool, coming, target, (TASKS_MODULE, *modules), pipeline_options, overwrite and not is_local)
    if is_local:
      for task in coming:
        _move(Path(target), Path(folder), seqio.get_task_dir_from_name(task))
  finally:
    if is_local:
      shutil.rmtree(target, ignore_errors=True)
  return [_described(task, os.path.join(folder, seqio.get_task_dir_from_name(task)), is_local) for task in coming]


def is_cached(folder: Path, task: str) -> bool:
  """Whether a task's cache is in a folder on this machine, complete."""
  import seqio

  return (folder.expanduser() / seqio.get_task_dir_from_name(task) / 'COMPLETED').is_file()


def _check(tasks, min_shards):
  import seqio

  if min_shards < 1:
    raise UserError(f'there cannot be {min_shards} files a split')
  for name in tasks:
    if name in seqio.MixtureRegistry.names():
      parts = ', '.join(task.name for task in seqio.MixtureRegistry.get(name).tasks)
      raise UserError(f'{name} is a mixture; its tasks are cached: {parts}')
    if name not in seqio.TaskRegistry.names():
      raise UserError(f'there is no task {name!r}; tasks of your own are registered by a --module')
    if not seqio.TaskRegistry.get(name).supports_caching:
      raise UserError(
          f'{name} cannot be cached: it has no cache placeholder (the tasks of tasks/ keep decoded pieces themselves, MT3\'s are '
          'called like slakh_notes_ties_vb1_train)'
      )


@contextlib.contextmanager
def _told():
  """Turns what reading, writing and Beam trip over into one line."""
  import tensorflow as tf

  try:
    yield
  except UserError:
    raise
  except (OSError, tf.errors.OpError) as error:
    reason = getattr(error, 'strerror', None) or getattr(error, 'message', None) or error
    raise UserError(f'cannot make the cache: {" ".join(str(reason).split())[:300]}') from error
  except Exception as error:  # Beam wraps what a step raised, with its own text behind
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(f'cannot make the cache: {" ".join(lines[0].split())[:300]}') from error


def _run(tool, tasks, folder, modules, pipeline_options, overwrite):
  import apache_beam as beam
  import seqio
  from apache_beam.options.pipeline_options import PipelineOptions

  has_runner = any(option.partition('=')[0] == '--runner' for option in pipeline_options)
  options = PipelineOptions([*pipeline_options, *(() if has_runner else (IN_PROCESS,))])
  seqio.add_global_cache_dirs([folder])
  with beam.Pipeline(options=options) as pipeline:
    tool.run_pipeline(pipeline, tasks, folder, modules_to_import=modules, overwrite=overwrite, ignore_other_caches=True)


def _move(made: Path, folder: Path, name: str):
  """Puts a task's cache in its place; one that was there goes."""
  old = folder / name
  if old.exists():
    aside = made / f'{name}.before'
    old.rename(aside)
  (made / name).rename(old)


def _described(task, folder, is_local):
  if not is_local:
    return Cached(task, folder, {}, 0)
  files = [path for path in Path(folder).rglob('*') if path.is_file()]
  stats = {path.name.split('.')[1]: json.loads(path.read_text('utf-8')) for path in files if path.name.startswith('stats.')}
  return Cached(task, folder, {split: values['examples'] for split, values in stats.items()}, sum(path.stat().st_size for path in files))
