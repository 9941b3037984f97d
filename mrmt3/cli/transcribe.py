"""`mrmt3 transcribe`: transcribes audio files, folders and pipes to MIDI files and notes."""

import argparse
import contextlib
import functools
import json
import sys

from mrmt3.cli import devices, score_options
from mrmt3.errors import UserError
from mrmt3.utils import files, warning_lines


def add_parser(subparsers) -> None:
  """Add `transcribe` to the commands."""
  parser = subparsers.add_parser(
    'transcribe',
    help='transcribe audio to multi-track MIDI',
    description='Transcribes audio files (wav, flac, ogg, mp3, ...) to MIDI files with one track per instrument.',
    epilog='Exit code 2 if a file could not be transcribed; the other files are still written.',
  )
  parser.add_argument(
    'inputs',
    nargs='+',
    metavar='AUDIO',
    help='audio file, folder, or quoted pattern (songs/**/*.wav); - reads audio from stdin and writes notes as JSON '
    'lines',
  )
  parser.add_argument(
    '-o',
    '--output',
    metavar='OUT',
    help='song.mid or song.musicxml for one audio file, or a folder: song.wav gives OUT/song.mid; default: next to the '
    'audio file',
  )
  parser.add_argument('--force', action='store_true', help='without -o: replace files that exist')
  parser.add_argument(
    '--checkpoint',
    metavar='DIR',
    help='checkpoint_<step> folder, a folder of them (the newest is used), or a name of `mrmt3 fetch --list`; '
    'default: the bundled model',
  )
  parser.add_argument('--quiet', action='store_true', help='print errors only')
  parser.add_argument(
    '--progress', choices=['bar', 'json'], default='bar', help='format on stderr: progress bar, or JSON lines'
  )
  _add_outputs(parser.add_argument_group('output besides MIDI'))
  score_options.add(parser.add_argument_group('bars and sheet music'))
  _add_decoding(parser.add_argument_group('decoding'))
  piped = parser.add_argument_group('raw samples on stdin')
  piped.add_argument('--rate', type=int, metavar='HZ', help='sample rate; not needed for wav')
  piped.add_argument('--channels', type=int, default=1, metavar='N', help='default: 1')
  piped.add_argument(
    '--format', default='s16le', metavar='NAME', help='s16le (default), s24le, s32le, f32le, f64le, u8'
  )
  parser.set_defaults(run=run)


def _add_outputs(group):
  for kind, text in (
    ('json', 'notes, tokens and statistics; next to the MIDI file unless FILE.json is given; - for stdout'),
    ('csv', 'notes as a table; next to the MIDI file unless FILE.csv is given'),
    ('plot', 'piano roll; next to the MIDI file unless FILE.png (.pdf, .svg) is given'),
    ('audio', 'synthesized notes; song.played.wav next to the MIDI file unless FILE.wav is given'),
    ('html', 'page with piano roll, player and both sounds; next to the MIDI file unless FILE.html is given'),
  ):
    group.add_argument(f'--{kind}', nargs='?', const='', metavar='FILE', help=text)
  group.add_argument(
    '--tracks',
    choices=['program', 'class'],
    default='program',
    help='one track per predicted program (default) or per Slakh class',
  )
  group.add_argument(
    '--merge-below',
    type=float,
    metavar='SHARE',
    help='merge instruments with less than this share of the notes, such as 0.02, into a related one; default: off',
  )


def _add_decoding(group):
  devices.add_option(group)
  group.add_argument(
    '--instruments', metavar='LIST', help='the instruments that there are: piano,bass,drums, Slakh classes or programs'
  )
  group.add_argument('--batch', type=int, default=1, metavar='N', help='files decoded in a batch (default: 1)')
  group.add_argument(
    '--hop', type=int, metavar='H', help='decode H segments of a file at once, each with the memory of the one H before'
  )
  group.add_argument(
    '--resume',
    action='store_true',
    help='record finished files; run again, skip them and continue the others',
  )


def run(args: argparse.Namespace) -> int:
  """Transcribe; returns 0, or 2 if some of several files failed (each with a line on stderr)."""
  with warning_lines.hidden() if args.quiet else contextlib.nullcontext():
    return _run(args)


def _run(args):
  outputs = {kind: getattr(args, kind) for kind in ('json', 'csv', 'plot', 'audio', 'html', *score_options.OUTPUTS)}
  piped = '-' in args.inputs
  if piped and (len(args.inputs) > 1 or args.resume):
    raise UserError('-: stdin cannot be combined with other inputs or --resume; leave them out')
  score = score_options.read(args)
  score_options.check_programs(outputs)

  from mrmt3.inference import loading
  from mrmt3.inference.jobs import plan_jobs

  if piped:
    jobs = plan_jobs(['stdin.wav'], args.output, outputs) if args.output else []
    if not jobs and any(file is not None for file in outputs.values()):
      raise UserError('-: stdout has the notes only; for other files add -o song.mid')
  else:
    jobs = plan_jobs(args.inputs, args.output, outputs)
    if args.output is None and not args.force:
      from mrmt3.inference import beside

      beside.check_free(jobs, args.resume)
  files.check_writable(file for job in jobs for file in job.files())
  default = loading.default_model() if args.checkpoint is None else None
  if args.checkpoint is None and default is None:
    raise UserError(loading.NO_CHECKPOINT)
  if outputs['audio'] is not None:
    import symusic  # noqa: F401 - fail before the work, not after it

  from mrmt3.inference import run_jobs
  from mrmt3.utils import compilation_cache

  devices.choose(args.device)
  compilation_cache.enable()
  transcriber = loading.load(args.checkpoint)
  if default is not None and not args.quiet:
    line = loading.introduce(default)
    print(
      json.dumps({'event': 'model', 'model': line}) if args.progress == 'json' else f'model: {line}', file=sys.stderr
    )
  settings = run_jobs.Settings(
    tracks=args.tracks,
    merge_below=args.merge_below,
    instruments=args.instruments,
    batch=args.batch,
    hop=args.hop,
    resume=args.resume,
    quiet=args.quiet,
    progress=args.progress,
    score=score,
    clean=args.clean,
    writers={'html': functools.partial(_write_html, has_audio=not piped)},
    beside=args.output is None,
  )
  if piped:
    run_jobs.run_pipe(transcriber, jobs[0] if jobs else None, settings, args.rate, args.channels, args.format)
    return 0
  return 2 if run_jobs.run_jobs(transcriber, jobs, settings) else 0


def _write_html(file, result, audio, has_audio):
  from mrmt3.web import song_page

  song_page.write(
    file, result.notes, result.seconds, audio.name, audio if has_audio else None, result.instrument_confidence
  )
