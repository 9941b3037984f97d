"""The demo: music that the model in the box never heard is rendered, transcribed, scored and drawn."""

from pathlib import Path

from mrmt3.demo_stages import lay_out_tracks, prepare_folder, print_stages, run_stage, show_song


def run(output: str, seed: int, note: str) -> int:
  """Renders, transcribes, scores and plots under `output`; returns 0. UserError where a command fails."""
  folder = Path(output)
  prepare_folder(folder)
  data = folder / 'data'
  build = ['mrmt3', 'dataset', 'build', str(data), '--recipe', 'held-out', '--seed', str(seed)]
  stages = [run_stage('1. render songs', build)]
  tracks = lay_out_tracks(data, folder, {'test': 'held-out'})
  transcribe = ['mrmt3', 'transcribe', str(folder / 'audio'), '-o', str(folder / 'transcription')]
  stages.append(run_stage('2. transcribe them', transcribe))
  evaluate = ['mrmt3', 'evaluate', str(folder / 'reference'), str(folder / 'transcription')]
  stages.append(run_stage('3. score them', [*evaluate, '--json', str(folder / 'scores.json')]))
  print(f'\n{note}\n')
  print_stages(stages)
  show_song(folder, next(iter(tracks)))
  return 0
