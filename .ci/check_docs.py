"""Run or dry-run every shell line in the given Markdown files.

A block that starts with ```sh is run, line after line, in one scratch folder. A word after it (```sh long, data,
network, tpu) gives the reason why it cannot run here. Its lines are checked instead: options by the real parser, gin
files by parsing them, make targets with -n, launch_tpu.sh with --dry_run.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAGS = {'long', 'data', 'network', 'tpu'}
FENCE = re.compile(r'^```sh([^\n]*)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
PARSE_GIN = """
import sys
from mrmt3.engine import gin_utils, names
flags = gin_utils.parse_flags(sys.argv[1:], 'train', '')
names.use_own_engine()
import gin
from mrmt3.train import train
gin.configurable(train, module='__main__')
gin_utils.parse_config(flags)
"""
PARSE_OPTIONS = """
import sys
from mrmt3.cli.commands import build_parser
build_parser().parse_args(sys.argv[1:])
"""


def lines_of(block: str) -> list[str]:
  """Return the block's commands, continued lines joined, comments and empty lines left out."""
  joined = block.replace('\\\n', ' ')
  return [line for line in (part.strip() for part in joined.splitlines()) if line and not line.startswith('#')]


def dry_command(line: str) -> list[str]:
  """Return the command that checks a line without running it."""
  words = shlex.split(line, comments=True)
  if words[0] == 'make':
    return ['make', '-C', str(ROOT), '-n', *words[1:]]
  if words[0] == 'mrmt3' and words[1] != 'train':
    return [sys.executable, '-c', PARSE_OPTIONS, *words[1:]]
  if words[:2] == ['mrmt3', 'train'] or words[:3] == ['python', '-m', 'mrmt3.train']:
    return [sys.executable, '-c', PARSE_GIN, *words[2 if words[0] == 'mrmt3' else 3 :]]
  if words[0].endswith('launch_tpu.sh'):
    return [str(ROOT / 'launch_tpu.sh'), words[1], '--dry_run', *words[2:]]
  return ['bash', '-n', '-c', line]


def check(path: Path, scratch: Path) -> tuple[int, int]:
  """Check one file and return (lines checked, lines that failed)."""
  checked = failed = 0
  for match in FENCE.finditer(path.read_text()):
    tags = set(match[1].split())
    if tags - TAGS:
      print(f'{path}: unknown tag {tags - TAGS}; there are {TAGS}')
      failed += 1
    for line in lines_of(match[2]):
      command = dry_command(line) if tags else ['bash', '-euo', 'pipefail', '-c', line]
      result = subprocess.run(
        command, cwd=scratch, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
      )
      checked += 1
      print(f'{"dry" if tags else "run"} {"ok    " if result.returncode == 0 else "FAILED"} {line}', flush=True)
      if result.returncode:
        failed += 1
        print(result.stdout[-2000:] + result.stderr[-2000:])
  return checked, failed


def main() -> int:
  """Check the files named on the command line; exit code 1 if any line failed."""
  with tempfile.TemporaryDirectory() as scratch:
    (Path(scratch) / 'benchmarks').symlink_to(ROOT / 'benchmarks')  # which are not part of the package
    results = [check(Path(name).resolve(), Path(scratch)) for name in sys.argv[1:]]
  checked, failed = (sum(column) for column in zip(*results, strict=True))
  print(f'{checked - failed} passed, {failed} failed')
  return 1 if failed or not checked else 0


if __name__ == '__main__':
  sys.exit(main())
