"""`mrmt3 convert`: converts checkpoints between MT3, MR-MT3 and mrmt3."""

import argparse

from mrmt3.errors import UserError

_EPILOG = """\
reads   MR-MT3's .ckpt and mt3.pth (PyTorch, PyTorch Lightning; code in them is never run), .npz with the same
        names, t5x checkpoints in the legacy and Orbax layouts, checkpoints of mrmt3
writes  a folder: mrmt3's own layout (t5x reads it too), with --to t5x the legacy layout of MT3's checkpoints,
        with --to packed a small one to distribute: bfloat16 in one safetensors file
        .pth, .pt: PyTorch's state dict; .ckpt: as PyTorch Lightning's; .npz: NumPy

Settings that a checkpoint does not contain default to the published ones: MR-MT3's position table, log-mel and prior
tokens for Lightning files and checkpoints with a memory, MT3's for all others; mt3.pth has weights of MT3. Options
override them (docs/checkpoints.md).

  mrmt3 convert mt3.pth mt3
  mrmt3 convert mt3.pth start --l-agg 64 --allow-missing memory
  mrmt3 convert model mr_mt3.ckpt
"""


def add_parser(subparsers) -> None:
  """Add `convert` to the commands."""
  parser = subparsers.add_parser(
    'convert',
    help='convert checkpoints of MT3, MR-MT3, t5x and mrmt3',
    description='Converts checkpoints between MT3 (t5x), MR-MT3 (PyTorch) and mrmt3.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('source', metavar='SRC', help='checkpoint: a file, a folder, or a name of `mrmt3 fetch --list`')
  parser.add_argument('target', metavar='DST', nargs='?', help='output: a folder, or a .pth, .pt, .ckpt or .npz file')
  parser.add_argument(
    '--list', action='store_true', help='print the names and shapes of the arrays in SRC and write nothing'
  )
  parser.add_argument(
    '--to', choices=['mrmt3', 't5x', 'packed'], default='mrmt3', help='layout of a folder (default: mrmt3)'
  )
  parser.add_argument(
    '--allow-missing',
    action='append',
    default=[],
    choices=['memory'],
    help='initialize weights that SRC lacks: MR-MT3 from MT3 (with --l-agg)',
  )
  parser.add_argument('--seed', type=int, default=0, metavar='N', help='seed of the initial values (default: 0)')
  parser.add_argument(
    '--l-agg', type=int, metavar='N', help="encoder frames of the memory; 0: no memory (default: by the file's name)"
  )
  parser.add_argument(
    '--num-heads', type=int, metavar='N', help='attention heads (default: 6 for the published width 384)'
  )
  parser.add_argument('--positions', choices=['mt3', 'mr_mt3'], help='position embeddings')
  parser.add_argument('--front-end', choices=['mt3', 'mr_mt3'], help='mel filter bank')
  parser.add_argument('--scaling', choices=['none', 'unit'], help='scaling of the log-mel')
  parser.add_argument('--prior-layout', choices=['targets', 'start_token'], help='layout of the prior tokens')
  parser.add_argument(
    '--velocity-bins', type=int, metavar='N', help='1, or 127 (default: by the size of the vocabulary)'
  )
  parser.add_argument(
    '--segment-frames', type=int, metavar='N', help='frames per segment (default: 256; ISMIR 2021: 512)'
  )
  parser.add_argument(
    '--targets-length', type=int, metavar='N', help='maximum number of tokens per segment (default: 1024)'
  )
  parser.add_argument('--ties', action=argparse.BooleanOptionalAction, help='whether segments begin with a tie section')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Convert a checkpoint and print its description; returns 0."""
  if args.target is None and not args.list:
    raise UserError('no output is given; name a folder or file after SRC, or add --list')
  from mrmt3.checkpoints import conversion

  if not args.list:
    kind = conversion.target_format(args.target, args.to)
    conversion.check_target(args.target, kind)
  source = conversion.open_source(args.source)
  if args.list:
    print('\n'.join(conversion.list_arrays(source)))
    return 0
  choices = conversion.Choices(
    num_heads=args.num_heads,
    positions=args.positions,
    memory_length=args.l_agg,
    front_end=args.front_end,
    scaling=args.scaling,
    num_velocity_bins=args.velocity_bins,
    segment_frames=args.segment_frames,
    targets_length=args.targets_length,
    prior_layout=args.prior_layout,
    ties=args.ties,
  )
  spec = conversion.model_spec(source, choices)
  params = conversion.params_of(source, spec, tuple(args.allow_missing), args.seed)
  written = conversion.write(args.target, kind, params, spec, source.step)
  print(f'{written}: {conversion.describe(spec)}')
  has_memory = spec.network.num_memory_frames > 0
  if source.memory_names and not has_memory:
    print(f'left out: the {len(source.memory_names)} arrays of an unused memory (L_agg is 0)')
  if has_memory and not source.memory_names:
    print(f'not in {source.path}: the memory, which is initialized randomly (seed {args.seed})')
  return 0
