"""Task over NSynth as TFRecord files of TensorFlow Datasets (`nsynth/full`); otherwise the same as `tasks.nsynth`.

utils.DatasetConfig.mixture_or_task_name = @nsynth_records.task()
nsynth_records.task.data_dir = '~/tensorflow_datasets/nsynth/full/2.3.3'
"""

import os
from collections.abc import Sequence

from mrmt3.config import ModelSpec
from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.sources.nsynth import LEFT_OUT, NsynthRecords
from mrmt3.tasks.registration import add_task


def task(
  data_dir: str,
  spec: ModelSpec,
  examples: ExampleConfig = ExampleConfig(),
  cache_bytes: int = 0,
  cache_dir: str | None = None,
  left_out: Sequence[str] = LEFT_OUT,
) -> str:
  """Register a task over TFDS's records of NSynth and return its name.

  See `data.sources.nsynth.NsynthRecords` for `left_out`, and `tasks.slakh.task` for the other arguments.
  """
  source = NsynthRecords(os.path.expanduser(data_dir), tuple(left_out))
  return add_task('nsynth_records', source, spec, examples, cache_bytes, cache_dir)
