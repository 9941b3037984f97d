"""Parsing of gin files and command lines, with one-line errors."""

import argparse
import ast
import itertools
import logging
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

import gin
from mrmt3.engine import gin_checks, gin_types
from mrmt3.errors import UserError, first_line, system_error
from mrmt3.utils import bounded_files, files

_PACKAGE = Path(__file__).resolve().parent.parent
_MAX_TEXT = 400  # characters of an exception in a message
_MAX_FILE_BYTES = 1 << 20
_MAX_INCLUDES = 100


def search_paths() -> list[str]:
  """Return the folders that are searched for gin files: the working folder, then the package's gin folder."""
  return ['.', str(_PACKAGE / 'gin')]


class _Boolean(argparse.Action):
  """A boolean flag as in absl: --flag, --flag=true, --flag=false and --noflag."""

  def __init__(self, option_strings, dest, **kwargs):
    negative = [f'--no{option[2:]}' for option in option_strings]
    super().__init__([*option_strings, *negative], dest, nargs='?', metavar='BOOL', **kwargs)

  def __call__(self, parser, namespace, value, option_string=None):
    """Set the flag."""
    known = {'true': True, 't': True, '1': True, 'false': False, 'f': False, '0': False, None: True}
    value = value.lower() if value else value
    if value not in known or (value is not None and option_string.startswith('--no')):
      parser.error(f'{option_string} is {value!r}; set it to true or false')
    setattr(namespace, self.dest, known[value] and not option_string.startswith('--no'))


def parse_flags(argv: Sequence[str], prog: str, description: str) -> argparse.Namespace:
  """Parse t5x's flags.

  `--gin_file` and `--gin.NAME=VALUE` may be repeated; later ones override earlier ones.

  Args:
    argv: the command line without the program's name.
    prog: name of the program, for the help.
    description: description of the program, for the help: a line, and an indented example after an empty line.

  Returns:
    A namespace; gin_file, gin_bindings, bound_names (the NAMEs of the bindings) and gin_search_paths in it are lists of
    strings.

  Raises:
    UserError: a value or a gin file is missing, or the flags of several processes do not fit together.
  """
  parser = argparse.ArgumentParser(
    prog=prog,
    description='\n\n'.join(description.split('\n\n')[:2]),
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--gin_file',
    action='append',
    default=[],
    help='gin file; repeatable, later files override earlier ones. A gin file is a program: run only those you trust',
  )
  parser.add_argument('--gin_search_paths', default='', help='comma-separated folders to search for gin files')
  parser.add_argument(
    '--dry_run', action='store_true', help='check and show the configuration and a batch; compute and write nothing'
  )
  parser.add_argument('--profile', type=int, default=0, metavar='N', help='training: write a profile of N steps')
  parser.add_argument('--seqio_additional_cache_dirs', default='', help='comma-separated folders of cached tasks')
  parser.add_argument('--tfds_data_dir', default=None, help='folder of TensorFlow Datasets')
  several = parser.add_argument_group('several processes, as in t5x', 'On a TPU pod no addresses are needed.')
  several.add_argument('--multiprocess_gpu', action=_Boolean, default=False, help='train with several processes')
  several.add_argument('--coordinator_address', metavar='HOST:PORT', help='address of process 0')
  several.add_argument('--process_count', type=int, metavar='N', help='number of processes')
  several.add_argument('--process_index', type=int, metavar='I', help='index of this process, from 0')
  several.add_argument('--initialization_timeout', type=int, metavar='S', help='seconds to wait for the others')
  parser.epilog = '--gin.NAME=VALUE binds one name, e.g. --gin.MODEL_DIR=/tmp/run'
  plain, bindings, bound_names = [], [], []
  rest = list(argv)
  while rest:
    flag = rest.pop(0)
    match = re.fullmatch(r'--gin\.([^=]+)(?:=(.*))?', flag, re.DOTALL)
    if not match:
      plain.append(flag)
      continue
    value = match[2] if match[2] is not None else (rest.pop(0) if rest else None)
    if value is None:
      raise UserError(f'{flag}: a value is missing; write {flag}=VALUE')
    bindings.append(f'{match[1]} = {_quoted(value)}')
    bound_names.append(match[1])
  flags = parser.parse_args(plain)
  if not flags.gin_file:
    raise UserError('no --gin_file given; for example --gin_file=runs/train.gin')
  several = (flags.coordinator_address, flags.process_count, flags.process_index)
  if flags.multiprocess_gpu and any(x is None for x in several) and any(x is not None for x in several):
    raise UserError(
      '--multiprocess_gpu: give all of --coordinator_address, --process_count and --process_index, or none of them if '
      'JAX can detect the cluster'
    )
  if not flags.multiprocess_gpu and any(x is not None for x in several):
    raise UserError('--coordinator_address, --process_count and --process_index need --multiprocess_gpu; add it')
  flags.gin_bindings, flags.bound_names = bindings, bound_names
  flags.gin_search_paths = [path for path in flags.gin_search_paths.split(',') if path]
  return flags


