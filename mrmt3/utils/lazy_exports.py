"""Lazy re-exports of a package: a name's module is imported on first use."""

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_exports(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
  """Build the module-level `__getattr__` and `__dir__` of a package.

  Args:
    package: the package's `__name__`.
    modules: name -> the module that defines it.

  Returns:
    (`__getattr__`, `__dir__`). The first raises AttributeError for a name that is not in `modules`.
  """

  def get(name: str) -> object:
    if name not in modules:
      raise AttributeError(f'module {package!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(modules[name]), name)
    setattr(sys.modules[package], name, value)
    return value

  def names() -> list[str]:
    return sorted({*vars(sys.modules[package]), *modules})

  return get, names
