"""Checks that no setting of a gin configuration is dropped silently."""

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import gin
from mrmt3.errors import UserError

_MACRO = 'gin.macro'


@contextlib.contextmanager
def no_silent_resets() -> Iterator[None]:
  """Check the gin files that are parsed in the block.

  A file that is included a second time sets its values again. That is an error if it undoes what another file has set
  in between, and no later line sets it anew.

  Raises:
    UserError: a value was reset; the message names the files and the value.
  """
  original, seen, including, resets = gin.config.parse_config_file, set(), [], {}

  def parse(name, *args, **kwargs):
    before = _bindings() if name in seen else None
    seen.add(name)
    including.append(name)
    try:
      result = original(name, *args, **kwargs)
    finally:
      including.pop()
    if before is not None:
      outer = f'{including[-1]} includes {name} again, which' if including else f'{name}, given twice,'
      for key, value in _bindings().items():
        if key in before and before[key] != value:
          resets.setdefault(key, (outer, before[key]))
          resets[key] = (*resets[key][:2], value)
    return result

  gin.config.parse_config_file = parse
  try:
    yield
  finally:
    gin.config.parse_config_file = original
  final = _bindings()
  for key, (outer, before, after) in resets.items():
    if final[key] == after != before:
      raise UserError(
        f'gin: {outer} sets {_name(key)} back to {after}; another file has set it to {before}. Give one run file only; '
        'to start from other weights, give runs/continued.gin last'
      )


def check_macros_used(names: Sequence[str]) -> None:
  """Check that macros, such as those of the command line, have an effect on the function of the main module.

  Args:
    names: of macros that are bound.

  Raises:
    UserError: nothing that would be called uses one of them.
  """
  configuration = gin.config._CONFIG
  roots = [key for key in configuration if key[1].startswith('__main__.')]
  if not roots:
    return
  reached, todo = set(roots), list(roots)
  while todo:
    for reference in _references(list(configuration[todo.pop()].values())):
      selector = reference.configurable.selector
      if selector == _MACRO:
        new = {('/'.join(reference.scopes), _MACRO)} & configuration.keys()
      else:
        new = {key for key in configuration if key[1] == selector}
      todo += new - reached
      reached |= new
  used = {scope for scope, selector in reached if selector == _MACRO}
  for name in names:
    if name in used:
      continue
    if name == 'INIT_FROM':
      raise UserError(
        'gin: INIT_FROM is set, but the run would start from fresh weights: RESTORE is None; add '
        '--gin_file=runs/continued.gin as the last file, or leave INIT_FROM out'
      )
    near = difflib.get_close_matches(name, used, 1)
    raise UserError(
      f'gin: {name} is set, but nothing uses it; ' + (f'did you mean {near[0]}?' if near else 'leave it out')
    )


def _bindings() -> dict[tuple[str, str, str], str]:
  """Return (scope, selector, parameter) -> value, as text, because gin's references compare equal in any scope."""
  return {
    (*key, parameter): repr(value)
    for key, parameters in gin.config._CONFIG.items()
    for parameter, value in parameters.items()
  }


def _name(key: tuple[str, str, str]) -> str:
  scope, selector, parameter = key
  if selector == _MACRO:
    return scope
  return f'{scope}/{selector}.{parameter}' if scope else f'{selector}.{parameter}'


def _references(value: Any) -> Iterator:
  """Yield the references in a value of a binding, at any depth."""
  if isinstance(value, gin.config.ConfigurableReference):
    yield value
  elif isinstance(value, dict):
    yield from _references([*value.keys(), *value.values()])
  elif isinstance(value, list | tuple | set):
    for item in value:
      yield from _references(item)
