"""The `mrmt3` command: runs a subcommand and turns errors into one line and an exit code.

Exit codes: 0 success, 1 a check was not met, 2 bad input or usage, 130 interrupted.
"""

import contextlib
import json
import os
import sys
from collections.abc import Sequence

from mrmt3.cli import json_stderr
from mrmt3.errors import UserError, system_error
from mrmt3.utils import interrupts

EXTRA_OF = {
  'note_seq': 'train',
  'music21': 'dataset',
  'symusic': 'dataset',
  'pyloudnorm': 'dataset',
  'tensorflow': 'train',
  'seqio': 'train',
  'clu': 'train',
  'gin': 'train',
  'apache_beam': 'cache',
  'starlette': 'web',
  'uvicorn': 'web',
  'anyio': 'web',
  'python_multipart': 'web',
}

GIN_COMMANDS = ('train', 'eval', 'infer')  # modules of mrmt3 with a command line of their own


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command line and return the exit code. Without `argv`, the process is taken to be the command's own."""
  arguments = list(sys.argv[1:] if argv is None else argv)
  is_json = json_stderr.is_requested(arguments)
  if argv is None:
    interrupts.install(**{'message': json.dumps(json_stderr.INTERRUPTED)} if is_json else {})
  if arguments and arguments[0] in GIN_COMMANDS:
    _become(arguments)
  stderr = json_stderr.redirected() if is_json else contextlib.nullcontext()
  if argv is not None:
    with stderr:
      return _run(arguments)
  from mrmt3.utils import console, files

  console.protect_streams()
  with stderr, files.own_temporary_folder():
    return _run(arguments)


def _become(arguments: Sequence[str]) -> None:
  """Replace this process: gin files have `import __main__ as train_script`, so training must be the main module."""
  from mrmt3.utils import huge_pages

  sys.stdout.flush()
  huge_pages.set_for_child_processes()
  with interrupts.held_back():
    os.execv(sys.executable, [sys.executable, '-m', f'mrmt3.{arguments[0]}', *arguments[1:]])


def _run(arguments: Sequence[str]) -> int:
  from mrmt3.cli import commands  # after `interrupts.install`
  from mrmt3.utils import child_process, console
  from mrmt3.utils.warning_lines import show_as_lines

  child_process.follow_parent()
  args = commands.build_parser().parse_args(arguments)
  show_as_lines()
  try:
    with interrupts.working():
      code = args.run(args)
      sys.stdout.flush()
    return code
  except UserError as error:
    print(f'mrmt3: error: {console.printable(error)}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    interrupts.end()
  except ModuleNotFoundError as error:
    package = (error.name or '').split('.')[0]
    if package not in EXTRA_OF:
      raise
    extra = EXTRA_OF[package]
    print(f'mrmt3: error: {package} is not installed; install it with: pip install "mrmt3[{extra}]"', file=sys.stderr)
    return 2
  except Exception as error:
    text = system_error(error)
    if isinstance(error, OSError) and error.filename is None:
      text = _stdout_error(error)
      if text is None:
        return 0
    if text is None:
      raise
    print(f'mrmt3: error: {console.printable(text)}', file=sys.stderr)
    return 2


def _stdout_error(error: OSError) -> str | None:
  """Return one line about an error of stdout; None if its reader has closed the pipe (mrmt3 ... | head).

  Other errors of files name their file.
  """
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no second error at exit
  return None if isinstance(error, BrokenPipeError) else f'cannot write to the standard output: {error.strerror}'
