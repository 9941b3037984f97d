"""seqio loggers for whole pieces: a table on the console, JSON lines, piano rolls and audio in TensorBoard.

Bind them as seqio.Evaluator.logger_cls, with either engine (see `DEFAULT` and gin/runs/eval.gin). seqio's own
TensorBoardLogger writes the scalars. Targets and predictions must be `piece_metrics.PieceNotes`; for other tasks only
the scalars are logged.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import seqio

from mrmt3.evaluation import metric_registry
from mrmt3.evaluation.piece_metrics import PieceNotes, summarise
from mrmt3.utils import console, files

_PIECES = 3  # pieces with images and audio
_SECONDS = 30.0
_SAMPLE_RATE = 16000


def _numbers(metrics) -> dict[str, float]:
  scalars = {name: value.value for name, value in metrics.items() if isinstance(value, seqio.metrics.Scalar)}
  return {name: float(value) for name, value in scalars.items()}


def _pieces(targets, inferences) -> tuple[list, list]:
  """Return (references, predictions), the same list objects as the metric's; empty lists if they are not of pieces."""
  predictions = (inferences or {}).get('prediction') or []
  both = [*(targets or []), *predictions]
  is_pieces = targets and len(targets) == len(predictions) and all(isinstance(side, PieceNotes) for side in both)
  return (targets, predictions) if is_pieces else ([], [])


class ConsoleLogger(seqio.loggers.Logger):
  """Prints the headline scores to stderr, each with its 95 % interval over pieces."""

  def __call__(self, task_name, step, metrics, dataset, inferences, targets) -> None:
    """See seqio.loggers.Logger."""
    references, predictions = _pieces(targets, inferences)
    if references:
      summary = summarise(references, predictions)
      lines = [_headline(score.name, summary) for score in metric_registry.shown_in('log')]
    else:
      lines = [f'  {name:<40} {value:.4g}' for name, value in _numbers(metrics).items()]
    what = console.counted(len(references), 'piece') if references else 'scores'
    print('\n'.join([f'{task_name} step {step}: {what}', *lines]), file=sys.stderr, flush=True)


def _headline(name, summary):
  low, high = summary.interval(name)
  interval = '' if np.isnan(low) else f'  95 % {low:.3f} .. {high:.3f}'
  return f'  {name:<36} {summary.mean[name]:7.3f}{interval}'


class JsonLogger(seqio.loggers.Logger):
  """Writes one line per step to <task>-metrics.jsonl, and the scores of each piece to <task>-pieces-<step>.jsonl.

  A repeated evaluation replaces the line and the file of its step.
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
  """Add {'step': step, **numbers} to a JSONL file, atomically; a line of the same step is replaced."""
  lines = path.read_text().splitlines() if path.exists() else []
  kept = [line for line in lines if line.strip() and json.loads(line).get('step') != step]
  with files.atomic_path(path) as temporary:
    temporary.write_text('\n'.join([*kept, json.dumps({'step': step, **numbers})]) + '\n')


class PictureLogger(seqio.loggers.Logger):
  """Logs piano rolls and synthesized audio of a few pieces to TensorBoard.

  An image shows the reference above the transcription. The audio has the reference on the left channel, and the
  transcription on the right. The pieces are always the first ones, so that steps can be compared.

  Args:
    output_dir: folder of the events, as for seqio.TensorBoardLogger.
    pieces: number of pieces; 0 logs nothing.
    seconds: length of the excerpt from each piece's start, s.
    audio: whether to log audio; needs symusic (the extra `dataset`). If it is missing, a warning goes to stderr.
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
      for target, prediction in pairs:
        tf.summary.image(f'{target.name}/roll', self._picture(target, prediction)[None], step=step)
        sound = self._play(target, prediction)
        if sound is not None:
          tf.summary.audio(f'{target.name}/sound', sound[None], _SAMPLE_RATE, step=step, encoding='wav')
    self._writers[task_name].flush()

  def _picture(self, target, prediction) -> np.ndarray:
    from mrmt3.plots import piano_roll

    figure = piano_roll.piano_roll(None, target.notes, prediction.notes, title=target.name, seconds=self._seconds)
    figure.set_dpi(80)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]

  def _play(self, target, prediction) -> np.ndarray | None:
    """Return audio, float32 `[samples, 2]`, or None if it cannot be synthesized."""
    if not self._audio:
      return None
    from mrmt3.audio import sonify

    last = max((float(side.notes['offset'].max(initial=0)) for side in (target, prediction)), default=0.0)
    seconds = min(self._seconds, max(last, 1.0))
    try:
      sides = [sonify.play_notes(_begin(side.notes, seconds), seconds, _SAMPLE_RATE) for side in (target, prediction)]
    except ModuleNotFoundError as error:
      print(
        f'mrmt3: no audio in TensorBoard: {error.name} is missing; install it with: pip install "mrmt3[dataset]"',
        file=sys.stderr,
      )
      self._audio = False
      return None
    return np.stack([_loud(side) for side in sides], axis=-1)


def _begin(notes, seconds):
  """Return the notes with an onset before `seconds`, truncated there."""
  notes = notes[notes['onset'] < seconds].copy()
  notes['offset'] = np.minimum(notes['offset'], seconds)
  return notes


def _loud(samples):
  peak = float(np.abs(samples).max(initial=0.0))
  return samples * np.float32(0.9 / peak) if peak else samples


DEFAULT = (seqio.TensorBoardLogger, JsonLogger, ConsoleLogger, PictureLogger)
