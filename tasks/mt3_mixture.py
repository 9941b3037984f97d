"""MT3's mixture of data sets, of our own tasks: each in a folder of its own, weighed by its size at temperature 10/3.

    utils.DatasetConfig.mixture_or_task_name = @mt3_mixture.task()
    mt3_mixture.task.data_dir = '/data/records'

MT3's own tasks are mixed as mega_notes_ties_vb1_train, see `tasks.mt3`.
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
  """Registers a mixture of `mt3_records` tasks and returns its name.

  A data set with n examples an epoch in `split` has the rate n ** (1 / temperature); with sampling 'random' and 'mt3' that
  is its length in segments or chunks, as MT3 counts them.

  Args:
    data_dir: the folder with a folder for each data set, as `mrmt3 dataset convert` writes them.
    spec: front end, vocabulary and segment length.
    examples: how segments are sampled and what goes with them.
    names: of `sources.mt3_records.PUBLISHED`.
    temperature: 1: every example as likely; the greater, the more alike the data sets.
    split: whose examples are counted.
    cache_bytes: log-mels kept in memory, bytes, for each data set.
    cache_dir: where prepared pieces are kept; None is the user's cache folder.

  Raises:
    UserError: a data set has no folder or there are none, or the temperature is out of range.
  """
  if not names or temperature <= 0:
    raise UserError(
      f'mt3_mixture.task: names are {names!r} and temperature is {temperature}; give some, and more than 0'
    )
  missing = [name for name in names if not (Path(data_dir) / name).is_dir()]
  if missing:
    raise UserError(
      f'no folder {Path(data_dir) / missing[0]}: make it with mrmt3 dataset convert, or leave it out of mt3_mixture.task.names'
    )
  tasks = [mt3_records.task(name, str(Path(data_dir) / name), spec, examples, cache_bytes, cache_dir) for name in names]
  digest = hashlib.sha1(repr((tasks, temperature, split)).encode()).hexdigest()[:8]
  mixture = f'mt3_mixture_{examples.sampling}_hop{examples.max_hop}_{digest}'
  if mixture not in seqio.MixtureRegistry.names():
    rate = functools.partial(_rate, temperature=temperature, split=split)
    seqio.MixtureRegistry.add(mixture, tasks, default_rate=rate)
  return mixture


def _rate(task, temperature, split) -> float:
  """Returns the weight of a task; not by seqio's count of input examples, which makes it keep small data sets in memory."""
  return float(task.source.num_records(split)) ** (1 / temperature)
