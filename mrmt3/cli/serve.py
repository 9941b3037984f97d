"""`mrmt3 serve`: a page in the browser and an HTTP API that transcribe."""

import argparse
import os
import sys

from mrmt3.errors import UserError


def add_parser(subparsers) -> None:
  """Add `serve` to the commands."""
  parser = subparsers.add_parser(
    'serve',
    help='transcribe in the browser, and offer an HTTP API',
    description='Serves a page that transcribes songs dropped on it, plays and edits the result, and an HTTP API. '
    'Needs the extra web. Stop it with Ctrl-C.',
  )
  parser.add_argument(
    '--host', default='127.0.0.1', help='address to listen on (default: 127.0.0.1, for this machine only)'
  )
  parser.add_argument('--port', type=int, default=8765, help='default: 8765; 0 takes a free one')
  parser.add_argument('--no-browser', action='store_true', help='do not open the page')
  parser.add_argument('--checkpoint', metavar='DIR', help='as in mrmt3 transcribe; default: the bundled model')
  parser.add_argument('--data', metavar='DIR', help='keep finished jobs here, over a restart; default: forget them')
  safety = parser.add_argument_group('safety')
  safety.add_argument(
    '--token',
    default=os.environ.get('MRMT3_TOKEN', ''),
    metavar='SECRET',
    help='what clients must know (Authorization: Bearer SECRET, or once in the address: ?token=SECRET); needed if '
    'other machines can connect; default: the variable MRMT3_TOKEN',
  )
  safety.add_argument(
    '--allow-host', action='append', default=[], metavar='NAME', help='a name under which a proxy forwards requests'
  )
  limits = parser.add_argument_group('limits')
  limits.add_argument('--max-megabytes', type=float, default=200.0, metavar='N', help='of a file (default: 200)')
  limits.add_argument('--max-minutes', type=float, default=30.0, metavar='N', help='of a recording (default: 30)')
  limits.add_argument('--max-queue', type=int, default=100, metavar='N', help='waiting jobs (default: 100)')
  limits.add_argument('--max-jobs', type=int, default=2, metavar='N', help='jobs decoded at a time (default: 2)')
  limits.add_argument('--keep', type=int, default=200, metavar='N', help='finished jobs that are kept (default: 200)')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Serve until interrupted; raises UserError."""
  from mrmt3.web.settings import Settings

  settings = Settings(
    host=args.host,
    port=args.port,
    token=args.token,
    allowed_hosts=tuple(args.allow_host),
    max_megabytes=args.max_megabytes,
    max_minutes=args.max_minutes,
    max_queue=args.max_queue,
    max_jobs=args.max_jobs,
    keep=args.keep,
  )
  settings.check()

  from mrmt3.inference import loading
  from mrmt3.utils import compilation_cache, interrupts
  from mrmt3.web import server
  from mrmt3.web.app import Server
  from mrmt3.web.store import Store

  listening = server.listen(settings)
  store = None
  try:
    store = Store(args.data)
    default = loading.default_model() if args.checkpoint is None else None
    if args.checkpoint is None and default is None:
      raise UserError(loading.NO_CHECKPOINT)
    compilation_cache.enable()
    transcriber = loading.load(args.checkpoint)
    about = loading.introduce(default) if default is not None else str(args.checkpoint)
    whole = Server(transcriber, store, settings, about)
    page = server.address(settings, listening)
    print(f'mrmt3 serves {page} (stop it with Ctrl-C)', flush=True)
    server.run(whole, listening, None if args.no_browser else page)
  finally:
    listening.close()
    if store is not None:
      store.close()
  if whole.worker.is_alive:  # amid a compilation, which would keep the process
    interrupts.end()
  print('mrmt3: stopped', file=sys.stderr)
  return 0
