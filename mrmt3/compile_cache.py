"""Keeps compiled programs on disk, so that the next run starts in seconds."""

import os

from mrmt3.user_cache import cache_root


def enable() -> None:
  """Lets JAX keep what it compiles in this process in the user's cache folder; to be called by programs, not libraries.

  Does nothing where JAX_COMPILATION_CACHE_DIR says where, or there is no place for it. What cannot be written is compiled
  again next time.
  """
  import jax

  root = cache_root()
  if root is None or os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  for name, value in (
    ('jax_compilation_cache_dir', str(root / 'programs')),
    ('jax_persistent_cache_min_compile_time_secs', 0.0),
    ('jax_persistent_cache_min_entry_size_bytes', -1),
    ('jax_raise_persistent_cache_errors', False),
  ):
    jax.config.update(name, value)
