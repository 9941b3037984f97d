"""seqio loggers for whole pieces: a table on the console, JSON lines, piano rolls and sound in TensorBoard.

To be bound as seqio.Evaluator.logger_cls, under either engine (`DEFAULT`, and gin/runs/eval.gin). Scalars go to TensorBoard by
seqio's own TensorBoardLogger. What they are called with is `piece_metrics.PieceNotes`; of other tasks they log the numbers alone.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import seqio

from mrmt3.evaluation import metric_registry
from mrmt3.evaluation.piece_metrics import PieceNotes, summarise
from mrmt3.utils import files

_PIECES = 3  # with pictures and sound
_SECONDS = 30.0
_SAMPLE_RATE = 16000


def _numbers(metrics) -> dict[str, float]:
  scalars = {name: value.value for name, value in metrics.items() if isinstance(value, seqio.metrics.Scalar)}
  return {name: float(value) for name, value in scalars.items()}


def _pieces(targets, inferences) -> tuple[list, list]:
  """Returns (references, predictions), the very lists that the metric had; two empty ones if they are not of pieces."""
  predictions = (inferences or {}).get('prediction') or []
  both = [*(targets or []), *predictions]
  is_pieces = targets and len(targets) == len(predictions) and all(isinstance(side, PieceNotes) for side in both)
  return (targets, predictions) if is_pieces else ([], [])


class ConsoleLogger(seqio.loggers.Logger):
  """Prints the headline scores on stderr, each with its 95 % interval over pieces."""

  def __call__(self, task_name, step, metrics, dataset, inferences, targets) -> None:
    """See seqio.loggers.Logger."""
    references, predictions = _pieces(targets, inferences)
    if references:
      summary = summarise(references, predictions)
      lines = [_headline(score.name, summary) for score in metric_registry.shown_in('log')]
    else:
      lines = [f'  {name:<40} {value:.4g}' for name, value in _numbers(metrics).items()]
    what = f'{len(references)} pieces' if references else 'scores'
    print('\n'.join([f'{task_name} step {step}: {what}', *lines]), file=sys.stderr, flush=True)


def _headline(name, summary):
  low, high = summary.interval(name)
  interval = '' if np.isnan(low) else f'  95 % {low:.3f} .. {high:.3f}'
  return f'  {name:<36} {summary.mean[name]:7.3f}{interval}'


class JsonLogger(seqio.loggers.Logger):
  """Writes a line a step to <task>-metrics.jsonl, and the scores of each piece to <task>-pieces-<step>.jsonl.

  An evaluation that is repeated takes the place of the line, or file, of its step.
  """

  def __call__(self, task_name, step, metrics, dataset, inferences, targets) -> None:
    """See seqio.loggers.Logger."""
    step, folder = -1 if step is None else int(step), files.make_folder(self.output_dir)
    write_metrics_line(folder / f'{task_name}-metrics.jsonl', step, _numbers(metrics))
    references, predictions = _pieces(targets, inferences)
    if references:
      lines = (json.dumps(piece.to_dict()) + '\n' for piece in summarise(references, predictions).pieces)
      with files.atomic_path(folder / f'{task_name}-pieces-{step}.jsonl') as temporary:
        temporary.write_text(''.join(lines))


def write_metrics_line(path: Path, step: int, numbers: dict[str, float]) -> None:
  """Adds {'step': step, **numbers} to a JSONL file, in place of the step's line where there is one; whole or not at all."""
  lines = path.read_text().splitlines() if path.exists() else []
  kept = [line for line in lines if line.strip() and json.loads(line).get('step') != step]
  with files.atomic_path(path) as temporary:
    temporary.write_text('\n'.join([*kept, json.dumps({'step': step, **numbers})]) + '\n')


class PictureLogger(seqio.loggers.Logger):
  """Draws piano rolls of a few pieces and plays them, for TensorBoard's tabs Images and Audio.

  A picture has the reference above the transcription; the sound has the reference left, the transcription right. The
  pieces are the first ones, so that a run's pictures can be compared over its steps.

  Args:
    output_dir: the folder of the events, as seqio.TensorBoardLogger's.
    pieces: how many; 0 draws and plays nothing.
    seconds: how much of each, from its start.
    audio: whether to play them; needs symusic (the extra `dataset`), without which a line on stderr says so.
  """

  def __init__(self, output_dir: str, pieces: int = _PIECES, seconds: float = _SECONDS, audio: bool = True):
    super().__init__(output_dir)
    self._pieces, self._seconds, self._audio, self._writers = pieces, seconds, audio, {}

  def __call__(self, task_name, step, metrics, dataset, inferences, targets) -> None:
    """See seqio.loggers.Logger."""
    import tensorflow as tf

    pairs = list(zip(*_pieces(targets, inferences), strict=True))[: self._pieces]
    if not pairs:
      return
    if task_name not in self._writers:
      self._writers[task_name] = tf.summary.create_file_writer(os.path.join(self.output_dir, task_name))
    step = -1 if step is None else int(step)
    with self._writers[task_name].as_default():
      for target, said in pairs:
        tf.summary.image(f'{target.name}/roll', self._picture(target, said)[None], step=step)
        sound = self._play(target, said)
        if sound is not None:
          tf.summary.audio(f'{target.name}/sound', sound[None], _SAMPLE_RATE, step=step, encoding='wav')
    self._writers[task_name].flush()

  def _picture(self, target, said) -> np.ndarray:
    from mrmt3.plots import piano_roll

    figure = piano_roll.piano_roll(None, target.notes, said.notes, title=target.name, seconds=self._seconds)
    figure.set_dpi(80)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]

  def _play(self, target, said) -> np.ndarray | None:
    """Returns float32 `[samples, 2]`, or None where there is nothing to play with."""
    if not self._audio:
      return None
    from mrmt3.audio import sonify

    last = max((float(side.notes['offset'].max(initial=0)) for side in (target, said)), default=0.0)
    seconds = min(self._seconds, max(last, 1.0))
    try:
      sides = [sonify.play_notes(_begin(side.notes, seconds), seconds, _SAMPLE_RATE) for side in (target, said)]
    except ModuleNotFoundError as error:
      print(f'mrmt3: no sound in TensorBoard: {error.name} is missing; pip install "mrmt3[dataset]"', file=sys.stderr)
      self._audio = False
      return None
    return np.stack([_loud(side) for side in sides], axis=-1)


def _begin(notes, seconds):
  """Returns the notes that begin before `seconds`, cut there."""
  notes = notes[notes['onset'] < seconds].copy()
  notes['offset'] = np.minimum(notes['offset'], seconds)
  return notes


def _loud(samples):
  peak = float(np.abs(samples).max(initial=0.0))
  return samples * np.float32(0.9 / peak) if peak else samples


DEFAULT = (seqio.TensorBoardLogger, JsonLogger, ConsoleLogger, PictureLogger)
