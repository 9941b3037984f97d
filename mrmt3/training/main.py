"""Command-line entry shared by `python -m mrmt3.train`, `eval` and `infer`: flags, gin, one-line errors, exit codes.

Exit codes: 0 done; 1 a bug, with its traceback; 2 an error the user can fix; 75 another process of the run is lost;
130 interrupted; 143 stopped by SIGTERM, after saving.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from mrmt3.errors import UserError, first_line, system_error
from mrmt3.training import heartbeat
from mrmt3.training.preemption import EXIT_CODE, Stopped
from mrmt3.utils import child_process, console, interrupts
from mrmt3.utils.warning_lines import show_as_lines

INTERRUPTED = 'mrmt3: interrupted; run the same command again to resume from the last checkpoint'
GRACE_SECONDS = 10.0  # after an interrupt, for a checkpoint that is being written


def _run(function: Callable, prog: str, description: str, argv: Sequence[str]) -> None:
  from mrmt3.engine import gin_checks, gin_utils, names
  from mrmt3.utils.tensorflow_setup import start_tensorflow

  show_as_lines()
  flags = gin_utils.parse_flags(argv, prog, description)
  gin_utils.check_files(flags)
  start_tensorflow()
  names.use_own_engine()
  import gin
  from mrmt3.training import multihost

  # gin files import this module as __main__, under any alias.
  configured = gin.configurable(function, module='__main__')
  apply_flags(flags)
  gin_utils.parse_config(flags)
  gin_checks.check_macros_used([name for name in flags.bound_names if '.' not in name])
  options = {'dry_run': True} if flags.dry_run else {}
  if flags.profile:
    options['profile'] = flags.profile
  try:
    gin_utils.call(configured, **options)
  except Stopped:
    multihost.leave()
    raise
  multihost.leave()


def apply_flags(flags: argparse.Namespace) -> None:
  """Connect several processes, and register the flags' data folders with seqio."""
  import seqio

  from mrmt3.training import multihost

  if flags.multiprocess_gpu:
    multihost.initialise(
      flags.coordinator_address, flags.process_count, flags.process_index, flags.initialization_timeout
    )

  folders = [folder for folder in flags.seqio_additional_cache_dirs.split(',') if folder]
  if folders:
    seqio.add_global_cache_dirs(folders)
  if flags.tfds_data_dir:
    seqio.set_tfds_data_dir_override(flags.tfds_data_dir)


def main(function: Callable, prog: str, description: str, argv: Sequence[str] | None = None) -> int:
  """Run a gin-configured function from the command line and return the exit code."""
  try:
    with interrupts.working():
      _run(function, prog, description, sys.argv[1:] if argv is None else argv)
    return 0
  except ModuleNotFoundError as error:
    if (error.name or '').startswith('mrmt3'):
      raise
    print(f'mrmt3: error: this needs {error.name}; install it with: pip install "mrmt3[train]"', file=sys.stderr)
    return 2
  except UserError as error:
    # gin appends the place in the configuration on further lines.
    print(f'mrmt3: error: {str(error).splitlines()[0]}', file=sys.stderr)
    return 2
  except Stopped as stopped:
    print(f'mrmt3: {str(stopped).splitlines()[0]}; run the same command again to resume', file=sys.stderr)
    return EXIT_CODE
  except KeyboardInterrupt:
    interrupts.end()
  except Exception as error:
    if not heartbeat.is_loss(error):
      text = system_error(error)
      if text is None:
        raise
      print(f'mrmt3: error: {text}', file=sys.stderr)
      return 2
    heartbeat.report_lost_process(first_line(error)[:120])
    return heartbeat.EXIT_CODE


def run_and_end(run: Callable[[], int]) -> None:
  """Call `run` and end the process at once with the exit code it returns.

  An orderly exit could hang, as a thread of TensorFlow may still run Python code.
  """
  interrupts.install(INTERRUPTED, GRACE_SECONDS)
  child_process.follow_parent()
  from mrmt3.utils import files

  console.protect_streams()
  with files.own_temporary_folder():
    try:
      code = run()
    except SystemExit as error:  # of argparse
      code = error.code if isinstance(error.code, int) else 2
    except BaseException:
      import traceback

      traceback.print_exc()
      code = 1
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
