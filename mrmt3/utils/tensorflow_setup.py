"""Starting TensorFlow, which reads the music here and nothing else, without its start-up chatter."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def held_back_stderr() -> Iterator[None]:
  """Holds back what is written to stderr, by native code too, and shows it only if the block raises."""
  sys.stderr.flush()
  kept = os.dup(2)
  with tempfile.TemporaryFile() as held:
    os.dup2(held.fileno(), 2)
    try:
      yield
    except BaseException:
      held.seek(0)
      os.write(kept, held.read())
      raise
    finally:
      sys.stderr.flush()
      os.dup2(kept, 2)
      os.close(kept)


def start_tensorflow() -> None:
  """Imports TensorFlow and seqio, and leaves all accelerators to JAX."""
  # Of what it logs later, only errors are for people; it warns of every Python function in a pipeline whose position is
  # saved.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  # TensorFlow 2.21 writes about oneDNN and CUDA before any log level can stop it.
  with held_back_stderr():
    import seqio  # noqa: F401
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')
    tf.constant(0)  # its context looks for devices on first use
  # seqio warns of loggers and lengths that are meant to be as they are.
  logging.getLogger('absl').setLevel(logging.ERROR)
