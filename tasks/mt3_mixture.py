"""MT3's mixture of data sets with our own tasks: one folder per data set, mixed by size at temperature 10/3.

    utils.DatasetConfig.mixture_or_task_name = @mt3_mixture.task()
    mt3_mixture.task.data_dir = '/data/records'

The mixture of MT3's own tasks is mega_notes_ties_vb1_train, see `tasks.mt3`.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import seqio

from mrmt3.config import ModelSpec
from mrmt3.data.example_config import ExampleConfig
from mrmt3.errors import UserError
from mrmt3.tasks import mt3_records

NAMES = ('maestrov3', 'guitarset', 'urmp', 'musicnet_em', 'cerberus4', 'slakh')
TEMPERATURE = 10 / 3


def task(
  data_dir: str,
  spec: ModelSpec,
  examples: ExampleConfig = ExampleConfig(),
  names: Sequence[str] = NAMES,
  temperature: float = TEMPERATURE,
  split: str = 'train',
  cache_bytes: int = 0,
  cache_dir: str | None = None,
) -> str:
  """Register a mixture of `mt3_records` tasks and return its name.

  A data set with n examples per epoch in `split` has the rate n ** (1 / temperature). With sampling 'random' and 'mt3'
  n is its length in segments or chunks, as in MT3.

  Args:
    data_dir: folder with a subfolder per data set, as `mrmt3 dataset convert` writes it.
    spec: the model's spec: front end, vocabulary and segment length.
    examples: sampling and preprocessing of examples.
    names: data sets, from `data.sources.mt3_records.PUBLISHED`.
    temperature: 1 makes all examples equally likely; larger values make the data sets more equally likely.
    split: split whose examples are counted.
    cache_bytes: memory for cached log-mels per data set, bytes.
    cache_dir: folder for prepared pieces; None is the user's cache folder.

  Raises:
    UserError: names is empty, a data set has no folder, or the temperature is not positive.
  """
  if not names or temperature <= 0:
    raise UserError(
      f'mt3_mixture.task: names is {names!r} and temperature {temperature}; set names to at least one data set, and '
      'temperature above 0'
    )
  missing = [name for name in names if not (Path(data_dir) / name).is_dir()]
  if missing:
    raise UserError(
      f'no folder {Path(data_dir) / missing[0]}; make it with mrmt3 dataset convert, or remove it from '
      'mt3_mixture.task.names'
    )
  tasks = [mt3_records.task(name, str(Path(data_dir) / name), spec, examples, cache_bytes, cache_dir) for name in names]
  digest = hashlib.sha1(repr((tasks, temperature, split)).encode()).hexdigest()[:8]
  mixture = f'mt3_mixture_{examples.sampling}_hop{examples.max_hop}_{digest}'
  if mixture not in seqio.MixtureRegistry.names():
    rate = functools.partial(_rate, temperature=temperature, split=split)
    seqio.MixtureRegistry.add(mixture, tasks, default_rate=rate)
  return mixture


def _rate(task, temperature, split) -> float:
  """Return a task's mixing rate; seqio's own count of examples would make it keep small data sets in memory."""
  return float(task.source.num_records(split)) ** (1 / temperature)
