"""Task over any folder in the Slakh2100 layout: mixes as inputs, per-stem MIDI as targets.

`task(...)` registers a seqio task and returns its name, so that gin configures data and preprocessing in one place:

    utils.DatasetConfig.mixture_or_task_name = @slakh.task()
    slakh.task.data_dir = '/data/slakh2100_flac_redux'
    slakh.task.examples = @example_config.ExampleConfig()
"""

from mrmt3.config import ModelSpec
from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.sources.slakh import SlakhFolder
from mrmt3.tasks.registration import add_task


def task(
  data_dir: str,
  spec: ModelSpec,
  examples: ExampleConfig = ExampleConfig(),
  cache_bytes: int = 0,
  cache_dir: str | None = None,
) -> str:
  """Register a task over a Slakh-layout folder and return its name.

  Features: inputs, targets and prior_targets, see `tasks.registration.add_task`.

  Args:
    data_dir: folder with train / validation / test, which contain TrackNNNNN.
    spec: the model's spec: front end, vocabulary and segment length.
    examples: sampling and preprocessing of examples.
    cache_bytes: memory for cached log-mels, bytes (for sampling 'grid').
    cache_dir: folder for prepared pieces; None is the user's cache folder.

  Raises:
    UserError: a value is out of range.
  """
  return add_task('slakh', SlakhFolder(str(data_dir)), spec, examples, cache_bytes, cache_dir)
