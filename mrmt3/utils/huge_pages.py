"""Memory in large pages: on Linux an allocator that asks for them makes a training step on a CPU markedly faster.

Arrays of many megabytes come and go in every step, and the kernel has to clear and map each of their pages anew: one of 2 MB
takes hardly longer than one of 4 kB. glibc reads its setting when a process starts, hence the way through the environment.
"""

import os
import sys

VARIABLE, VALUE = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1'


def set_for_programs() -> bool:
  """Asks for large pages in programs that are started from here; returns False where the user has a setting already."""
  if sys.platform != 'linux' or VARIABLE in os.environ:
    return False
  os.environ[VARIABLE] = VALUE
  return True


def restart_with() -> None:
  """Replaces this process by the same command with large pages, unless there is a setting (then it just returns)."""
  if set_for_programs():
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
