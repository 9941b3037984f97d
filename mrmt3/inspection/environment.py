"""Facts about the machine and what is installed on it."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from mrmt3.audio import soundfonts
from mrmt3.checkpoints import fetch, packed, published
from mrmt3.checkpoints.orbax import BUNDLED_FOLDER
from mrmt3.errors import first_line
from mrmt3.score import render
from mrmt3.utils.user_cache import cache_root
from mrmt3.version import __version__

# (package, extra of mrmt3 that brings it; '' for those that every user has)
PACKAGES = (
  ('jax', ''),
  ('jaxlib', ''),
  ('flax', ''),
  ('optax', ''),
  ('orbax-checkpoint', ''),
  ('numpy', ''),
  ('av', 'm4a'),
  ('verovio', 'score'),
  ('tensorflow', 'train'),
  ('seqio', 'train'),
  ('gin-config', 'train'),
  ('note-seq', 'train'),
  ('music21', 'dataset'),
  ('symusic', 'dataset'),
)
_VARIABLES = ('MRMT3_CACHE', 'MRMT3_DATA', 'MRMT3_RECORDS', 'MRMT3_WORKERS', 'JAX_PLATFORMS', 'XLA_FLAGS')


def describe() -> dict[str, dict[str, str]]:
  """Return facts by section and name. What is missing or broken is reported as such; nothing raises."""
  return {
    'mrmt3': {'version': __version__, 'folder': str(Path(__file__).parents[1])},
    'system': {
      'python': platform.python_version(),
      'platform': platform.platform(),
      'processors': str(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()),
    },
    'packages': {name: _version(name, extra) for name, extra in PACKAGES},
    'devices': _devices(),
    'models': _models(),
    'soundfonts': {
      package: path if os.path.isfile(path) else f'not here: apt-get install {package}'
      for package, path in soundfonts.KNOWN.items()
    },
    'programs': {
      'MuseScore (--pdf)': render.musescore() or 'not here',
      'mma (data sets)': shutil.which('mma') or 'not here',
    },
    'cache': _cache(),
    'environment': {name: os.environ[name] for name in _VARIABLES if name in os.environ},
  }


def _version(package, extra):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return f'not here: pip install "mrmt3[{extra}]"' if extra else 'not here: install mrmt3 again'


def _devices():
  try:
    import jax

    return {f'{device.platform} {device.id}': device.device_kind for device in jax.devices()}
  except Exception as error:  # of drivers and plugins, of any type
    return {'none': first_line(error)}


def _models():
  models = {}
  if BUNDLED_FOLDER.is_dir():
    models['framewise (default)'] = str(packed.read_about(BUNDLED_FOLDER).get('name', BUNDLED_FOLDER))
  for checkpoint in published.CHECKPOINTS.values():
    here = fetch.is_here(checkpoint)
    models[checkpoint.name] = checkpoint.title if here else f'not here: mrmt3 fetch {checkpoint.name}'
  return models


def _cache():
  root = cache_root()
  if root is None:
    return {'folder': 'none: there is no home folder; set MRMT3_CACHE'}
  sizes = {'folder': str(root)}
  if root.is_dir():
    for part in sorted(path for path in root.iterdir() if path.is_dir()):
      size = sum(path.stat(follow_symlinks=False).st_size for path in part.rglob('*') if path.is_file())
      sizes[part.name] = f'{size / 1e6:.1f} MB'
  return sizes
