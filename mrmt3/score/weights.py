"""The parameters of the small models in this package."""

import functools
from pathlib import Path

import numpy as np

_FOLDER = Path(__file__).parent.parent / 'weights' / 'score'


@functools.cache
def load(name: str) -> dict[str, np.ndarray]:
  """Return the parameters of 'beats', 'bars' or 'key', float32, by name."""
  from safetensors.numpy import load_file

  return {key: value.astype(np.float32) for key, value in load_file(_FOLDER / f'{name}.safetensors').items()}
