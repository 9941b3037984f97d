"""`mrmt3 bench`: the twin-instrument test of the memory, the speed of a model, and scores on real recordings."""

import argparse

from mrmt3.cli import bench_real, devices


def add_parser(subparsers) -> None:
  """Add `bench` and its tests."""
  bench = subparsers.add_parser(
    'bench', help='test the memory, measure the speed of a model, or score it on real recordings'
  )
  tests = bench.add_subparsers(dest='test', required=True, metavar='TEST')
  memory = tests.add_parser(
    'memory',
    help='test whether the memory distinguishes twin instruments',
    description='Renders pieces in which two programs share one timbre and only a cue in the previous segment '
    'identifies the program. Trains a small network on them with and without memory, and scores both on other pieces. '
    'Expected: class F1 at least 0.95 with memory, at most 0.6 without. Takes about ten minutes on 2 cores.',
  )
  memory.add_argument(
    '-o', '--output', default='bench-memory', metavar='FOLDER', help='output folder (default: bench-memory)'
  )
  memory.add_argument('--steps', type=int, help="training steps (default: the gin file's)")
  memory.add_argument('--seed', type=int, default=0)
  memory.add_argument('--train-pieces', type=int, default=400, help='training pieces (default: 400)')
  memory.add_argument('--test-pieces', type=int, default=60, help='test pieces (default: 60)')
  memory.add_argument(
    '--notes', type=int, metavar='N', help='notes per segment (default: 8); fewer are learnt in fewer steps'
  )
  memory.set_defaults(run=run)
  _add_transcribe(tests)
  bench_real.add_parser(tests)


def _add_transcribe(tests):
  parser = tests.add_parser(
    'transcribe',
    help='measure how fast a model transcribes',
    description='Transcribes a piece several times and prints the real-time factor (seconds of audio per second) and '
    'the time shares of log-mel, encoder and decoder. Compilation is not counted.',
  )
  parser.add_argument(
    '--checkpoint',
    metavar='DIR',
    help='checkpoint_<step> folder, a folder of them (the newest is used), or a name of `mrmt3 fetch --list`; '
    'default: the bundled model',
  )
  parser.add_argument(
    '--audio', metavar='FILE', help='audio to transcribe (default: noise, in which models detect few notes)'
  )
  parser.add_argument('--seconds', type=float, default=20.0, metavar='S', help='duration to transcribe (default: 20)')
  parser.add_argument('--runs', type=int, default=3, metavar='N', help='report the fastest of N runs (default: 3)')
  parser.add_argument('--json', action='store_true', help='print one line of JSON')
  devices.add_option(parser)
  parser.set_defaults(run=run_transcribe)


def run_transcribe(args: argparse.Namespace) -> int:
  """Measure and print the speed; returns 0."""
  import json

  import numpy as np

  from mrmt3.audio import files as audio_files
  from mrmt3.errors import UserError
  from mrmt3.inference import loading

  if not 0.1 <= args.seconds <= 3600 or not 1 <= args.runs <= 1000:
    raise UserError(
      f'--seconds {args.seconds:g} --runs {args.runs}: out of range; give --seconds 0.1 to 3600 and --runs 1 to 1000'
    )
  folder = loading.find_model(args.checkpoint)

  from mrmt3.inference import benchmark
  from mrmt3.utils import compilation_cache

  devices.choose(args.device)
  compilation_cache.enable()
  transcriber = loading.load(folder)
  count = round(args.seconds * transcriber.sample_rate)
  if args.audio is None:
    samples = np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)
  else:
    samples = audio_files.read_audio(args.audio, transcriber.sample_rate)[:count]
  timing = benchmark.measure(transcriber, samples, args.runs)
  shares = timing.shares()
  if args.json:
    print(
      json.dumps(
        {
          'real_time_factor': timing.real_time_factor,
          'shares': shares,
          'tokens': timing.tokens,
          'seconds_of_audio': timing.audio,
          'seconds': timing.total,
        }
      )
    )
    return 0
  print(
    f'{timing.audio:.1f} s of audio, {timing.tokens} tokens in {timing.total:.2f} s: '
    f'{timing.real_time_factor:.1f} times real time'
  )
  for name, share in shares.items():
    print(f'  {name.replace("_", "-"):<8} {share:6.1%}')
  if timing.tokens_per_second is not None:
    print(f'  {timing.tokens_per_second:.0f} tokens per second while decoding')
  return 0


def run(args: argparse.Namespace) -> int:
  """Run the test; returns 0 if class F1 meets both limits, else 1."""
  from mrmt3.studies import twin_benchmark

  scores = twin_benchmark.run(
    args.output,
    steps=args.steps,
    seed=args.seed,
    train_pieces=args.train_pieces,
    test_pieces=args.test_pieces,
    notes=args.notes,
  )
  print(f'\n{"":<12} {"onset F1":>9} {"class F1":>9} {"seconds":>8}')
  for variant, row in scores.items():
    print(f'{variant:<12} {row["onset_f1"]:>9.3f} {row["class_f1"]:>9.3f} {row["train_seconds"]:>8.0f}')
  passed = twin_benchmark.verdict(scores)
  limits = f'at least {twin_benchmark.WITH_MEMORY} with memory, at most {twin_benchmark.WITHOUT_MEMORY} without'
  print(f'class F1 {limits}: {"reached" if passed else "NOT reached"}')
  return 0 if passed else 1
