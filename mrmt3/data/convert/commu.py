"""Renders the clips of ComMU, which is published as MIDI only, with a soundfont."""

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

TAIL = 1.0  # s, after the last note's end


@dataclasses.dataclass(frozen=True)
class Rendered:
  """What was done.

  Attributes:
    folder: with the audio files.
    made: files written now.
    kept: files that were there before.
    seconds: of sound, of those that were written.
    left_out: why clips were left out, a line each.
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
  """Writes `data_dir/commu_audio/<id>.flac` of every clip that is not there yet, each whole or not at all.

  Args:
    data_dir: the folder with commu_meta.csv and commu_midi.
    soundfont: None: the one in pretty_midi, with which MR-MT3 rendered (by another synthesizer).
    sample_rate: Hz.
    workers: processes; None is one a processor.
    progress: whether to show a bar on stderr, if that is a terminal.

  Raises:
    UserError: no ComMU there, no soundfont, no room to write, or none of the clips can be rendered.
  """
  source = CommuFolder(str(data_dir))
  names = [name for split in source.splits() for name in source.list_pieces(split)]
  if not names:
    raise UserError(f'{data_dir} names no clips of ComMU')
  soundfont = Path(soundfont) if soundfont else default_soundfont()
  _synth(soundfont, sample_rate)  # what is wrong with it is said before anything is written
  rendered = _rendered(data_dir)
  folder = make_folder(rendered.folder)
  coming = rendered.todo(names)
  one = functools.partial(_render, str(data_dir), soundfont, sample_rate)
  results = parallel_if_long(one, coming, workers or os.cpu_count() or 1)
  results = list(with_bar(results, len(coming), 'render', 'clip', progress))
  left_out = tuple(result for result in results if isinstance(result, str))
  if coming and len(left_out) == len(names):
    raise UserError(f'none of the {len(names)} clips can be rendered; the first: {left_out[0]}')
  seconds = [result for result in results if not isinstance(result, str)]
  return Rendered(folder, len(seconds), len(names) - len(coming), sum(seconds), left_out)


def _rendered(data_dir) -> FolderJournal:
  return FolderJournal(Path(data_dir) / AUDIO_FOLDER, lambda name: f'{name}.flac')


@functools.lru_cache(maxsize=1)
def _synth(soundfont, sample_rate):
  return Synth(soundfont, sample_rate)


def _render(data_dir, soundfont, sample_rate, name) -> float | str:
  """Writes a clip and returns how long it is, s, or why it is left out."""
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
