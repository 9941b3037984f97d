"""Checks of fields that the configurations of several networks have; each raises UserError naming the field."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from mrmt3.errors import UserError


def check_dtype(config) -> None:
  """Normalise the field `dtype` to the dtype's name."""
  try:
    object.__setattr__(config, 'dtype', jnp.dtype(config.dtype).name)
  except TypeError:
    raise UserError(f'network: dtype is {config.dtype!r}; use float32 or bfloat16') from None


def check_sizes(config, names: Sequence[str], least: int = 1) -> None:
  """Check that fields are whole numbers of at least `least`."""
  for name in names:
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
      raise UserError(f'network: {name} is {value!r}; it must be a whole number of at least {least}')


def check_choice(config, name: str, choices: Sequence[str]) -> None:
  """Check that a field is one of some names."""
  if getattr(config, name) not in choices:
    raise UserError(f'network: {name} is {getattr(config, name)!r}; it must be one of {", ".join(choices)}')


def check_rate(config, name: str) -> None:
  """Check that a field is a number in 0 .. 1, 1 excluded."""
  value = getattr(config, name)
  if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
    raise UserError(f'network: {name} is {value!r}; it must lie in 0 .. 1')


def check_activations(config) -> None:
  """Check the field `mlp_activations` and make it a tuple."""
  names = config.mlp_activations
  known = isinstance(names, (list, tuple)) and all(name == 'linear' or hasattr(nn, str(name)) for name in names)
  if not known or not names:
    raise UserError(f'network: mlp_activations are {names!r}; give a list of names such as gelu, relu, linear')
  object.__setattr__(config, 'mlp_activations', tuple(names))


def check_flag(config, name: str) -> None:
  """Check that a field is True or False."""
  if not isinstance(getattr(config, name), bool):
    raise UserError(f'network: {name} is {getattr(config, name)!r}; it must be True or False')
