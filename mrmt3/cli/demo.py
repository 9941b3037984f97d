"""`mrmt3 demo`: the whole chain on real music, on this machine, in minutes."""

import argparse

TABLE_NOTE = """\
The songs marked "learnt" were trained on until the network knew them by heart: their scores prove that the chain is
wired right (audio, tokens, memory, MIDI), not that it can transcribe. The one marked "held out" was never seen: a
network of this size, trained for minutes on three songs, cannot transcribe it, and its scores say so."""


def add_parser(subparsers) -> None:
  """Adds `demo`."""
  parser = subparsers.add_parser(
      'demo',
      help='render, learn, transcribe and score a few songs',
      description='Renders a small data set from real music, trains a tiny MR-MT3 on it, transcribes a learnt and a '
      'held-out song and scores them. ' + TABLE_NOTE,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('-o', '--output', default='demo', metavar='FOLDER', help='where everything goes (default: demo)')
  parser.add_argument('--steps', type=int, help="training steps (default: the gin file's)")
  parser.add_argument('--seed', type=int, default=0, help='of the rendered set and of training (default: 0)')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Runs the demo; returns 0, or 1 if the learnt songs came back with an onset F1 below 0.9."""
  from mrmt3 import demo

  return demo.run(args.output, args.steps, args.seed, TABLE_NOTE)
