"""The demo that learns: songs are rendered, learnt by heart by a tiny network, transcribed and scored."""

import json
from pathlib import Path

from mrmt3.demo_stages import lay_out_tracks, prepare_folder, print_stages, run_stage, show_song

WANTED_ONSET_F1 = 0.9  # mean over the learnt songs


def run(output: str, steps: int | None, seed: int, note: str) -> int:
  """Renders, trains, transcribes, scores and plots under `output`; returns the exit code (see cli.demo)."""
  folder = Path(output)
  prepare_folder(folder)
  data, model = folder / 'data', folder / 'model'
  stages = [
    run_stage('1. render songs', ['mrmt3', 'dataset', 'build', str(data), '--recipe', 'demo', '--seed', str(seed)])
  ]

  train = ['mrmt3', 'train', '--gin_file=runs/demo.gin', f'--gin.MODEL_DIR={model}', f'--gin.DATA_DIR={data}']
  train += [f'--gin.SEED={seed}'] + ([f'--gin.TRAIN_STEPS={steps}'] if steps else [])
  stages.append(run_stage('2. learn them', train))

  tracks = lay_out_tracks(data, folder, {'train': 'learnt', 'test': 'held-out'})
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
  show_song(folder, next(name for name in tracks if name.startswith('learnt')))
  return 0 if f1 >= WANTED_ONSET_F1 else 1


def learnt_onset_f1(scores: dict) -> float:
  """Returns the mean onset F1 of the learnt songs from the JSON of `mrmt3 evaluate`."""
  values = [piece['onset_f1'] for name, piece in scores['pieces'].items() if name.startswith('learnt')]
  return sum(values) / len(values)
