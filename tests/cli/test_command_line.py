"""The command line as a whole: fast start, and one line per error."""

import os
import subprocess
import sys
import time

import pytest


def command(*arguments, **kwargs):
  return subprocess.run(
    [sys.executable, '-m', 'mrmt3', *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
    timeout=120,
    **kwargs,
  )


def test_help_imports_nothing_heavy():
  code = (
    'import sys\nfrom mrmt3.cli.commands import build_parser\nbuild_parser().format_help()\n'
    "print([m for m in ('jax', 'flax', 'numpy', 'tensorflow', 'seqio', 'matplotlib', 'scipy') if m in sys.modules])"
  )
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert result.stdout.strip() == '[]'


def test_help_names_all_commands():
  result = command('--help')
  assert result.returncode == 0
  for name in (
    'transcribe',
    'evaluate',
    'fetch',
    'convert',
    'reproduce',
    'dataset',
    'inspect',
    'bench',
    'study',
    'demo',
    'train',
  ):
    assert name in result.stdout


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['transcribe', 'missing.wav', '-o', 'x.mid', '--checkpoint', 'nowhere'], 'nowhere'),
    (['transcribe', 'missing.wav', '-o', 'x.mid', '--quiet'], 'missing.wav'),
    (['evaluate', 'missing.mid', 'other.mid'], 'missing.mid'),
    (['dataset', 'build', 'file/inside'], 'file'),
    (['demo', '-o', 'taken'], 'taken'),
    (['convert', 'missing.ckpt', 'model'], 'missing.ckpt'),
    (['convert', 'file', 'model'], 'not a checkpoint'),
    (['fetch', 'mt4'], 'mr-mt3-64'),
    (['reproduce', 'slakh', '--data', 'nowhere'], 'nowhere'),
    (['train', '--gin_file=nothing.gin'], 'nothing.gin'),
    (['train'], '--gin_file'),
    (['transcribe', 'missing.wav', '-o', '-'], '-o -'),
    (['bench', 'memory', '--seed', '-1'], 'seed'),
    (['bench', 'memory', '--notes', '0'], 'notes'),
    (['study', 'ablations', '-o', 'x', '--steps', '0'], 'steps'),
    (['dataset', 'build', 'foreign', '--force', '--recipe', 'demo'], 'was not built here'),
  ],
)
def test_errors_are_one_line(tmp_path, arguments, message):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'taken').mkdir()
  (tmp_path / 'foreign' / 'train').mkdir(parents=True)
  (tmp_path / 'taken' / 'precious').write_text('')
  result = command(*arguments, cwd=tmp_path)
  assert result.returncode == 2
  assert len(result.stderr.splitlines()) == 1, result.stderr
  assert result.stderr.startswith('mrmt3: error: ') and message in result.stderr
  assert sorted(p.name for p in tmp_path.rglob('*')) == ['file', 'foreign', 'precious', 'taken', 'train']


def test_a_full_disk_on_stdout_is_one_line(tmp_path):
  from mrmt3.notes import midi, note_array

  midi.write_midi(note_array.as_notes([(0, 1, 60, 100, 0, 0)]), tmp_path / 'a.mid')
  with open('/dev/full', 'w') as full:
    result = subprocess.run(
      [sys.executable, '-m', 'mrmt3', 'evaluate', 'a.mid', 'a.mid'],
      stdout=full,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
      cwd=tmp_path,
    )
  assert result.returncode == 2
  assert 'No space left' in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr


def test_interrupt_is_not_a_traceback(tmp_path):
  import signal

  process = subprocess.Popen(
    [sys.executable, '-m', 'mrmt3', 'dataset', 'build', str(tmp_path / 'out'), '--recipe', 'corpus', '--hours', '3'],
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  time.sleep(4)  # three hours of audio take longer
  os.killpg(process.pid, signal.SIGINT)
  _, errors = process.communicate(timeout=30)
  assert process.returncode == 130
  assert 'Traceback' not in errors
