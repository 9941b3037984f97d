"""Random gin bindings and command lines: no traceback, no hang, one line. The scripts run any number of cases."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def run_script(name, number, seed):
  done = subprocess.run(
    [sys.executable, FOLDER / name, '--n', str(number), '--seed', str(seed)],
    capture_output=True,
    text=True,
    check=False,
    cwd=FOLDER,
    timeout=7200,
  )
  assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
  return done.stdout


@pytest.mark.parametrize('name', ['fuzz_gin.py', 'fuzz_commands.py'])
def test_some_cases(name):
  output = run_script(name, 60, seed=1)
  assert "'failed'" not in output and "'refused'" in output and "'ran'" in output


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fuzz_gin.py', 'fuzz_commands.py'])
def test_5000_cases(name):
  assert "'failed'" not in run_script(name, 5000, seed=2)


def test_a_failure_is_found():
  """A program in place of the training that raises, prints two lines, or returns an odd code counts as failed."""
  sys.path.insert(0, str(FOLDER))
  import fuzz_commands

  def raises(argv):
    raise TypeError('x')

  def two_lines(argv):
    print('mrmt3: error: a\nb', file=sys.stderr)
    return 2

  assert fuzz_commands.run_case(raises, [])[0] == 'failed'
  assert fuzz_commands.run_case(two_lines, [])[0] == 'failed'
  assert fuzz_commands.run_case(lambda argv: 1, [])[0] == 'failed'
  assert fuzz_commands.run_case(lambda argv: 0, [])[0] == 'ran'
