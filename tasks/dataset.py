"""Task over any data set of the registry (mrmt3/data/catalogue.py), by the name of the task that reads it.

utils.DatasetConfig.mixture_or_task_name = @dataset.task()
dataset.task:
  name = 'commu'
  data_dir = '/data/ComMU-code/dataset'
"""

import dataclasses

from mrmt3.config import ModelSpec
from mrmt3.data import catalogue
from mrmt3.data.example_config import ExampleConfig
from mrmt3.tasks.registration import add_task


def task(
  name: str,
  data_dir: str,
  spec: ModelSpec,
  examples: ExampleConfig = ExampleConfig(),
  cache_bytes: int = 0,
  cache_dir: str | None = None,
) -> str:
  """Register a task over a folder of a data set and return its name.

  Overlapping notes are cut if `examples.trim` and the data set's entry in the catalogue ask for it.

  Args:
    name: a key of `catalogue.sources`, e.g. 'commu'.
    data_dir: the data set's folder.
    spec: front end, vocabulary and segment length.
    examples: how segments are sampled and what goes with them.
    cache_bytes: log-mels kept in memory, bytes (for sampling 'grid').
    cache_dir: where prepared pieces are kept; None is the user's cache folder.

  Raises:
    UserError: there is no such task, or values are out of range.
  """
  examples = dataclasses.replace(examples, trim=examples.trim and catalogue.trims(name))
  prefix = name.replace(':', '_')
  return add_task(prefix, catalogue.open_source(name, data_dir), spec, examples, cache_bytes, cache_dir)
