"""Training in a subprocess, and its cost."""

import contextlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError
from mrmt3.utils import child_process, files, huge_pages, interrupts

_PEAK_NAME = 'peak_megabytes.json'


def run(flags: Sequence[str], keep_open: Sequence[int] = ()) -> float:
  """Train with flags of `mrmt3.train` and return the peak memory of the process, MB.

  If this process is killed, the training gets SIGTERM, saves a checkpoint and stops.

  Args:
    flags: flags of the training.
    keep_open: file descriptors that the training inherits.

  Raises:
    UserError: the training failed; its message is on stderr.
  """
  huge_pages.set_for_child_processes()
  code, megabytes = child_process.run('mrmt3.train', flags, keep_open)
  if code == interrupts.EXIT_CODE:
    raise KeyboardInterrupt
  if code != 0:
    raise UserError(f'training ended with exit code {code}; its message is above')
  return megabytes


def train(flags: Sequence[str], model_dir: Path, steps: int, keep_open: Sequence[int] = ()) -> None:
  """Train `model_dir` from its latest checkpoint to `steps`. See `run` for errors."""
  if orbax_checkpoints.latest_step(model_dir) == steps:
    return
  peak = run([*flags, f'--gin.MODEL_DIR={model_dir}', f'--gin.TRAIN_STEPS={steps}'], keep_open)
  with files.atomic_path(model_dir / _PEAK_NAME) as temporary:
    temporary.write_text(json.dumps(peak) + '\n')


def cost(model_dir: Path, batch_size: int) -> dict[str, float]:
  """Return the costs of a training that its logs contain. Other load on the machine affects them.

  | key | value |
  |---|---|
  | step_seconds, tokens_per_second | medians over all reports except the first, which includes compilation |
  | train_loss | loss of the last report |
  | peak_megabytes | peak memory of the process that did the last step |

  tokens_per_second counts target tokens without padding. After a resumed training, a later report includes compilation,
  too.
  """
  with contextlib.suppress(OSError, ValueError, KeyError, ZeroDivisionError):
    lines = [json.loads(line) for line in (model_dir / 'train.jsonl').read_text().splitlines()]
    found = {'train_loss': lines[-1]['loss']} if lines else {}
    if lines[1:]:
      seconds = [batch_size / line['examples_per_second'] for line in lines[1:]]
      rates = [line['tokens_per_step'] / one for line, one in zip(lines[1:], seconds, strict=True)]
      found |= {'step_seconds': statistics.median(seconds), 'tokens_per_second': statistics.median(rates)}
    with contextlib.suppress(OSError, ValueError):
      found['peak_megabytes'] = float(json.loads((model_dir / _PEAK_NAME).read_text()))
    return found
  return {}
