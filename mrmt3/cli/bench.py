"""`mrmt3 bench memory`: the twin-instrument test of the memory."""

import argparse


def add_parser(subparsers) -> None:
  """Adds `bench` with its tests."""
  bench = subparsers.add_parser('bench', help='tests of what the network can do')
  tests = bench.add_subparsers(dest='test', required=True, metavar='TEST')
  memory = tests.add_parser(
      'memory',
      help='does the memory tell twin instruments apart?',
      description='Renders pieces in which two programs share one timbre and only a cue in the previous segment tells '
      'which one plays, trains a small network on them with and without memory, and scores both on other pieces. '
      'Expected: class F1 at least 0.95 with memory, at most 0.6 without. Takes about ten minutes on 2 cores, half of it a network.',
  )
  memory.add_argument('-o', '--output', default='bench-memory', metavar='FOLDER', help='where everything goes')
  memory.add_argument('--steps', type=int, help="training steps (default: the gin file's)")
  memory.add_argument('--seed', type=int, default=0)
  memory.add_argument('--train-pieces', type=int, default=400, help='pieces to learn from (default: 400)')
  memory.add_argument('--test-pieces', type=int, default=60, help='pieces to be scored on (default: 60)')
  memory.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Runs the test; returns 0 if the memory does its job, else 1."""
  from mrmt3 import memory_benchmark

  scores = memory_benchmark.run(
      args.output, steps=args.steps, seed=args.seed, train_pieces=args.train_pieces, test_pieces=args.test_pieces
  )
  print(f'\n{"":<12} {"onset F1":>9} {"class F1":>9} {"seconds":>8}')
  for variant, row in scores.items():
    print(f'{variant:<12} {row["onset_f1"]:>9.3f} {row["class_f1"]:>9.3f} {row["train_seconds"]:>8.0f}')
  good = memory_benchmark.verdict(scores)
  wanted = f'at least {memory_benchmark.WITH_MEMORY} with memory, at most {memory_benchmark.WITHOUT_MEMORY} without'
  print(f'class F1 wanted: {wanted}: {"reached" if good else "NOT reached"}')
  return 0 if good else 1
