"""Which engine answers to the name `t5x` in this process.

The entry module chooses, before anything imports models: `python -m mrmt3.train` calls `use_own_engine()`, after which
`t5x` and `t5x.utils`, ... are the modules of `mrmt3.engine`, even where the real t5x is installed. A process started by
the real t5x has it in `sys.modules` already, and `t5x_module` hands out its modules. Anything else gets ours.
"""

import importlib
import sys
import types

from mrmt3.errors import UserError

MODULES = ('adafactor', 'decoding', 'gin_utils', 'losses', 'models', 'optimizers', 'partitioning', 'trainer', 'utils')
OWN = 'mrmt3.engine'


def use_own_engine() -> None:
  """Makes `t5x` mean `mrmt3.engine` for the rest of the process; UserError if the real t5x is loaded already."""
  loaded = sys.modules.get('t5x')
  if loaded is not None and loaded.__name__ != OWN:
    raise UserError('t5x is loaded already: one process runs one engine; start this one with python -m mrmt3.train')
  sys.modules['t5x'] = importlib.import_module(OWN)
  for name in MODULES:
    sys.modules[f't5x.{name}'] = importlib.import_module(f'{OWN}.{name}')


def t5x_module(name: str) -> types.ModuleType:
  """Returns the module `t5x.<name>` of the engine that runs this process."""
  loaded = sys.modules.get('t5x')
  package = OWN if loaded is None else loaded.__name__
  return importlib.import_module(f'{package}.{name}')


def is_own_engine() -> bool:
  """Returns whether ours is the engine that runs this process."""
  loaded = sys.modules.get('t5x')
  return loaded is None or loaded.__name__ == OWN
