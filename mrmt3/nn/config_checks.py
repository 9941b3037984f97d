"""Checks of fields that the configurations of several networks have; each raises UserError naming the field."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from mrmt3.errors import UserError

_MAX_SIZE = 1 << 20
_MAX_LAYERS = 256
_MAX_ACTIVATIONS = 8


def check_dtype(config) -> None:
  """Normalise the field `dtype` to the dtype's name."""
  try:
    dtype = jnp.dtype(config.dtype)
  except Exception:  # NumPy parses text of many forms
    dtype = None
  if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
    raise UserError(f'network: dtype is {config.dtype!r:.80}; use float32 or bfloat16')
  object.__setattr__(config, 'dtype', dtype.name)


def check_sizes(config, names: Sequence[str], least: int = 1) -> None:
  """Check that fields are whole numbers of at least `least`, and small enough to be meant."""
  for name in names:
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
      raise UserError(f'network: {name} is {value!r:.80}; it must be a whole number of at least {least}')
    most = _MAX_LAYERS if name.endswith('layers') else _MAX_SIZE
    if value > most:
      raise UserError(f'network: {name} is {value!r:.80}; it must be a whole number of at most {most:,}')


def check_choice(config, name: str, choices: Sequence[str]) -> None:
  """Check that a field is one of some names."""
  value = getattr(config, name)
  if not isinstance(value, str) or value not in choices:
    raise UserError(f'network: {name} is {value!r:.80}; it must be one of {", ".join(choices)}')


def check_rate(config, name: str) -> None:
  """Check that a field is a number in 0 .. 1, 1 excluded."""
  value = getattr(config, name)
  if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
    raise UserError(f'network: {name} is {value!r:.80}; it must lie in 0 .. 1')


def check_activations(config) -> None:
  """Check the field `mlp_activations` and make it a tuple."""
  names = config.mlp_activations
  known = isinstance(names, (list, tuple)) and all(map(_is_activation, names))
  if not known or not 0 < len(names) <= _MAX_ACTIVATIONS:
    raise UserError(f'network: mlp_activations are {names!r:.80}; give a list of names such as gelu, relu, linear')
  object.__setattr__(config, 'mlp_activations', tuple(names))


def _is_activation(name) -> bool:
  return isinstance(name, str) and (name == 'linear' or callable(getattr(nn, name, None)))


def check_flag(config, name: str) -> None:
  """Check that a field is True or False."""
  if not isinstance(getattr(config, name), bool):
    raise UserError(f'network: {name} is {getattr(config, name)!r}; it must be True or False')
