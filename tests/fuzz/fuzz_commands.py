"""Fuzzing of command lines: `mrmt3` with random words either does its work or ends with one line.

  python tests/fuzz/fuzz_commands.py --n 5000 --seed 0

Runs in one process, in a folder of its own, and without network. What takes minutes or goes on until it is stopped
(training, rendering, studies, benchmarks, downloads, the server) is replaced; everything before it runs. Prints each
case that ended with a traceback or a hang.
"""

import argparse
import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import traceback
import types
import unittest.mock
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

LIMIT = 120  # s, for a case
# (module, function, result) of what takes minutes or needs a network.
REPLACED = (
  ('mrmt3.demo', 'run_training', 0),
  ('mrmt3.demo', 'run_bundled', 0),
  ('mrmt3.studies.twin_benchmark', 'run', {}),
  ('mrmt3.studies.twin_benchmark', 'verdict', True),
  ('mrmt3.studies.run', 'run', Path('study/index.html')),
  ('mrmt3.checkpoints.fetch', 'fetch', Path('fetched')),
  ('mrmt3.dataset_builder.sound_report', 'survey', types.SimpleNamespace(training=(), held_out=(), missing=('a',))),
  ('mrmt3.web.server', 'run', None),
)
WORDS = (
  *('song.mid', 'broken.mid', 'empty', 'song.wav', 'broken.wav', 'folder', 'data', 'text.txt', 'broken.npz', 'a.gin'),
  *('missing', 'missing/', './missing.wav', '..', '.', '', ' ', '-', '--', '*', '[', '**/*', 'x' * 400, 'song.mid/x'),
  *(
    '/dev/null',
    '/proc/nowhere/x',
    '/proc/self/mem',
    'z' * 255,
    'new/out.mid',
    'new',
    '\udcff.wav',
    '\u2603.mid',
    'a\nb',
  ),
  *(
    '0',
    '1',
    '-1',
    '2',
    '7',
    '1.5',
    '-0.5',
    'nan',
    'inf',
    '1e30',
    '99999999999999999999',
    'abc',
    '0x10',
    '1_0',
    'None',
  ),
  *(
    'test',
    'train',
    'slakh',
    'commu',
    'framewise',
    'mt3',
    'bass',
    'piano,drums',
    'nothing',
    ',',
    'carry',
    'json',
    'csv',
  ),
  *(
    'x=1',
    '=',
    'slakh.task.x=1',
    'MODEL_DIR=[',
    '%',
    '@x',
    'out.png',
    'out.json',
    'out.svg',
    'out.html',
    's16le',
    'bar',
  ),
)


def options_of(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], list]]:
  """Return (words of a command, its argparse actions) of all commands."""
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      return [found for name, sub in action.choices.items() for found in options_of(sub, (*words, name))]
  return [(words, parser._actions)]


def command_line(rng: random.Random, commands: list) -> list[str]:
  """Return random words."""
  words, actions = rng.choice(commands)
  line = list(words)
  for action in actions:
    if action.option_strings:
      if rng.random() < min(0.5, 3 / len(actions)):
        line.append(rng.choice(action.option_strings))
        if action.nargs != 0:
          line.append(_value(rng, action))
    elif rng.random() < 0.9:
      line += [_value(rng, action) for _ in range(rng.choice((1, 1, 1, 2)))]
  if rng.random() < 0.1:
    line.insert(rng.randrange(len(line) + 1), rng.choice(WORDS))
  if rng.random() < 0.05:
    line.pop(rng.randrange(len(line)))
  return line


def _value(rng: random.Random, action: argparse.Action) -> str:
  if action.choices and rng.random() < 0.8:
    return str(rng.choice(list(action.choices)))
  if action.type in (int, float) and rng.random() < 0.5:
    return str(rng.choice((1, 2, 3, 0, -1, 10**6)))
  return rng.choice(WORDS)


