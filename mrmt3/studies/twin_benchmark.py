"""The twin-instrument benchmark: trains with and without memory on twin-instrument pieces, and scores both networks."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from mrmt3.data import slakh_layout
from mrmt3.errors import UserError
from mrmt3.utils import files

VARIANTS = {'memory': (), 'L_agg = 0': ('--gin_file=ablations/l_agg_0.gin',)}
SEGMENT_SECONDS = 64 * 256 / 16000  # gin/runs/twin.gin: frames of 256 samples
WITH_MEMORY, WITHOUT_MEMORY = 0.95, 0.6  # class F1: at least, at most


def run(
  output: str, *, steps: int | None, seed: int, train_pieces: int, test_pieces: int, notes: int | None = None
) -> dict[str, dict[str, float]]:
  """Render pieces to `output`, train every variant for the same number of steps, and return mean test scores.

  Args:
    output: folder for data, models and scores.json; existing data and models are reused.
    steps: training steps; None: the gin file's.
    seed: seed of data and training.
    train_pieces: number of training pieces, 8 segments each.
    test_pieces: number of test pieces.
    notes: notes per twin segment; fewer notes are learnt sooner. None: twin_instruments.NOTES_PER_SEGMENT.

  Returns:
    scores by variant: onset_f1 and class_f1 (0..1), and train_seconds.

  Raises:
    UserError: a number is out of range, or a training failed.
  """
  from mrmt3.studies import twin_instruments

  if min(seed, train_pieces - 1, test_pieces - 1) < 0 or (steps is not None and steps < 1):
    raise UserError('bench memory: the numbers of pieces and steps must be at least 1, and the seed at least 0')
  if notes is not None and not 1 <= notes <= twin_instruments.PLACES - 3:
    raise UserError(f'bench memory: --notes is {notes}; it must be 1 to {twin_instruments.PLACES - 3}')

  folder = files.make_folder(output)
  data = folder / f'data-{seed}-{train_pieces}-{test_pieces}{"" if notes is None else f"-{notes}"}'
  print(f'rendering {train_pieces} + {test_pieces} twin-instrument pieces', file=sys.stderr, flush=True)
  count = twin_instruments.NOTES_PER_SEGMENT if notes is None else notes
  twin_instruments.write_dataset(data, seed, train_pieces, test_pieces, SEGMENT_SECONDS, notes_per_segment=count)
  scores = {}
  for variant, gin_files in VARIANTS.items():
    # Other steps or data need a model folder of their own. Otherwise training would resume from the wrong checkpoint.
    model = folder / f'model-{"".join(c if c.isalnum() else "_" for c in variant)}-{data.name}-{steps or "all"}'
    print(f'\n{variant}: training', file=sys.stderr, flush=True)
    start = time.monotonic()
    train(data, model, gin_files, steps, seed)
    scores[variant] = {**score(data, model), 'train_seconds': time.monotonic() - start}
  with files.atomic_path(folder / 'scores.json') as temporary:
    temporary.write_text(json.dumps(scores, indent=2) + '\n')
  return scores


def train(data: Path, model: Path, gin_files: tuple[str, ...], steps: int | None, seed: int) -> None:
  """Train gin/runs/twin.gin with overriding gin files in a subprocess."""
  from mrmt3.studies import training

  flags = [
    '--gin_file=runs/twin.gin',
    *gin_files,
    f'--gin.MODEL_DIR={model}',
    f'--gin.DATA_DIR={data}',
    f'--gin.SEED={seed}',
  ]
  training.run(flags if steps is None else [*flags, f'--gin.TRAIN_STEPS={steps}'])


def score(data: Path, model: Path) -> dict[str, float]:
  """Transcribe every test piece from its audio and return the mean scores."""
  from mrmt3.audio import files as audio_files
  from mrmt3.evaluation import metric_registry
  from mrmt3.inference.transcriber import Transcriber

  transcriber = Transcriber.load(model)
  onset, by_class = [], []
  for track in slakh_layout.find_tracks(data, 'test'):
    samples = audio_files.read_audio(track.audio_path, transcriber.sample_rate)
    notes = transcriber.transcribe(samples, transcriber.sample_rate).notes
    scores = metric_registry.evaluate_piece(slakh_layout.read_notes(track), notes)
    onset.append(scores['onset_f1'])
    by_class.append(scores['onset_program_f1'])
  return {'onset_f1': float(np.mean(onset)), 'class_f1': float(np.mean(by_class))}


def verdict(scores: dict[str, dict[str, float]]) -> bool:
  """Return whether the network distinguishes the twins with memory, and cannot without it."""
  return scores['memory']['class_f1'] >= WITH_MEMORY and scores['L_agg = 0']['class_f1'] <= WITHOUT_MEMORY
