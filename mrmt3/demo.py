"""The demo: runs mrmt3's own commands one after the other, shows each, and what it took."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mrmt3 import files, midi_io, notes, plots, slakh
from mrmt3.errors import UserError

WANTED_ONSET_F1 = 0.9  # mean over the learnt songs
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


def write_references(data: Path, folder: Path) -> dict[str, slakh.Track]:
  """Writes each track's reference notes as `<learnt|held-out>-<track>.mid` and returns the tracks by that name."""
  named = {}
  for label, split in (('learnt', 'train'), ('held-out', 'test')):
    for track in slakh.find_tracks(data, split):
      name = f'{label}-{track.path.name}'
      midi_io.write_midi(slakh.read_notes(track), folder / f'{name}.mid')
      named[name] = track
  return named


def run(output: str, steps: int | None, seed: int, note: str) -> int:
  """Renders, trains, transcribes, scores and plots under `output`; returns the exit code (see cli.demo)."""
  folder = Path(output)
  prepare_folder(folder)
  data, model, audio = folder / 'data', folder / 'model', folder / 'audio'
  stages = [run_stage('1. render songs', ['mrmt3', 'dataset', 'build', str(data), '--recipe', 'demo', '--seed', str(seed)])]

  train = ['mrmt3', 'train', '--gin_file=runs/demo.gin', f'--gin.MODEL_DIR={model}', f'--gin.DATA_DIR={data}']
  train += [f'--gin.SEED={seed}'] + ([f'--gin.TRAIN_STEPS={steps}'] if steps else [])
  stages.append(run_stage('2. learn them', train))

  tracks = write_references(data, files.make_folder(folder / 'reference'))
  files.make_folder(audio)
  for name, track in tracks.items():
    shutil.copyfile(track.audio_path, audio / f'{name}{track.audio_path.suffix}')
  estimates = folder / 'transcription'
  songs = [str(audio / f'{name}{track.audio_path.suffix}') for name, track in tracks.items()]
  stages.append(run_stage('3. transcribe them', ['mrmt3', 'transcribe', *songs, '-o', str(estimates), '--checkpoint', str(model)]))

  scores = folder / 'scores.json'
  evaluate = ['mrmt3', 'evaluate', str(folder / 'reference'), str(estimates), '--json', str(scores)]
  stages.append(run_stage('4. score them', evaluate))

  song = next(name for name in tracks if name.startswith('learnt'))
  with files.atomic_path(folder / 'song.mid') as temporary:
    shutil.copyfile(estimates / f'{song}.mid', temporary)
  reference, estimate = (midi_io.read_midi(folder / kind / f'{song}.mid') for kind in ('reference', 'transcription'))
  plots.piano_roll(folder / 'song.png', notes.sort_notes(reference), estimate, title=song)

  print(f'\n{note}\n')
  for stage in stages:
    print(f'{stage.name:<20} {stage.seconds:7.0f} s   peak {stage.megabytes:6.0f} MB')
  f1 = learnt_onset_f1(json.loads(scores.read_text()))
  verdict = 'reached' if f1 >= WANTED_ONSET_F1 else 'NOT reached'
  print(f'\nlearnt songs: mean onset F1 {f1:.3f} ({WANTED_ONSET_F1} wanted: {verdict})')
  print(f'wrote {folder / "song.mid"} and {folder / "song.png"}')
  return 0 if f1 >= WANTED_ONSET_F1 else 1


def learnt_onset_f1(scores: dict) -> float:
  """Returns the mean onset F1 of the learnt songs from the JSON of `mrmt3 evaluate`."""
  values = [piece['onset_f1'] for name, piece in scores['pieces'].items() if name.startswith('learnt')]
  return sum(values) / len(values)
