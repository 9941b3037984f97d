"""The golden cases: commands of the project, run in their own processes on files as the old code left them.

Knows nothing of the project's modules, so that old and new code are run by the same lines: the maker
(`golden/make_golden.py`) and the test (`test_golden.py`) use it. What the project's modules are needed for is in
`golden_api`.

A case is an entry of manifest.json:

  inputs    name in the working folder -> file or folder below golden/ that is copied there
  before    folder below golden/ that is copied over it: what an old run had left when it was stopped
  prepare   names of functions here (`PREPARATIONS`) that make further inputs
  first     commands that make further inputs
  commands  words of a command line each: 'mrmt3 ...', or 'mrmt3.train ...' for `python -m mrmt3.train ...`
  outputs   what is compared, see `read_outputs`
  slow      whether it takes long
"""

import contextlib
import fnmatch
import hashlib
import http.server
import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
import tarfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / 'golden'
FIXTURES = Path(__file__).parent / 'fixtures'
ROOT_MARK = '@ROOT@'  # stands for the working folder in what old runs wrote
TIME = 1_600_000_000  # s, of all files: journals know files by their times
DOWNLOAD = bytes(range(256)) * 16  # what the journal of a download is of
TEXT_SUFFIXES = ('.json', '.jsonl', '.gin', '.resume', '.md', '.html', '.yaml')
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'MRMT3_CACHE': 'cache',  # in the working folder
  'MRMT3_WORKERS': '1',
  'XLA_FLAGS': '--xla_backend_optimization_level=0',  # compiling is most of what these runs do
  'TF_CPP_MIN_LOG_LEVEL': '2',
}


def machine() -> dict:
  """Return what results may depend on in their last bits."""
  import jaxlib

  info = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
  fields = dict(line.split(':', 1) for line in info.splitlines() if ':' in line)
  fields = {name.strip(): value.strip() for name, value in fields.items()}
  return {
    'cpu': fields.get('model name', platform.processor()),
    'cpu_flags': hashlib.sha256(' '.join(sorted(fields.get('flags', '').split())).encode()).hexdigest()[:16],
    'cpus': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
    'jaxlib': jaxlib.__version__,
  }


def set_times(folder: Path) -> None:
  """Give everything below a folder, and the folder, the time that journals know."""
  for parent, _, files in os.walk(folder, topdown=False):
    for name in [*files, '.']:
      os.utime(Path(parent) / name, (TIME, TIME))


def copy(source: Path, target: Path) -> None:
  """Copy a file, or the content of a folder or a .tar.xz file, over what is there."""
  if source.name.endswith('.tar.xz'):
    with tarfile.open(source) as archive:
      archive.extractall(target, filter='data')
  elif source.is_file():
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
  else:
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)


def lay_out(case: Mapping, work: Path, code: Path) -> None:
  """Fill an empty working folder with a case's inputs and what was left behind; `code` as in `run`."""
  work.mkdir(parents=True, exist_ok=True)
  for name, source in case.get('inputs', {}).items():
    copy(FOLDER / source, work / name)
  for name in case.get('prepare', ()):
    PREPARATIONS[name](work)
  if 'first' in case:
    run(case['first'], work, code)
  if 'before' in case:
    before = FOLDER / case['before']
    copy(before, work)
    for path in files_below(before):
      if path.suffix in TEXT_SUFFIXES:
        there = work / path.relative_to(before)
        there.write_text(there.read_text().replace(ROOT_MARK, str(work)))
  set_times(work)


def files_below(folder: Path) -> list[Path]:
  """Return all files below a folder, hidden ones too, sorted."""
  return sorted(path for path in folder.rglob('*') if path.is_file())


