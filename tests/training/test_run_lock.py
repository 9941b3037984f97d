import os
import subprocess
import sys

import pytest

from mrmt3.errors import UserError
from mrmt3.training import run_lock

HOLD = """
import sys, time
from mrmt3.training import run_lock
with run_lock.only_run(sys.argv[1]):
  print("held", flush=True)
  time.sleep(60)
"""


def test_a_second_run_is_told_who_is_there(tmp_path):
  with run_lock.only_run(str(tmp_path)):
    second = run_lock.only_run(str(tmp_path))
    with pytest.raises(UserError, match=f'process {os.getpid()} on '):
      second.__enter__()
  assert not list(tmp_path.iterdir())
  with run_lock.only_run(str(tmp_path)):
    pass


def test_a_killed_run_holds_nothing(tmp_path):
  process = subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'held\n'
  with pytest.raises(UserError, match='another run'), run_lock.only_run(str(tmp_path)):
    pass
  process.kill()
  process.wait()
  assert (tmp_path / run_lock.FILE).exists()
  with run_lock.only_run(str(tmp_path)):
    pass
  assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_named(tmp_path):
  file = tmp_path / 'file'
  file.write_text('')
  with pytest.raises(UserError, match='file'), run_lock.only_run(str(file)):
    pass


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
  import fcntl

  def refuse(*_):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(fcntl, 'flock', refuse)
  entered = 0
  with run_lock.only_run(str(tmp_path)), run_lock.only_run(str(tmp_path)):
    entered += 1
  assert entered == 1


def test_a_file_that_never_stays_is_no_endless_loop(tmp_path, monkeypatch):
  looked = []
  monkeypatch.setattr(run_lock, '_is_at', lambda *_: looked.append(1))
  with run_lock.only_run(str(tmp_path)):
    assert 1 < len(looked) <= 1000