def _quoted(value: str) -> str:
  """Quote paths and plain words, which gin would not parse as values (the shell has removed the user's quotes)."""
  if re.match(r'\s*[\[({@%]', value):
    return value
  try:
    ast.literal_eval(value.strip())
  except (ValueError, SyntaxError):
    return repr(value)
  return value


def check_files(flags: argparse.Namespace) -> None:
  """Check the gin files and those that they include; called before slow imports.

  Raises:
    UserError: one is not on the search path, is no text, is longer than `_MAX_FILE_BYTES`, or includes itself.
  """
  folders = [*flags.gin_search_paths, *search_paths()]
  for name in flags.gin_file:
    if not any(os.path.isfile(os.path.join(folder, name)) for folder in folders):
      name = name if len(name) <= _MAX_TEXT else f'{name[:_MAX_TEXT]}...'
      raise UserError(f'gin: no file {name}; looked in {", ".join(folders)}; add its folder with --gin_search_paths')
    _check_file(name, folders, (), itertools.count())


def _check_file(name: str, folders: Sequence[str], including: tuple[str, ...], count: Iterator[int]) -> None:
  """Check a file that the files `including` include, one in another; gin reports one that is not there.

  `count` counts the files that are read: each is read as often as it is included.
  """
  path = next((path for path in (os.path.join(folder, name) for folder in folders) if os.path.isfile(path)), None)
  if path is None:
    return
  real = os.path.realpath(path)
  if real in including:
    raise UserError(f'gin: {name} includes itself, by way of {len(including)} files; remove the include statement')
  if next(count) >= _MAX_INCLUDES:
    raise UserError(f'gin: {(*including, name)[0]} includes more than {_MAX_INCLUDES} files; include fewer')
  try:
    text = bounded_files.read_bytes(Path(path), _MAX_FILE_BYTES).decode()
  except UnicodeDecodeError as error:
    line = error.object[: error.start].count(b'\n') + 1
    raise UserError(f'gin: {path}, line {line}: it is not text in UTF-8; save it as UTF-8') from error
  except OSError as error:
    raise UserError(f'gin: cannot read {path}: {error.strerror}') from error
  except ValueError as error:
    raise UserError(f'gin: {path}: {first_line(error)}; is it a gin file?') from error
  if text.startswith('\ufeff'):
    raise UserError(f'gin: {path} begins with a byte order mark; save it as UTF-8 without one')
  for included in dict.fromkeys(re.findall(r"""^[ \t]*include[ \t]+['"](.+?)['"]""", text, re.MULTILINE)):
    _check_file(included, folders, (*including, real), count)


def _skip_plain_folders() -> None:
  """Patch gin's readers to skip folders of the working folder, such as models/ or runs/, that hold no gin files.

  gin takes such a folder for a Python package and raises TypeError if it has no __init__.py.
  """

  def tolerant(exists):
    def check(path):
      try:
        return exists(path)
      except TypeError:
        return False

    return check

  readers = gin.config._FILE_READERS
  if not getattr(readers, 'tolerant', False):
    gin.config._FILE_READERS = _Readers((reader, tolerant(exists)) for reader, exists in readers)


class _Readers(list):
  """gin's readers after the patch."""

  tolerant = True


