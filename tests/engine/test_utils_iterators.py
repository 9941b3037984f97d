"""Test that a process ends even if a data iterator is still in use."""

import subprocess
import sys

import pytest

SCRIPT = """
import time
import numpy as np
from mrmt3.utils.tensorflow_setup import start_tensorflow
start_tensorflow()
import tensorflow as tf
from mrmt3.engine import utils
from mrmt3.training.data_iterator import DataIterator

def slow(number):
  time.sleep(0.001)
  return number

def step(number):
  return tf.numpy_function(slow, [number], tf.int64)

batches = tf.data.Dataset.range(10**9).map(lambda number: {'number': step(number)}, num_parallel_calls=4).prefetch(100)
iterator = {}
next(iterator)
print('made one', flush=True)
"""


@pytest.mark.parametrize('iterator', ['utils.iterate(batches)', 'DataIterator(batches)'])
def test_a_process_ends_with_an_iterator_in_use(iterator):
  script = SCRIPT.replace('{}', iterator)
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=120, check=False)
  # TensorFlow warns, at times, that it cannot save the position of a Python function.
  lines = [line for line in done.stderr.splitlines() if not line.startswith('W0000')]
  assert (done.returncode, done.stdout, lines) == (0, 'made one\n', [])
