"""Training in a process of its own, and what it cost."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError
from mrmt3.utils import files, huge_pages

# Linux tells a process that has asked for it (prctl's PR_SET_PDEATHSIG, 1) when its parent dies. What runs between fork and
# exec (preexec_fn) could deadlock here, where JAX has threads, so that the new process asks.
_FOLLOW_PARENT = """
import ctypes, os, signal, sys
if sys.platform == 'linux':
  ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(sys.executable, [sys.executable, '-m', 'mrmt3.train', *sys.argv[1:]])
"""
_PEAK_NAME = 'peak_megabytes.json'


def run(flags: Sequence[str], keep_open: Sequence[int] = ()) -> float:
  """Trains with the flags of `mrmt3.train`, and returns the peak of the process's memory, MB.

  If this process is killed, the training is asked to stop (on Linux), which saves where it stands.

  Args:
    flags: the training's.
    keep_open: file descriptors that it inherits.

  Raises:
    UserError: it failed; its own message stands on stderr.
  """
  huge_pages.set_for_child_processes()
  process = subprocess.Popen([sys.executable, '-c', _FOLLOW_PARENT, *flags], pass_fds=keep_open)
  try:
    _, status, usage = os.wait4(process.pid, 0)
  except BaseException:
    process.terminate()
    with contextlib.suppress(ChildProcessError):
      os.wait4(process.pid, 0)
    process.returncode = -signal.SIGTERM
    raise
  process.returncode = code = os.waitstatus_to_exitcode(status)
  if code == 128 + signal.SIGINT:
    raise KeyboardInterrupt
  if code != 0:
    raise UserError(f'training ended with exit code {code}; its message is above')
  return usage.ru_maxrss / 1024


def train(flags: Sequence[str], model_dir: Path, steps: int, keep_open: Sequence[int] = ()) -> None:
  """Trains `model_dir` to `steps`, from where it stands; does nothing if it is there. Errors are `run`'s."""
  if orbax_checkpoints.latest_step(model_dir) == steps:
    return
  peak = run([*flags, f'--gin.MODEL_DIR={model_dir}', f'--gin.TRAIN_STEPS={steps}'], keep_open)
  with files.atomic_path(model_dir / _PEAK_NAME) as temporary:
    temporary.write_text(json.dumps(peak) + '\n')


def cost(model_dir: Path, batch_size: int) -> dict[str, float]:
  """Returns what a training cost, as far as its logs say: as measured while it ran, beside whatever else ran then.

  step_seconds and tokens_per_second (targets, without padding) are medians over all reports but the first, in which the network was
  compiled; so it is in one of the others where a training was taken up again. train_loss is the last report's, peak_megabytes that of the process that did the last step.
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
