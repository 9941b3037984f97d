"""TensorFlow tensors, recognised without importing TensorFlow."""

import sys


def is_tensor(x) -> bool:
  """Return whether `x` is a TensorFlow tensor; False as long as nobody has imported TensorFlow."""
  tensorflow = sys.modules.get('tensorflow')
  return tensorflow is not None and hasattr(tensorflow, 'is_tensor') and tensorflow.is_tensor(x)
