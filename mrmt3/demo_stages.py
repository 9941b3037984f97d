"""What demos are made of: mrmt3's own commands one after the other, each shown, with what it took."""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mrmt3 import files, midi_io, notes, plots, slakh
from mrmt3.errors import UserError

MARKER = '.mrmt3-demo'  # tells a demo's folder from anything else of that name


@dataclasses.dataclass
class Stage:
  """What a command took: seconds of wall time, and peak memory of its largest process in MB."""

  name: str
  seconds: float
  megabytes: float


def run_stage(name: str, command: list[str]) -> Stage:
  """Runs a command visibly; UserError if it fails."""
  print(f'\n== {name}\n$ {" ".join(command)}', flush=True)
  start = time.monotonic()
  process = subprocess.Popen([sys.executable, '-m', 'mrmt3', *command[1:]])
  try:
    # wait4 tells the peak memory of this child alone.
    _, status, usage = os.wait4(process.pid, 0)
  except BaseException:
    process.terminate()
    raise
  code = os.waitstatus_to_exitcode(status)
  process.returncode = code
  if code != 0:
    raise UserError(f'the demo stopped: `{" ".join(command)}` ended with exit code {code}; its message is above')
  return Stage(name, time.monotonic() - start, usage.ru_maxrss / 1024)


def prepare_folder(folder: Path) -> None:
  """Makes an empty demo folder; an earlier demo's is emptied, anything else is a UserError."""
  marker = folder / MARKER
  if folder.exists() and not marker.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise UserError(f'{folder} exists and is not an earlier demo; choose another folder with -o')
  for entry in folder.iterdir() if folder.exists() else ():
    # The folder itself may be the one we stand in.
    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
  files.make_folder(folder)
  marker.touch()


def lay_out_tracks(data: Path, folder: Path, labels: Mapping[str, str]) -> dict[str, slakh.Track]:
  """Writes the reference notes of a data set's tracks as MIDI to `folder`/reference, and copies their audio to `folder`/audio.

  Args:
    data: a folder in Slakh's layout.
    folder: the demo's.
    labels: by split, what the name of its tracks begins with.

  Returns:
    The tracks by name, `<label>-<track>`.
  """
  named = {
    f'{label}-{track.path.name}': track for split, label in labels.items() for track in slakh.find_tracks(data, split)
  }
  references, audio = files.make_folder(folder / 'reference'), files.make_folder(folder / 'audio')
  for name, track in named.items():
    midi_io.write_midi(slakh.read_notes(track), references / f'{name}.mid')
    shutil.copyfile(track.audio_path, audio / f'{name}{track.audio_path.suffix}')
  return named


def show_song(folder: Path, song: str) -> None:
  """Writes song.mid, the transcription of a track, and song.png, its reference above and that transcription below."""
  with files.atomic_path(folder / 'song.mid') as temporary:
    shutil.copyfile(folder / 'transcription' / f'{song}.mid', temporary)
  reference, estimate = (midi_io.read_midi(folder / kind / f'{song}.mid') for kind in ('reference', 'transcription'))
  plots.piano_roll(folder / 'song.png', notes.sort_notes(reference), estimate, title=song)
  print(f'wrote {folder / "song.mid"} and {folder / "song.png"}')


def print_stages(stages: Sequence[Stage]) -> None:
  """Prints what each took."""
  for stage in stages:
    print(f'{stage.name:<20} {stage.seconds:7.0f} s   peak {stage.megabytes:6.0f} MB')
