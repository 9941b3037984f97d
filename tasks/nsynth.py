"""Task over NSynth: one note per piece, with the first program of its family; vocals and mallets are excluded.

utils.DatasetConfig.mixture_or_task_name = @nsynth.task()
nsynth.task.data_dir = '/data/nsynth'
"""

from collections.abc import Sequence

from mrmt3.config import ModelSpec
from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.sources.nsynth import LEFT_OUT, NsynthFolder
from mrmt3.tasks.registration import add_task


def task(
  data_dir: str,
  spec: ModelSpec,
  examples: ExampleConfig = ExampleConfig(),
  cache_bytes: int = 0,
  cache_dir: str | None = None,
  left_out: Sequence[str] = LEFT_OUT,
) -> str:
  """Register a task over NSynth's folders and return its name.

  See `data.sources.nsynth.NsynthFolder` for the layout and `left_out`, and `tasks.slakh.task` for the other arguments.
  """
  return add_task('nsynth', NsynthFolder(str(data_dir), tuple(left_out)), spec, examples, cache_bytes, cache_dir)
