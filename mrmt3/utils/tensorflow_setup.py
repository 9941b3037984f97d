"""TensorFlow start-up without log output. TensorFlow only reads data here; JAX uses the accelerators."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def deferred_stderr() -> Iterator[None]:
  """Capture what is written to stderr, by native code too, and write it out only if the block raises."""
  sys.stderr.flush()
  original = os.dup(2)
  with tempfile.TemporaryFile() as captured:
    os.dup2(captured.fileno(), 2)
    try:
      yield
    except BaseException:
      captured.seek(0)
      os.write(original, captured.read())
      raise
    finally:
      sys.stderr.flush()
      os.dup2(original, 2)
      os.close(original)


def start_tensorflow() -> None:
  """Import TensorFlow and seqio without output, and hide GPUs from TensorFlow."""
  # Log errors only. TensorFlow warns of every Python function in a pipeline whose position is saved.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  # TensorFlow 2.21 writes about oneDNN and CUDA before any log level applies.
  with deferred_stderr():
    import seqio  # noqa: F401
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')
    tf.constant(0)  # the first operation looks for devices
  # seqio warns of loggers and lengths that are intended.
  logging.getLogger('absl').setLevel(logging.ERROR)
