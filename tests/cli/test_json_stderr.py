"""`--progress json`: standard error is JSON lines, whatever is written to it."""

import json
import os
import subprocess
import sys

import pytest

from mrmt3.cli import json_stderr
from mrmt3.cli.main import main


def events(capfd):
  return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.mark.parametrize(
  'words, wanted',
  [
    ('transcribe a.wav --progress json', True),
    ('transcribe a.wav --progress=json', True),
    ('transcribe --prog json a.wav', True),
    ('transcribe --progress json --progress bar a.wav', False),
    ('transcribe --plot json a.wav', False),
    ('transcribe a.wav', False),
    ('transcribe a.wav --progress', False),
    ('evaluate --progress json', False),
    ('', False),
  ],
)
def test_when_it_is_requested(words, wanted):
  assert json_stderr.is_requested(words.split()) == wanted


def test_every_line_becomes_an_event(capfd):
  with json_stderr.redirected():
    print('mrmt3: error: no such file: a\tb', file=sys.stderr)
    print('mrmt3: warning: it is quiet', file=sys.stderr)
    print('mrmt3 transcribe: error: unknown option', file=sys.stderr)
    print(json.dumps({'event': 'done'}), file=sys.stderr)
    print('{not JSON}\n', file=sys.stderr)
    print('mrmt3: interrupted', file=sys.stderr)
    subprocess.run([sys.executable, '-c', 'import os; os.write(2, b"caf\\xe9 of a child")'], check=True)
  assert events(capfd) == [
    {'event': 'error', 'error': 'no such file: a\tb'},
    {'event': 'warning', 'warning': 'it is quiet'},
    {'event': 'error', 'error': 'unknown option'},
    {'event': 'done'},
    {'event': 'log', 'text': '{not JSON}'},
    {'event': 'error', 'error': 'interrupted'},
    {'event': 'log', 'text': 'caf\\xe9 of a child'},
  ]
  os.write(2, b'afterwards\n')
  assert capfd.readouterr().err == 'afterwards\n'


def test_a_child_that_lives_on_does_not_block(capfd):
  with json_stderr.redirected():
    child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
  child.communicate(b'\n')
  assert capfd.readouterr().err == ''


@pytest.mark.parametrize('error, code', [(KeyboardInterrupt(), 130), (RuntimeError('broken'), 1)])
def test_an_exception_is_reported_as_events(capfd, error, code):
  with pytest.raises(SystemExit) as caught, json_stderr.redirected():
    raise error
  assert caught.value.code == code
  assert all(event['event'] == 'log' for event in events(capfd))


@pytest.mark.parametrize(
  'words',
  [
    'transcribe none.wav -o x.mid --progress json',
    'transcribe --progress json --batch many',
    'transcribe --progress json',
  ],
)
def test_errors_of_arguments(capfd, words, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  try:
    code = main(words.split())
  except SystemExit as stop:
    code = stop.code
  found = events(capfd)
  assert code == 2 and [event['event'] for event in found].count('error') == 1
