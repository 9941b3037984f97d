"""Runs one side of a benchmark in a process of its own, so that sides share neither memory nor settings nor packages."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def run(
  script: str,
  arguments: Sequence[str],
  *,
  python: str = sys.executable,
  path: Sequence[str] = (),
  variables: Mapping[str, str] | None = None,
  timeout: float | None = None,
) -> Any:
  """Returns what the last line of a script's output says as JSON; the script runs on the CPU.

  Args:
    script: the file.
    arguments: of the script.
    python: interpreter that has what the script imports.
    path: folders to be searched for modules first.
    variables: of the environment, besides those of this process.
    timeout: most seconds it may take.

  Raises:
    SystemExit: it fails or takes too long; the message has its last words.
  """
  folders = [*path, *filter(None, [os.environ.get('PYTHONPATH')])]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': os.pathsep.join(folders), **(variables or {})}
  what = f'{Path(script).stem}: {" ".join(arguments)}'
  try:
    done = subprocess.run(
      [python, script, *arguments], env=environment, capture_output=True, text=True, timeout=timeout
    )
  except subprocess.TimeoutExpired:
    sys.exit(f'{what} was not done after {timeout:g} s; allow more, or measure less')
  if done.returncode:
    sys.exit(f'{what} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}')
  return json.loads(done.stdout.splitlines()[-1])