def run(commands: list[list[str]], work: Path, code: Path) -> str:
  """Run commands one after the other in one process, in the working folder; return their output.

  Args:
    commands: words, see above.
    work: the working folder.
    code: the folder in which the package mrmt3 lies.

  Raises:
    AssertionError: one of them failed.
  """
  environment = {**os.environ, **ENVIRONMENT, 'PYTHONPATH': str(code)}
  # A program that ends the process itself, as training does, is the only one.
  words = ['-m', *commands[0]] if len(commands) == 1 else [str(Path(__file__).resolve()), json.dumps(commands)]
  result = subprocess.run(
    [sys.executable, *words],
    cwd=work,
    env=environment,
    capture_output=True,
    text=True,
    timeout=900,
    check=False,
  )
  assert result.returncode == 0, f'{commands}\n{result.stdout[-3000:]}\n{result.stderr[-6000:]}'
  return result.stdout + result.stderr


def _do_commands(commands) -> int:
  """Run commands in this process as `python -m` does; return the exit code of the first that fails, else 0."""
  for program, *words in commands:
    sys.argv = [program, *words]
    try:
      runpy.run_module(program, run_name='__main__', alter_sys=True)
    except SystemExit as end:
      if end.code:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
      traceback.print_exc()
      return 1
  return 0


def read_outputs(outputs: list[Mapping], work: Path) -> dict:
  """Return what a case's commands have left behind, as JSON values; the working folder's path is replaced by a mark.

  Args:
    outputs: each has `files` (a pattern), `kind` and, for JSON, `without` (patterns of keys that are left out, wherever
      they are) and `only` (patterns of the keys at the top that count). Kinds: 'json', 'jsonl', 'sha256', 'names',
      'arrays' (of the checkpoint in whose folder the file lies).
    work: the working folder.
  """
  found = {}
  for output in outputs:
    paths = [
      path for path in files_below(work) if fnmatch.fnmatchcase(path.relative_to(work).as_posix(), output['files'])
    ]
    for path in paths:
      name = path.relative_to(work).as_posix()
      found[f'{output["kind"]}:{name}'] = _READERS[output['kind']](path, output, str(work))
    if not paths:
      found[f'{output["kind"]}:{output["files"]}'] = 'nothing is there'
  return found


def _read_json(path, output, root):
  return _filtered(json.loads(path.read_text().replace(root, ROOT_MARK)), output)


def _read_jsonl(path, output, root):
  lines = path.read_text().replace(root, ROOT_MARK).splitlines()
  return [_filtered(json.loads(line), output) for line in lines]


def _filtered(value, output):
  only = output.get('only')
  if only and isinstance(value, dict):
    value = {key: x for key, x in value.items() if any(fnmatch.fnmatchcase(key, pattern) for pattern in only)}
  return without(value, output.get('without', ()))


def without(value, patterns):
  """Return a JSON value without the keys that match a pattern, wherever they are."""
  if isinstance(value, dict):
    kept = {key: x for key, x in value.items() if not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)}
    return {key: without(x, patterns) for key, x in kept.items()}
  return [without(x, patterns) for x in value] if isinstance(value, list) else value


_READERS = {
  'json': _read_json,
  'jsonl': _read_jsonl,
  'sha256': lambda path, *_: hashlib.sha256(path.read_bytes()).hexdigest(),
  'names': lambda *_: True,
  'arrays': lambda path, *_: {name: _described(array) for name, array in checkpoint_arrays(path.parent).items()},
}


def _described(array):
  digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:32]
  return {
    'sha256': digest,
    'type': f'{array.dtype} {list(array.shape)}',
    'norm': float(np.linalg.norm(array.astype(np.float64))),
  }