def parse_config(flags: argparse.Namespace, complete: bool = True) -> None:
  """Parse the gin files and bindings of `parse_flags` into gin's global configuration.

  Args:
    flags: result of `parse_flags`.
    complete: whether to finalize the configuration: all required values must be bound, and it is locked.

  Raises:
    UserError: a file is missing, has a syntax error or an unknown name, or undoes what an earlier file has set; the
      message is one line.
  """
  for path in reversed([*flags.gin_search_paths, *search_paths()]):
    gin.add_config_file_search_path(path)
  _skip_plain_folders()
  # gin logs an error for every folder that lacks a file, before it looks into the next one.
  root, level = logging.getLogger(), logging.getLogger().level
  root.setLevel(logging.CRITICAL)
  try:
    with gin_checks.no_silent_resets():
      gin.parse_config_files_and_bindings(flags.gin_file, flags.gin_bindings, finalize_config=complete)
      gin_types.check_types()
  except UserError:
    raise
  except Exception as error:  # a gin file is a program, and imports programs
    raise UserError(f'gin: {one_line(error)}') from error
  finally:
    root.setLevel(level)


def one_line(error: BaseException) -> str:
  """Return a gin error's message as one line."""
  if isinstance(error, SyntaxError) and error.filename:
    return f'{error.filename}, line {error.lineno}: {error.msg}'
  unset = re.search(r'(\w+)/macro\.value set to `%gin.REQUIRED`', str(error))
  if unset:
    return f'{unset[1]} is not set; add --gin.{unset[1]}=VALUE'
  # The place in the call graph is of no use to the user.
  text = re.sub(r'\s*(In call to configurable |in config string:).*', '', str(error), flags=re.DOTALL)
  text = ' '.join(text.split()) or type(error).__name__
  return text if len(text) <= _MAX_TEXT else f'{text[:_MAX_TEXT]}...'


def summarize_gin_config(model_dir: str, summary_writer=None, step: int = 0) -> None:
  """Write model_dir/config.gin (all bindings) and operative_config.gin (all values used so far, with defaults).

  Args:
    model_dir: the run's folder.
    summary_writer: writes config.gin as a TensorBoard text too; None writes none.
    step: step of that text.
  """
  text = gin.config_str()
  for name, content in (('config.gin', text), ('operative_config.gin', gin.operative_config_str())):
    with files.atomic_path(Path(model_dir) / name) as temporary:
      temporary.write_text(content)
  if summary_writer is not None:
    summary_writer.write_texts(step, {'config': gin.markdown(text)})


class Configuring:
  """Whether the configuration is still being evaluated in `call`; the called function ends that with `done`.

  Until then, an exception comes from a value of the configuration; afterwards it is a bug.
  """

  active = False

  @classmethod
  def done(cls) -> None:
    """Note that everything is built and has run once."""
    cls.active = False


def call(configured, *args, **kwargs):
  """Call a gin configurable.

  Raises:
    UserError: an argument is missing or wrong, or, before `Configuring.done`, any exception: one line names it and its
      place. The environment variable MRMT3_TRACEBACK=1 lets it pass.
  """
  Configuring.active = True
  try:
    return configured(*args, **kwargs)
  except Exception as error:
    if isinstance(error, UserError):
      raise
    # An error of the system, such as a full disk, has a message of its own.
    if text := system_error(_original(error)):
      raise UserError(text) from error
    # In a run of several processes, it may say that another one is lost.
    if jax.process_count() > 1 and isinstance(error, jax.errors.JaxRuntimeError):
      raise
    if _raised_by_gin(error) and isinstance(error, RuntimeError | TypeError | ValueError):
      raise UserError(f'gin: {one_line(error)}') from error
    if not Configuring.active or os.environ.get('MRMT3_TRACEBACK'):
      raise
    raise UserError(_place(error)) from error
  finally:
    Configuring.active = False


def _original(error: BaseException) -> BaseException:
  """Return the exception that gin has replaced by one of a subclass, which has its message but not its attributes."""
  while error.__context__ is not None and type(error).__bases__ == (type(error.__context__),):
    error = error.__context__
  return error


def _frames(error: BaseException) -> list[tuple[Path, int]]:
  """Return (file, line) of the frames of a traceback, outermost first."""
  return [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]


def _raised_by_gin(error: BaseException) -> bool:
  return _frames(error)[-1][0].parent == Path(gin.__file__).parent


def _place(error: Exception) -> str:
  """Return one line with an exception, and where in this package it was raised."""
  own = [(path, line) for path, line in _frames(error) if _PACKAGE in path.resolve().parents]
  where = f' (in {own[-1][0].name}, line {own[-1][1]})' if own else ''
  return (
    f'gin: this configuration cannot be run: {type(error).__name__}: {one_line(error)}{where}; check the values that '
    'are set, or set MRMT3_TRACEBACK=1 to see the traceback'
  )
