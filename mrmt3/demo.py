"""The demos: render music, transcribe it with the bundled or a newly trained model, score it and plot it."""

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from mrmt3.data import slakh_layout
from mrmt3.errors import UserError
from mrmt3.notes import midi, note_array
from mrmt3.plots import piano_roll
from mrmt3.utils import child_process, files, interrupts

MARKER = '.mrmt3-demo'  # marks a folder as a demo's, which may be emptied


@dataclasses.dataclass
class Stage:
  """A command's wall time in seconds, and the peak memory of its largest process in MB."""

  name: str
  seconds: float
  megabytes: float


def run_stage(name: str, command: list[str]) -> Stage:
  """Run a command, with its output shown; UserError if it fails."""
  print(f'\n== {name}\n$ {" ".join(command)}', flush=True)
  start = time.monotonic()
  code, megabytes = child_process.run('mrmt3', command[1:])
  if code == interrupts.EXIT_CODE:
    raise KeyboardInterrupt
  if code != 0:
    raise UserError(f'the demo stopped: `{" ".join(command)}` failed with exit code {code}; see its message above')
  return Stage(name, time.monotonic() - start, megabytes)


def prepare_folder(folder: Path) -> None:
  """Make an empty folder for a demo; an earlier demo's is emptied. UserError if other files are in it."""
  marker = folder / MARKER
  if folder.exists() and not marker.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise UserError(f'{folder} exists and is not a folder of an earlier demo; choose another folder with -o')
  for entry in folder.iterdir() if folder.exists() else ():
    # Keep the folder itself, which may be the working folder.
    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
  files.make_folder(folder)
  marker.touch()


def lay_out_tracks(data: Path, folder: Path, splits: Sequence[str]) -> dict[str, slakh_layout.Track]:
  """Write the reference notes of a data set as MIDI to `folder`/reference, and copy the audio to `folder`/audio.

  The files have the tracks' names in the data set, so that `mrmt3 evaluate` matches transcriptions with either.

  Args:
    data: a folder in Slakh's layout.
    folder: the demo's folder.
    splits: the splits whose tracks are wanted.

  Returns:
    The tracks by name, `<split>/<track>`.
  """
  named = {f'{split}/{track.path.name}': track for split in splits for track in slakh_layout.find_tracks(data, split)}
  for name, track in named.items():
    midi.write_midi(slakh_layout.read_notes(track), folder / 'reference' / f'{name}.mid')
    audio = folder / 'audio' / f'{name}{track.audio_path.suffix}'
    files.make_folder(audio.parent)
    shutil.copyfile(track.audio_path, audio)
  return named


def show_song(folder: Path, song: str) -> None:
  """Write song.mid, the transcription of a track, and song.png, a plot of its reference and its transcription."""
  with files.atomic_path(folder / 'song.mid') as temporary:
    shutil.copyfile(folder / 'transcription' / f'{song}.mid', temporary)
  reference, estimate = (midi.read_midi(folder / kind / f'{song}.mid') for kind in ('reference', 'transcription'))
  piano_roll.piano_roll(folder / 'song.png', note_array.sort_notes(reference), estimate, title=song)
  print(f'wrote {folder / "song.mid"} and {folder / "song.png"}')


def print_stages(stages: Sequence[Stage]) -> None:
  """Print the time and memory of each stage."""
  for stage in stages:
    print(f'{stage.name:<20} {stage.seconds:7.0f} s   peak {stage.megabytes:6.0f} MB')


def run_bundled(output: str, seed: int, note: str) -> int:
  """Render, transcribe, score and plot songs in `output`; return 0. UserError if a command fails."""
  folder = Path(output)
  prepare_folder(folder)
  data = folder / 'data'
  build = ['mrmt3', 'dataset', 'build', str(data), '--recipe', 'held-out', '--seed', str(seed)]
  stages = [run_stage('1. render songs', build)]
  tracks = lay_out_tracks(data, folder, ['test'])
  transcribe = ['mrmt3', 'transcribe', str(folder / 'audio'), '-o', str(folder / 'transcription')]
  stages.append(run_stage('2. transcribe them', transcribe))
  evaluate = ['mrmt3', 'evaluate', str(folder / 'reference'), str(folder / 'transcription')]
  stages.append(run_stage('3. score them', [*evaluate, '--json', str(folder / 'scores.json')]))
  print(f'\n{note}\n')
  print_stages(stages)
  show_song(folder, next(iter(tracks)))
  return 0


WANTED_ONSET_F1 = 0.9  # mean over the learnt songs


def run_training(output: str, steps: int | None, seed: int, note: str) -> int:
  """Render songs in `output`, train on them, transcribe, score and plot; return the exit code (see cli.demo)."""
  folder = Path(output)
  prepare_folder(folder)
  data, model = folder / 'data', folder / 'model'
  stages = [
    run_stage('1. render songs', ['mrmt3', 'dataset', 'build', str(data), '--recipe', 'demo', '--seed', str(seed)])
  ]

  train = ['mrmt3', 'train', '--gin_file=runs/demo.gin', f'--gin.MODEL_DIR={model}', f'--gin.DATA_DIR={data}']
  train += [f'--gin.SEED={seed}'] + ([f'--gin.TRAIN_STEPS={steps}'] if steps else [])
  stages.append(run_stage('2. learn them', train))

  tracks = lay_out_tracks(data, folder, ['train', 'test'])
  transcribe = [
    'mrmt3',
    'transcribe',
    str(folder / 'audio'),
    '-o',
    str(folder / 'transcription'),
    '--checkpoint',
    str(model),
  ]
  stages.append(run_stage('3. transcribe them', transcribe))

  scores = folder / 'scores.json'
  evaluate = ['mrmt3', 'evaluate', str(folder / 'reference'), str(folder / 'transcription'), '--json', str(scores)]
  stages.append(run_stage('4. score them', evaluate))

  print(f'\n{note}\n')
  print_stages(stages)
  f1 = learnt_onset_f1(json.loads(scores.read_text()))
  verdict = 'reached' if f1 >= WANTED_ONSET_F1 else 'NOT reached'
  print(f'\nlearnt songs: mean onset F1 {f1:.3f} ({WANTED_ONSET_F1} wanted: {verdict})')
  show_song(folder, next(iter(tracks)))
  return 0 if f1 >= WANTED_ONSET_F1 else 1


def learnt_onset_f1(scores: dict) -> float:
  """Return the mean onset F1 of the learnt songs from the JSON of `mrmt3 evaluate`."""
  values = [piece['onset_f1'] for name, piece in scores['pieces'].items() if name.startswith('train/')]
  return sum(values) / len(values)
