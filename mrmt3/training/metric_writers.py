"""Writers of a run's metrics: TensorBoard, a JSONL file and a progress line."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from mrmt3.errors import UserError
from mrmt3.utils import files


class ScalarWriter:
  """Writes scalars to TensorBoard events in `<model_dir>/<name>/` and to `<model_dir>/<name>.jsonl`, one line per step.

  A run resumed at `first_step` appends; lines of later steps are removed, since the run repeats these steps.
  """

  def __init__(self, model_dir: str, name: str, first_step: int = 0):
    """Open both for appending.

    Args:
      model_dir: the run's folder.
      name: of the folder and of the JSONL file in it.
      first_step: steps done.

    Raises:
      UserError: a file cannot be written; this is also raised by all methods.
    """
    from clu import metric_writers

    self._path = Path(model_dir) / f'{name}.jsonl'
    folder = files.make_folder(Path(model_dir) / name)
    _drop_later_lines(self._path, first_step)
    with _writing(folder):
      self._events = metric_writers.SummaryWriter(str(folder))
    with _writing(self._path):
      # Unbuffered: after an error, a buffer would be written once more when the file is closed.
      self._lines = self._path.open('ab', buffering=0)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Write named numbers at a step."""
    line = json.dumps({'step': step, **{name: float(value) for name, value in scalars.items()}}) + '\n'
    with _writing(self._path):
      self._events.write_scalars(step, scalars)
      rest = memoryview(line.encode())
      while rest:
        rest = rest[self._lines.write(rest) :]

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Write named texts at a step, to TensorBoard only."""
    with _writing(self._path):
      self._events.write_texts(step, texts)

  def close(self) -> None:
    """Flush and close both."""
    self._lines.close()
    with _writing(self._path):
      self._events.close()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
  """Turn an error of writing logs, such as a full disk, into a UserError."""
  import tensorflow as tf

  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    reason = error.strerror if isinstance(error, OSError) else error.message
    raise UserError(
      f'cannot write the logs in {path.parent}: {reason}; free some space, and run the same command again to resume'
    ) from error


def _drop_later_lines(path: Path, step: int) -> None:
  """Remove the lines of later steps, and an incomplete last line, from a JSONL file."""
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

  A terminal shows a progress bar; anything else, such as a log file, gets a plain line every `quiet_seconds`.
  """

  def __init__(self, first_step: int, total_steps: int, quiet_seconds: float = 15.0):
    self._bar = tqdm(
      initial=first_step,
      total=total_steps,
      desc='train',
      unit='step',
      dynamic_ncols=True,
      disable=not sys.stderr.isatty(),
    )
    self._first, self._total, self._quiet_seconds = first_step, total_steps, quiet_seconds
    self._start = self._last_line = time.monotonic()

  def advance(self) -> None:
    """Count one step."""
    self._bar.update()

  def show(self, step: int, summary: Mapping[str, float]) -> None:
    """Show the latest loss and accuracy."""
    text = f'loss {summary["loss"]:.3f} accuracy {summary["accuracy"]:.3f}'
    self._bar.set_postfix_str(text)
    now = time.monotonic()
    if self._bar.disable and (now - self._last_line > self._quiet_seconds or step == self._total):
      rate = (step - self._first) / max(now - self._start, 1e-9)
      left = (self._total - step) / max(rate, 1e-9)
      print(
        f'train step {step}/{self._total}  {text}  {rate:.2f} steps/s  {left:.0f} s left', file=sys.stderr, flush=True
      )
      self._last_line = now

  def close(self) -> None:
    """Close the progress bar."""
    self._bar.close()


def write_model_info(model_dir: str, state) -> int:
  """Write a table of all arrays of a state to model_dir/model-info.txt; return the number of parameters."""
  import jax

  rows, count = [], 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if name.startswith('target/'):
      count += leaf.size
    rows.append(f'{name:<80} {leaf.dtype!s:<9} {"x".join(map(str, leaf.shape)) or "scalar":<14} {leaf.size:>12,}')
  with files.atomic_path(Path(model_dir) / 'model-info.txt') as temporary:
    temporary.write_text('\n'.join([*rows, f'Total number of parameters: {count:,}', '']))
  return count


class Profiler:
  """Writes a profile of some steps to <model_dir>/profile, for TensorBoard or Perfetto."""

  def __init__(self, model_dir: str, first: int, steps: int):
    """Take the first step to profile and the number of steps; 0 disables profiling."""
    self._folder = Path(model_dir) / 'profile'
    self._first, self._end, self._running = first, first + steps, False

  def before(self, step: int, state) -> None:
    """Start or stop the profile; call this before each step, with the state that the step updates."""
    import jax

    if step == self._first < self._end:
      jax.block_until_ready(state)
      jax.profiler.start_trace(str(self._folder))
      self._running = True
    elif step == self._end and self._running:
      jax.block_until_ready(state)
      self.close()

  def close(self) -> None:
    """Stop a running profile."""
    import jax

    if self._running:
      self._running = False
      jax.profiler.stop_trace()
