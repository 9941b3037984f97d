"""Rendering of ComMU's clips with a soundfont. ComMU is published as MIDI only."""

import dataclasses
import functools
import os
from pathlib import Path

from mrmt3.audio.files import write_audio
from mrmt3.audio.synthesizer import Synth, default_soundfont
from mrmt3.data.sources.commu import AUDIO_FOLDER, SPLITS, CommuFolder, as_played, midi_files
from mrmt3.errors import UserError
from mrmt3.notes.midi import read_midi
from mrmt3.utils.files import make_folder
from mrmt3.utils.journal import FolderJournal
from mrmt3.utils.parallel import parallel_if_long, with_bar

TAIL = 1.0  # s, after the last offset


@dataclasses.dataclass(frozen=True)
class Rendered:
  """The outcome of `render`.

  Attributes:
    folder: folder with the audio files.
    made: number of files written.
    kept: number of files that existed before.
    seconds: total length of the files written, s.
    left_out: one line per clip that could not be rendered, with the reason.
  """

  folder: Path
  made: int
  kept: int
  seconds: float
  left_out: tuple[str, ...]


def render(
  data_dir: str | os.PathLike,
  *,
  soundfont: str | os.PathLike | None = None,
  sample_rate: int = 16000,
  workers: int | None = None,
  progress: bool = True,
) -> Rendered:
  """Render every clip without audio to `data_dir/commu_audio/<id>.flac`. Each file is written atomically.

  Args:
    data_dir: the folder with commu_meta.csv and commu_midi.
    soundfont: path of a soundfont. None: pretty_midi's, which MR-MT3 used with another synthesizer.
    sample_rate: Hz.
    workers: number of processes; None: one per processor.
    progress: whether to show a progress bar, if stderr is a terminal.

  Raises:
    UserError: there is no ComMU in the folder, no soundfont or no disk space, or no clip can be rendered.
  """
  source = CommuFolder(str(data_dir))
  names = [name for split in source.splits() for name in source.list_pieces(split)]
  if not names:
    raise UserError(f'{data_dir} lists no clips of ComMU: check the rows of commu_meta.csv')
  soundfont = Path(soundfont) if soundfont else default_soundfont()
  _synth(soundfont, sample_rate)  # fails on a bad soundfont before anything is written
  rendered = _rendered(data_dir)
  folder = make_folder(rendered.folder)
  missing = rendered.todo(names)
  render_clip = functools.partial(_render, str(data_dir), soundfont, sample_rate)
  results = parallel_if_long(render_clip, missing, workers or os.cpu_count() or 1)
  results = list(with_bar(results, len(missing), 'render', 'clip', progress))
  left_out = tuple(result for result in results if isinstance(result, str))
  if missing and len(left_out) == len(names):
    raise UserError(f'none of the {len(names)} clips can be rendered; the first: {left_out[0]}')
  seconds = [result for result in results if not isinstance(result, str)]
  return Rendered(folder, len(seconds), len(names) - len(missing), sum(seconds), left_out)


def _rendered(data_dir) -> FolderJournal:
  return FolderJournal(Path(data_dir) / AUDIO_FOLDER, lambda name: f'{name}.flac')


@functools.lru_cache(maxsize=1)
def _synth(soundfont, sample_rate):
  return Synth(soundfont, sample_rate)


def _render(data_dir, soundfont, sample_rate, name) -> float | str:
  """Render a clip and return its length in s, or a line with the reason why it cannot be rendered."""
  source, files = CommuFolder(data_dir), midi_files(data_dir)
  if name not in files:
    return f'{name} has no MIDI file in {data_dir}'
  program = next(clips[name] for clips in map(source.programs, SPLITS) if name in clips)
  try:
    notes = as_played(read_midi(files[name]), program)
  except UserError as error:
    return str(error)
  if not len(notes):
    return f'{files[name]} has no notes'
  seconds = float(notes['offset'].max()) + TAIL
  samples = _synth(soundfont, sample_rate).render(notes, program, False, seconds)
  write_audio(_rendered(data_dir).path(name), samples, sample_rate)
  return seconds
