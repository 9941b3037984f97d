"""Where a run's numbers go: TensorBoard, a JSONL file, and a progress line."""

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from mrmt3 import files


class ScalarWriter:
  """Writes scalars to TensorBoard events in `<model_dir>/<name>/` and to `<model_dir>/<name>.jsonl`, a line a step.

  A run that goes on after `first_step` steps appends; lines of later steps, which it will do again, are taken out.
  """

  def __init__(self, model_dir: str, name: str, first_step: int = 0):
    from clu import metric_writers

    self._events = metric_writers.SummaryWriter(str(files.make_folder(Path(model_dir) / name)))
    path = Path(model_dir) / f'{name}.jsonl'
    _drop_later_lines(path, first_step)
    self._lines = path.open('a', buffering=1)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes named numbers at a step."""
    self._events.write_scalars(step, scalars)
    self._lines.write(json.dumps({'step': step, **{name: float(value) for name, value in scalars.items()}}) + '\n')

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes named texts at a step, to TensorBoard only."""
    self._events.write_texts(step, texts)

  def close(self) -> None:
    """Flushes and closes both."""
    self._events.close()
    self._lines.close()


def _drop_later_lines(path: Path, step: int) -> None:
  """Takes out of a JSONL file what was written after a step, and a last line that was cut off."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines(keepends=True):
    with contextlib.suppress(ValueError, KeyError, TypeError):
      if line.endswith('\n') and json.loads(line)['step'] <= step:
        kept.append(line)
  with files.atomic_path(path) as temporary:
    temporary.write_text(''.join(kept))


class TrainProgress:
  """A progress line on stderr: steps, steps/s, time left, loss and accuracy.

  A terminal gets a bar that is redrawn; anything else (a log file) gets a plain line every `quiet_seconds`.
  """

  def __init__(self, first_step: int, total_steps: int, quiet_seconds: float = 15.0):
    self._bar = tqdm(
        initial=first_step, total=total_steps, desc='train', unit='step', dynamic_ncols=True, disable=not sys.stderr.isatty()
    )
    self._first, self._total, self._quiet_seconds = first_step, total_steps, quiet_seconds
    self._start = self._last_line = time.monotonic()

  def advance(self) -> None:
    """Counts one step."""
    self._bar.update()

  def show(self, step: int, summary: Mapping[str, float]) -> None:
    """Shows the newest numbers."""
    text = f"loss {summary['loss']:.3f} accuracy {summary['accuracy']:.3f}"
    self._bar.set_postfix_str(text)
    now = time.monotonic()
    if self._bar.disable and (now - self._last_line > self._quiet_seconds or step == self._total):
      rate = (step - self._first) / max(now - self._start, 1e-9)
      left = (self._total - step) / max(rate, 1e-9)
      print(f'train step {step}/{self._total}  {text}  {rate:.2f} steps/s  {left:.0f} s left', file=sys.stderr, flush=True)
      self._last_line = now

  def close(self) -> None:
    """Ends the line."""
    self._bar.close()
