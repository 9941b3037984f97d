"""Small checkpoints to give away: parameters only, in half the bytes, in one file that other programs read too.

<folder>/model.json            the ModelSpec
<folder>/weights.safetensors   the parameters by their path, float32 or bfloat16
<folder>/about.json            name, what it was trained on, and what it reaches (may be missing)
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from mrmt3.checkpoints import limits, safetensors_files, spec_json
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError, first_line
from mrmt3.utils import bounded_files, files, strict_json

WEIGHTS_NAME, SPEC_NAME, ABOUT_NAME = 'weights.safetensors', 'model.json', 'about.json'
DTYPES = ('bfloat16', 'float32')


def is_packed(folder: Path) -> bool:
  """Return whether a folder is such a checkpoint."""
  return os.path.isfile(folder / WEIGHTS_NAME)


def save(folder: Path, params: Mapping, spec: ModelSpec, about: Mapping | None = None, dtype: str = 'bfloat16') -> None:
  """Write a folder; what was in it before is replaced file by file.

  Args:
    folder: made if missing.
    params: parameter tree of float32 arrays.
    spec: what they belong to.
    about: what `read_about` shall return.
    dtype: 'bfloat16' (rounded to nearest) or 'float32'.

  Raises:
    UserError: for another dtype, or if it cannot be written.
  """
  import jax.numpy as jnp
  from flax import traverse_util
  from safetensors import flax as safetensors

  if dtype not in DTYPES:
    raise UserError(f'packed checkpoint: dtype is {dtype!r}; it is one of {", ".join(DTYPES)}')
  arrays = {name: jnp.asarray(x, dtype) for name, x in traverse_util.flatten_dict(params, sep='/').items()}
  files.make_folder(folder)
  contents = {WEIGHTS_NAME: safetensors.save(arrays), SPEC_NAME: spec_json.to_json(spec).encode()}
  if about is not None:
    contents[ABOUT_NAME] = (json.dumps(about, indent=2) + '\n').encode()
  for name, content in contents.items():
    with files.atomic_path(folder / name) as temporary:
      temporary.write_bytes(content)


def read_params(folder: Path) -> dict:
  """Return the parameter tree, float32 numpy arrays. UserError if the file is broken."""
  from flax import traverse_util

  path = folder / WEIGHTS_NAME
  try:
    arrays = {tuple(name.split('/')): array for name, array in safetensors_files.read(path).items()}
    limits.check_paths(arrays)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or first_line(error)}') from error
  except (ValueError, MemoryError) as error:
    raise UserError(f'{path}: cannot read the weights ({first_line(error)}); was it copied as a whole?') from error
  return traverse_util.unflatten_dict(arrays)


def read_about(folder: Path) -> dict:
  """Return the contents of about.json; an empty dict without one."""
  try:
    about = strict_json.loads(bounded_files.read_bytes(folder / ABOUT_NAME, strict_json.MAX_BYTES))
  except (OSError, ValueError):
    return {}
  return about if isinstance(about, dict) else {}