def differences(found, expected, rtol: float, where: str = '') -> list[str]:
  """Return where two JSON values differ, floats by more than `rtol` of the larger one."""
  if isinstance(found, dict) and isinstance(expected, dict):
    lines = [
      f'{where}: {key} is {"missing" if key in expected else "left over"}'
      for key in sorted(found.keys() ^ expected.keys())
    ]
    common = [key for key in expected if key in found]
    return lines + [line for key in common for line in differences(found[key], expected[key], rtol, f'{where}/{key}')]
  if isinstance(found, list) and isinstance(expected, list):
    if len(found) != len(expected):
      return [f'{where}: {len(found)} entries, not {len(expected)}']
    pairs = enumerate(zip(found, expected, strict=True))
    return [line for k, (a, b) in pairs for line in differences(a, b, rtol, f'{where}/{k}')]
  numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (found, expected))
  if found == expected or (found != found and expected != expected):
    return []
  if (
    numbers
    and float in (type(found), type(expected))
    and abs(found - expected) <= rtol * max(abs(found), abs(expected))
  ):
    return []
  return [f'{where}: {str(found)[:80]}, not {str(expected)[:80]}']


def checkpoint_arrays(folder: Path) -> dict[str, np.ndarray]:
  """Return the arrays of a checkpoint folder's Orbax state by their paths, as Orbax itself reads them."""
  import jax
  import orbax.checkpoint as ocp

  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    tree = checkpointer.restore((folder / 'state').absolute())
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf) for path, leaf in leaves}


def array_differences(found: Mapping, expected: Mapping, rtol: float) -> list[str]:
  """Return which arrays differ: in a bit where `rtol` is 0, else by more than `rtol` of the array's largest number."""
  lines = [
    f'{name} is {"missing" if name in expected else "left over"}' for name in sorted(found.keys() ^ expected.keys())
  ]
  for name in sorted(found.keys() & expected.keys()):
    a, b = found[name], expected[name]
    if (a.shape, a.dtype) != (b.shape, b.dtype):
      lines.append(f'{name} is {a.dtype} {a.shape}, not {b.dtype} {b.shape}')
    elif a.tobytes() != b.tobytes():
      largest = np.abs(b).max(initial=0)
      error = np.abs(a.astype(np.float64) - b).max() / largest if largest else np.inf
      if not error <= rtol:
        lines.append(f'{name} differs by {error:.3g} of its largest number')
  return lines


def _write_torch_names(work: Path) -> None:
  """Write the network of tests/fixtures/network.npz under PyTorch's names: mr_mt3.npz, and mt3.npz without memory."""
  found = dict(np.load(FIXTURES / 'network.npz'))
  weights = {name.removeprefix('weights/'): x for name, x in found.items() if name.startswith('weights/')}
  np.savez(work / 'mr_mt3.npz', **weights)
  np.savez(work / 'mt3.npz', **{name: x for name, x in weights.items() if not name.startswith('segmem')})


def _unpack_t5x(work: Path) -> None:
  """Unpack the checkpoints that t5x wrote, before and since Orbax."""
  for name in ('t5x_legacy_checkpoint_3', 't5x_orbax_checkpoint_6'):
    with tarfile.open(FIXTURES / f'{name}.tar.gz') as archive:
      archive.extractall(work / name.split('_checkpoint')[0], filter='data')


@contextlib.contextmanager
def serving(content: bytes, most: int | None = None):
  """Yield (address, requested ranges) of a server of one file, of which it sends no more than `most` bytes."""
  asked = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      wanted = self.headers.get('Range')
      asked.append(wanted)
      start = int(wanted.removeprefix('bytes=').rstrip('-')) if wanted else 0
      self.send_response(206 if wanted else 200)
      if wanted:
        self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
      self.send_header('Content-Length', str(len(content) - start))
      self.send_header('ETag', '"golden"')
      self.end_headers()
      self.wfile.write(content[start:most])
      self.close_connection = True

    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}/file', asked
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


PREPARATIONS = {'torch_names': _write_torch_names, 't5x': _unpack_t5x}

if __name__ == '__main__':
  sys.path.pop(0)  # tests/, which `python -m` would not have there either
  sys.path.insert(0, '')
  sys.exit(_do_commands(json.loads(sys.argv[1])))
