"""Huge pages: on Linux, an allocator that asks for them makes a training step on a CPU faster.

Arrays of many megabytes come and go in every step, and the kernel has to clear and map each of their pages anew: one of 2 MB
takes hardly longer than one of 4 kB. glibc reads its setting when a process starts, so only processes that are started from
here have it.
"""

import os
import sys

VARIABLE, VALUE = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1'


def set_for_child_processes() -> None:
  """Asks for huge pages in processes started from now on; a setting that the user has made stays."""
  if sys.platform == 'linux':
    os.environ.setdefault(VARIABLE, VALUE)
