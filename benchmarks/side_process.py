"""Runs one side of a benchmark in a subprocess, so that the sides share no memory, settings or packages."""

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
  """Run a script on the CPU and return the last line of its output, parsed as JSON.

  Args:
    script: path of the script.
    arguments: its arguments.
    python: an interpreter that has the packages of the script.
    path: folders to add at the front of PYTHONPATH.
    variables: additional environment variables.
    timeout: time limit, s.

  Raises:
    SystemExit: the script fails or exceeds the time limit; the message contains the end of its output.
  """
  folders = [*path, *filter(None, [os.environ.get('PYTHONPATH')])]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': os.pathsep.join(folders), **(variables or {})}
  label = f'{Path(script).stem}: {" ".join(arguments)}'
  try:
    done = subprocess.run(
      [python, script, *arguments], env=environment, capture_output=True, text=True, timeout=timeout
    )
  except subprocess.TimeoutExpired:
    sys.exit(f'{label} was not done after {timeout:g} s; raise the time limit, or measure less')
  if done.returncode:
    sys.exit(f'{label} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}')
  return json.loads(done.stdout.splitlines()[-1])
