"""Choice of the engine that the name `t5x` refers to in this process: mrmt3's own, or the real t5x.

`python -m mrmt3.train` calls `use_own_engine()` before anything imports models. From then on `t5x`, `t5x.utils`, ...
are the modules of `mrmt3.engine`, even if the real t5x is installed. A process that the real t5x has started has it in
`sys.modules`, and `t5x_module` returns its modules. Any other process uses `mrmt3.engine`.
"""

import importlib
import sys
import types

from mrmt3.errors import UserError

MODULES = ('adafactor', 'decoding', 'gin_utils', 'losses', 'models', 'optimizers', 'partitioning', 'trainer', 'utils')
OWN = 'mrmt3.engine'


def use_own_engine() -> None:
  """Make the name `t5x` refer to `mrmt3.engine` in this process; UserError if the real t5x is already imported."""
  loaded = sys.modules.get('t5x')
  if loaded is not None and loaded.__name__ != OWN:
    raise UserError('t5x is already imported, and a process uses one engine; start a new one: python -m mrmt3.train')
  sys.modules['t5x'] = importlib.import_module(OWN)
  for name in MODULES:
    sys.modules[f't5x.{name}'] = importlib.import_module(f'{OWN}.{name}')


def t5x_module(name: str) -> types.ModuleType:
  """Return the module `t5x.<name>` of this process's engine."""
  loaded = sys.modules.get('t5x')
  package = OWN if loaded is None else loaded.__name__
  return importlib.import_module(f'{package}.{name}')


def is_own_engine() -> bool:
  """Return whether this process's engine is mrmt3's own."""
  loaded = sys.modules.get('t5x')
  return loaded is None or loaded.__name__ == OWN