def run_case(main: Callable[[list[str]], int], argv: list[str]) -> tuple[str, str]:
  """Return (outcome, output) of the command line: 'ran', 'refused' or 'failed'."""

  def stop(*_):
    raise TimeoutError(f'not done after {LIMIT} s')

  out, err = io.TextIOWrapper(io.BytesIO(), errors='backslashreplace'), io.StringIO()
  before = signal.signal(signal.SIGALRM, stop)
  signal.alarm(LIMIT)
  usage = False
  try:
    with (
      contextlib.redirect_stdout(out),
      contextlib.redirect_stderr(err),
      _file_descriptor_2(err),
      unittest.mock.patch.object(sys, 'stdin', io.TextIOWrapper(io.BytesIO())),
    ):
      code = main(argv)
  except SystemExit as error:
    code, usage = error.code, True
  except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
      raise
    return 'failed', traceback.format_exc()
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
  lines = err.getvalue().splitlines()
  if 'Traceback' in err.getvalue() or 'Traceback' in out.buffer.getvalue().decode(errors='replace'):
    return 'failed', err.getvalue()
  if code == 0:
    return 'ran', err.getvalue()
  if code == 1 and argv[:1] in (['dataset'], ['bench']) and lines:  # a check that was not met
    return 'ran', err.getvalue()
  fine = code == 2 and lines and (usage or _is_refusal(lines))
  return ('refused' if fine else 'failed'), err.getvalue()


@contextlib.contextmanager
def _file_descriptor_2(err: io.StringIO) -> Iterator[None]:
  """Add what is written to file descriptor 2, which `--progress json` and libraries use, to `err`."""
  kept = os.dup(2)
  with tempfile.TemporaryFile() as file:
    os.dup2(file.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(kept, 2)
      os.close(kept)
      file.seek(0)
      err.write(file.read().decode(errors='backslashreplace'))


def _is_refusal(lines: list[str]) -> bool:
  """Return whether the lines are errors, one a file, next to lines on the model and the number of files."""
  known = ('mrmt3: ', 'model: ', '{')
  return any('error' in line for line in lines) and all(
    line.startswith(known) or ' of audio in ' in line or line.endswith('files transcribed') for line in lines
  )


def write_inputs(folder: Path) -> None:
  """Write the files that `WORDS` names."""
  import numpy as np
  import soundfile

  from mrmt3.notes import midi
  from mrmt3.notes.note_array import as_notes
  from mrmt3.studies import twin_instruments

  midi.write_midi(as_notes([(0.1, 0.5, 60, 100, 0, 0)]), folder / 'song.mid')
  soundfile.write(folder / 'song.wav', np.zeros(1600), 16000)
  for name in ('broken.mid', 'broken.wav', 'broken.npz', 'text.txt', 'a.gin'):
    (folder / name).write_bytes(b'MThd\0\0\0\6garbage = [\n')
  (folder / 'empty').write_bytes(b'')
  (folder / 'folder').mkdir()
  (folder / 'folder' / 'song.mid').write_bytes((folder / 'song.mid').read_bytes())
  twin_instruments.write_dataset(folder / 'data', seed=1, train_pieces=1, test_pieces=1, segment_seconds=0.512, pairs=2)


def fuzz(number: int, seed: int, report: Callable[[str], None] = print) -> Counter:
  """Return how many of `number` cases ran, were refused, and failed; calls `report` with each that failed.

  Works in the working folder.
  """
  import importlib

  from mrmt3.cli import main as cli_main
  from mrmt3.cli.commands import build_parser

  rng, counts = random.Random(seed), Counter()
  commands = [found for found in options_of(build_parser()) if found[0][0] not in cli_main.GIN_COMMANDS and found[0]]
  write_inputs(Path())
  with contextlib.ExitStack() as stack:
    for module, name, result in REPLACED:
      stub = unittest.mock.Mock(return_value=result)
      stack.enter_context(unittest.mock.patch.object(importlib.import_module(module), name, stub))
    for index in range(number):
      line = command_line(rng, commands)
      if line[:2] == ['dataset', 'build'] or line[:2] == ['bench', 'transcribe']:
        line = [*line[:2], *line[2:], '--nothing'] if rng.random() < 0.5 else [*line, '--seconds=0']
      while line and line[0] in cli_main.GIN_COMMANDS:  # would replace this process
        line = line[1:]
      outcome, output = run_case(cli_main.main, line)
      counts[outcome] += 1
      if outcome == 'failed':
        report(f'case {index}: {line}\n{output[:300]} ... {output[-1500:]}')
  return counts


def main() -> int:
  """Run from the command line; returns 1 if a case failed."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--n', type=int, default=5000, help='number of cases (default: 5000)')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    work = Path(folder) / 'a' / 'b'
    work.mkdir(parents=True)
    os.environ['MRMT3_CACHE'] = str(Path(folder) / 'cache')
    os.chdir(work)
    try:
      counts = fuzz(args.n, args.seed, lambda text: print(text, flush=True))
    finally:
      os.chdir('/')
  print(dict(counts))
  return 1 if counts['failed'] else 0


if __name__ == '__main__':
  sys.exit(main())
