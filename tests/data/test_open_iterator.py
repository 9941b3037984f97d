"""Test that a process ends even if a data iterator is still in use."""

import subprocess
import sys

SCRIPT = """
import time
import numpy as np
from mrmt3.utils.tensorflow_setup import start_tensorflow
start_tensorflow()
import tensorflow as tf
from mrmt3 import preprocessors

def slow(number):
  time.sleep(0.001)
  return number

def step(number):
  return tf.numpy_function(slow, [number], tf.int64)

batches = tf.data.Dataset.range(10**9).map(step, num_parallel_calls=4).prefetch(100)
iterator = {}
next(iterator)
print('made one', flush=True)
"""


def ends(iterator):
  script = SCRIPT.replace('{}', iterator)
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=120, check=False)
  return done.returncode, done.stdout, done.stderr


def test_a_process_ends_with_an_iterator_in_use():
  assert ends('iter(batches)') == (0, 'made one\n', '')


def test_a_process_ends_with_a_training_loop_left_open():
  script = "__import__('mrmt3.engine.utils').engine.utils.iterate(batches)"
  assert ends(script) == (0, 'made one\n', '')
