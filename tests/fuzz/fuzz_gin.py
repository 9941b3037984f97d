"""Fuzzing of gin bindings: each training with random bindings either dry-runs or ends with one line.

  python tests/fuzz/fuzz_gin.py --n 5000 --seed 0

Runs in one process. Prints each case that ended with a traceback, a hang or more than one line.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

BASE = ('--gin_file=models/tiny.gin', '--gin_file=optimizers/mr_mt3.gin', '--gin_file=runs/train.gin')
LIMIT = 120  # s, for a case
VALUES = (
  *('abc', "''", "'x'", '0', '1', '2', '-1', '3.7', '1e30', '-0.5', '1e400', 'nan', '10**12', '99999999999999999999'),
  *('None', 'True', 'False', '[]', '[', ']', '()', '(', '{}', '{', "{'inputs': 3}", "{'inputs': 'x'}", '[1, 2]'),
  *(
    "['a', None]",
    '(1,)',
    "('encoder',)",
    '[[[]]]',
    '"',
    "'",
    "'''",
    '\\',
    '%',
    '@',
    '%NOTHING',
    '@nothing()',
    '@',
    '%%',
  ),
  *('@train', '@utils.DatasetConfig()', '@utils.DatasetConfig', '@slakh.task', '%MODEL', '%SPEC', '%SEED', '%DATA_DIR'),
  *('@network.T5Config()', '@trainer.Trainer', '@optimizers.adamw()', '@example_config.ExampleConfig()', 'x' * 400),
  *('/' + 'y' * 400, '/dev/null', '/proc/self/mem', 'a/../../b', '\x00', '\u2603', '\ud800', '', ' ', '1 2', 'a = b'),
  *(
    "b'x'",
    '1j',
    '{1, 2}',
    'lambda: 0',
    '__import__("os")',
    '#',
    '0x10',
    '1_000',
    '...',
    '{**{}}',
    '*',
    'float32',
    '7',
  ),
  *("'random'", "'grid'", "'train'", "'validation'", "'constant * nothing'", "'paper'", "'device'", "'all'"),
)
NAMES = (
  *('MODEL_DIR', 'DATA_DIR', 'TRAIN_STEPS', 'BATCH_SIZE', 'SEED', 'EVAL_PERIOD', 'SAVE_PERIOD', 'L_MAX_HOP', 'STRICT'),
  *('SHUFFLE_SCOPE', 'LOG_MEL_ON', 'NUM_PARTITIONS', 'NUM_MICROBATCHES', 'REMAT', 'TRAIN_TASK', 'EVAL_TASK', 'RESTORE'),
  *('MODEL', 'SPEC', 'TASK_FEATURE_LENGTHS', 'OPTIMIZER', 'LEARNING_RATE_FN', 'TARGETS_LENGTH', 'SEGMENT_FRAMES'),
  *('MEMORY_LENGTH', 'DROPOUT_RATE', 'INIT_FROM', 'NETWORK'),
)


def run_case(train, argv: list[str]) -> tuple[str, str]:
  """Return (outcome, output) of `python -m mrmt3.train` with these words: 'ran', 'refused' or 'failed'."""
  import gin
  from mrmt3.training import main as training_main

  def stop(*_):
    raise TimeoutError(f'not done after {LIMIT} s')

  gin.clear_config()
  out, err = io.StringIO(), io.StringIO()
  signal.signal(signal.SIGALRM, stop)
  signal.alarm(LIMIT)
  try:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), gin.config.interactive_mode():
      code = training_main.main(train, 'train', 'Training.', argv)
  except SystemExit as error:  # of argparse
    return ('refused' if error.code == 2 else 'failed'), err.getvalue()
  except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
      raise
    return 'failed', traceback.format_exc()
  finally:
    signal.alarm(0)
  lines = err.getvalue().splitlines()
  if code == 0:
    return ('ran' if 'mesh:' in out.getvalue() else 'failed'), err.getvalue()
  one_line = code == 2 and len(lines) == 1 and lines[0].startswith('mrmt3: error: ') and len(lines[0]) < 1500
  return ('refused' if one_line else 'failed'), err.getvalue()


def parameters(train) -> list[str]:
  """Return the names of all parameters, with scopes, that the gin files of the base run can bind."""
  import gin
  from mrmt3.engine import gin_utils

  gin.clear_config()
  with gin.config.interactive_mode():
    gin.configurable(train, module='__main__')
    gin_utils.parse_config(gin_utils.parse_flags([*BASE, '--gin.MODEL_DIR=x', '--gin.DATA_DIR=x'], 'train', ''))
  names = set()
  for scope, selector in gin.config._CONFIG:
    if selector == 'gin.macro':
      continue
    signature = gin.config._get_cached_arg_spec(
      gin.config._find_class_construction_fn(gin.config._REGISTRY[selector].wrapped)
      if isinstance(gin.config._REGISTRY[selector].wrapped, type)
      else gin.config._REGISTRY[selector].wrapped
    )
    short = '.'.join(selector.split('.')[-2:])
    for name in (*signature.args, *signature.kwonlyargs):
      if name != 'self':
        names.add(f'{scope}/{short}.{name}' if scope else f'{short}.{name}')
  return sorted(names)


def bindings(rng: random.Random, names: list[str]) -> list[str]:
  """Return random words of the command line."""
  words = []
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    name = rng.choice(NAMES) if rng.random() < 0.4 else rng.choice(names)
    if rng.random() < 0.06:
      place = rng.randrange(len(name) + 1)
      name = name[:place] + rng.choice(('x', '.', '/', ' ', '', '%', '\n', '=')) + name[place + rng.randrange(3) :]
    value = rng.choice(VALUES)
    if rng.random() < 0.1:
      place = rng.randrange(len(value) + 1)
      value = value[:place] + rng.choice('[](){}@%\'"\\,=\n0-') + value[place:]
    words.append(f'--gin.{name}={value}')
  return words


def fuzz(data: Path, number: int, seed: int, report=print) -> Counter:
  """Return how many of `number` cases ran, were refused, and failed; calls `report` with each that failed."""
  from mrmt3.engine import names as engine_names
  from mrmt3.train import train
  from mrmt3.utils.tensorflow_setup import start_tensorflow

  sys.modules['__main__'].train = train  # gin files have `import __main__ as train_script`
  start_tensorflow()
  engine_names.use_own_engine()
  rng, counts = random.Random(seed), Counter()
  known = parameters(train)
  common = [*BASE, '--dry_run', f'--gin.MODEL_DIR={data / "model"}', f'--gin.DATA_DIR={data}', '--gin.BATCH_SIZE=2']
  for index in range(number):
    words = bindings(rng, known)
    outcome, output = run_case(train, [*common, *words])
    counts[outcome] += 1
    if outcome == 'failed':
      report(f'case {index}: {words}\n{output[:400]} ... {output[-1500:]}')
  return counts


def main() -> int:
  """Run from the command line; returns 1 if a case failed."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--n', type=int, default=5000, help='number of cases (default: 5000)')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  from mrmt3.studies import twin_instruments

  with tempfile.TemporaryDirectory() as folder:
    data = Path(folder) / 'data'
    twin_instruments.write_dataset(data, seed=1, train_pieces=2, test_pieces=1, segment_seconds=0.512, pairs=2)
    shutil.copytree(data / 'test', data / 'validation')
    os.chdir(folder)  # some values are names of folders to write to
    counts = fuzz(data, args.n, args.seed, lambda text: print(text, flush=True))
    os.chdir('/')
  print(dict(counts))
  return 1 if counts['failed'] else 0


if __name__ == '__main__':
  sys.exit(main())
