"""Tasks over TFRecord files in MT3's published layouts: MAESTRO, GuitarSet, URMP, MusicNet, Cerberus4, Slakh.

utils.DatasetConfig.mixture_or_task_name = @mt3_records.task()
mt3_records.task:
  name = 'musicnet_em'
  data_dir = '/data/musicnet_em'
"""

import dataclasses

from mrmt3.config import ModelSpec
from mrmt3.data import catalogue
from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.sources.mt3_records import published
from mrmt3.tasks.registration import add_task


def task(
  name: str,
  data_dir: str,
  spec: ModelSpec,
  examples: ExampleConfig = ExampleConfig(),
  cache_bytes: int = 0,
  cache_dir: str | None = None,
) -> str:
  """Register a task over one of MT3's data sets and return its name.

  `examples.trim` trims overlapping notes of Slakh and Cerberus4 only, as in MT3.

  Args:
    name: one of `data.sources.mt3_records.PUBLISHED`, e.g. 'musicnet_em'. The splits are MT3's, including train_subset
      and validation_subset.
    data_dir: folder with the files under their published names.
    spec: the model's spec: front end, vocabulary and segment length.
    examples: sampling and preprocessing of examples.
    cache_bytes: memory for cached log-mels, bytes (for sampling 'grid').
    cache_dir: folder for prepared pieces; None is the user's cache folder.

  Raises:
    UserError: there is no such data set.
  """
  examples = dataclasses.replace(examples, trim=examples.trim and catalogue.trims(f'mt3_records:{name}'))
  return add_task(f'mt3_{name}', published(name, data_dir), spec, examples, cache_bytes, cache_dir)
