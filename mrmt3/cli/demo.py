"""`mrmt3 demo`: the complete pipeline on real music, on this machine, in minutes."""

import argparse

NOTE = """\
The songs are real scores, rendered here with a soundfont; the model was not trained on any of them.
To transcribe your own music: mrmt3 transcribe song.wav -o song.mid"""
TRAINING_NOTE = """\
The network was trained on the songs in train until it had memorized them. Their scores show that the pipeline is
connected correctly (audio, tokens, memory, MIDI), not that the network can transcribe. The song in test was not
trained on: a network of this size, trained for minutes on three songs, cannot transcribe it, as its scores show."""


def add_parser(subparsers) -> None:
  """Add `demo`."""
  parser = subparsers.add_parser(
    'demo',
    help='transcribe and score songs that the model was not trained on; or train a tiny model',
    description='Renders music that the bundled model was not trained on, transcribes and scores it. With --train, or '
    'if the package has no model: renders a small data set from real music, trains a tiny MR-MT3 on it, then '
    'transcribes and scores a learnt and a held-out song.\n\n' + TRAINING_NOTE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('-o', '--output', default='demo', metavar='FOLDER', help='output folder (default: demo)')
  parser.add_argument('--train', action='store_true', help='train on three songs from scratch')
  parser.add_argument('--steps', type=int, help="with --train: training steps (default: the gin file's)")
  parser.add_argument('--seed', type=int, default=0, help='seed of the data set and of training (default: 0)')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Run the demo; returns 0, or 1 if --train gives a learnt song an onset F1 below 0.9."""
  from mrmt3 import demo
  from mrmt3.errors import UserError
  from mrmt3.inference import loading

  if args.train or loading.default_model() is None:
    return demo.run_training(args.output, args.steps, args.seed, TRAINING_NOTE)
  if args.steps is not None:
    raise UserError('--steps needs --train; add --train or leave --steps out')
  return demo.run_bundled(args.output, args.seed, NOTE)
