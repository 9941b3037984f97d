"""Task over ComMU: short clips of single instruments, rendered with a soundfont.

gin/runs/commu.gin is the published setup of the study of domain overfitting.

    utils.DatasetConfig.mixture_or_task_name = @commu.task()
    commu.task.data_dir = '/data/ComMU-code/dataset'
"""

from mrmt3.config import ModelSpec
from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.sources.commu import CommuFolder
from mrmt3.tasks.registration import add_task


def task(
  data_dir: str,
  spec: ModelSpec,
  examples: ExampleConfig = ExampleConfig(),
  cache_bytes: int = 0,
  cache_dir: str | None = None,
) -> str:
  """Register a task over ComMU's folder and return its name.

  See `data.sources.commu.CommuFolder` for the layout and the splits, and `tasks.slakh.task` for the arguments.
  """
  return add_task('commu', CommuFolder(str(data_dir)), spec, examples, cache_bytes, cache_dir)
