"""The option --device: which of JAX's devices a command computes on."""

import argparse
import os

from mrmt3.errors import UserError

PLATFORMS = {'cpu': 'cpu', 'gpu': 'cuda,rocm', 'cuda': 'cuda', 'rocm': 'rocm', 'tpu': 'tpu'}
_PACKAGES = {'gpu': 'jax[cuda12]', 'cuda': 'jax[cuda12]', 'rocm': 'jax[rocm]', 'tpu': 'jax[tpu]'}


def add_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
  """Add --device to a command."""
  parser.add_argument(
    '--device', choices=tuple(PLATFORMS), help='compute on this kind of device (default: the fastest that JAX finds)'
  )


def choose(device: str | None) -> None:
  """Let JAX use one kind of device, before it has used any; None leaves the choice to JAX.

  Raises:
    UserError: there is none of that kind.
  """
  if device is None:
    return
  import jax

  kinds = PLATFORMS[device].split(',')
  for kind in kinds:
    os.environ['JAX_PLATFORMS'] = kind  # for child processes as well
    jax.config.update('jax_platforms', kind)
    try:
      if jax.devices():
        return
    except (RuntimeError, AssertionError):
      continue
  hint = (
    f'; for one that this machine has, install its support: pip install "{_PACKAGES[device]}"'
    if device in _PACKAGES
    else ''
  )
  raise UserError(f'--device {device}: JAX finds no such device; leave it out{hint}')
