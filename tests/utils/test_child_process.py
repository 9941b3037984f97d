"""Child processes that end when their parent does. A module that waits stands in for a command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrmt3.utils import child_process

WAITS = """
import os, pathlib, signal, sys, time
from mrmt3.utils import child_process, interrupts
interrupts.install()
child_process.follow_parent()
assert 'MRMT3_PARENT_PIPE' not in os.environ
pathlib.Path('pid.new').write_text(str(os.getpid()))
os.rename('pid.new', 'pid')
time.sleep(float(sys.argv[1]))
raise SystemExit(7)
"""
STARTER = """
from mrmt3.utils import child_process, interrupts
interrupts.install()
try:
  with interrupts.working():
    child_process.run('waits', ['60'])
except KeyboardInterrupt:
  interrupts.end()
"""


def has_ended(pid):
  """Return whether a process is gone or a zombie."""
  try:
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z'
  except OSError:
    return True


@pytest.fixture
def waits(tmp_path, monkeypatch):
  (tmp_path / 'waits.py').write_text(WAITS)
  monkeypatch.setenv('PYTHONPATH', f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
  monkeypatch.chdir(tmp_path)


def test_exit_code_and_memory(waits):
  code, megabytes = child_process.run('waits', ['0'])
  assert code == 7 and megabytes > 1


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(waits, number):
  parent = subprocess.Popen([sys.executable, '-c', STARTER], stderr=subprocess.PIPE, text=True)
  deadline = time.monotonic() + 30
  while not os.path.exists('pid'):
    assert time.monotonic() < deadline
    time.sleep(0.02)
  child = int(Path('pid').read_text())
  assert not has_ended(child)
  parent.send_signal(number)
  code = parent.wait()
  if number == signal.SIGINT:
    assert code == 130 and has_ended(child)  # it is waited for
  while not has_ended(child):
    assert time.monotonic() < deadline, 'the child lives on'
    time.sleep(0.02)
  assert 'Traceback' not in parent.communicate()[1]
