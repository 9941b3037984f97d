"""Task over TFDS records that `mrmt3.data.tfds_slakh` wrote from a folder in the Slakh2100 layout.

utils.DatasetConfig.mixture_or_task_name = @slakh_records.task()
slakh_records.task.data_dir = '/data/records'
"""

from mrmt3.config import ModelSpec
from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.sources.tfds_records import TfdsRecords
from mrmt3.tasks.registration import add_task


def task(
  data_dir: str,
  spec: ModelSpec,
  examples: ExampleConfig = ExampleConfig(),
  cache_bytes: int = 0,
  cache_dir: str | None = None,
) -> str:
  """Register a task over sharded records (audio, NoteSequence, id) and return its name.

  The records have no stems, so stem subsets are not available. See `tasks.slakh.task` for the arguments.
  """
  return add_task('slakh_records', TfdsRecords(str(data_dir)), spec, examples, cache_bytes, cache_dir)
