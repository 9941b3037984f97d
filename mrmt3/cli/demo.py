"""`mrmt3 demo`: the whole chain on real music, on this machine, in minutes."""

import argparse

NOTE = """\
The songs are real scores that no piece of the model's training comes from, rendered here with a soundfont. Your own music
goes the same way: mrmt3 transcribe song.wav -o song.mid"""
TRAINING_NOTE = """\
The songs marked "learnt" were trained on until the network knew them by heart: their scores prove that the chain is
wired right (audio, tokens, memory, MIDI), not that it can transcribe. The one marked "held out" was never seen: a
network of this size, trained for minutes on three songs, cannot transcribe it, and its scores say so."""


def add_parser(subparsers) -> None:
  """Adds `demo`."""
  parser = subparsers.add_parser(
    'demo',
    help='transcribe songs that the model never heard, and score them; or learn a few from scratch',
    description='Renders music that the bundled model was not trained on, transcribes and scores it. With --train, and where no '
    'model came with the package: renders a small data set from real music, trains a tiny MR-MT3 on it, transcribes a learnt and a held-out song and scores '
    'them.\n\n' + TRAINING_NOTE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('-o', '--output', default='demo', metavar='FOLDER', help='where everything goes (default: demo)')
  parser.add_argument('--train', action='store_true', help='learn three songs from scratch')
  parser.add_argument('--steps', type=int, help="with --train: training steps (default: the gin file's)")
  parser.add_argument('--seed', type=int, default=0, help='of the rendered set and of training (default: 0)')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Runs the demo; returns 0, or with --train 1 if the learnt songs came back with an onset F1 below 0.9."""
  from mrmt3 import demo
  from mrmt3.errors import UserError
  from mrmt3.inference import loading

  if args.train or loading.default_model() is None:
    return demo.run_training(args.output, args.steps, args.seed, TRAINING_NOTE)
  if args.steps is not None:
    raise UserError('--steps belongs to --train')
  return demo.run_bundled(args.output, args.seed, NOTE)
