"""Task over the user's own music: pairs of an audio file and a MIDI file of the same name.

utils.DatasetConfig.mixture_or_task_name = @own_folder.task()
own_folder.task.data_dir = '~/music'
"""

from mrmt3.config import ModelSpec
from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.sources.audio_midi_folder import OwnFolder
from mrmt3.tasks.registration import add_task


def task(
  data_dir: str,
  spec: ModelSpec,
  examples: ExampleConfig = ExampleConfig(),
  cache_bytes: int = 0,
  cache_dir: str | None = None,
) -> str:
  """Register a task over a folder of pairs like song.wav and song.mid and return its name.

  See `data.sources.audio_midi_folder.OwnFolder` for pairs and splits, and `tasks.slakh.task` for the arguments.
  """
  return add_task('own_folder', OwnFolder(str(data_dir)), spec, examples, cache_bytes, cache_dir)
