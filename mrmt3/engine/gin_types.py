"""Checks of the values in a gin configuration against the type annotations of what they are bound to."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

import gin
from mrmt3.errors import UserError

_MACRO = 'gin.macro'
_MAX_TEXT = 80  # characters of a value in a message


def check_types() -> None:
  """Check all bound values, before anything is called.

  Literals are checked, at any depth of lists and dicts, and macros by their values. The results of references such as
  @name() are not known yet, so they are not checked; neither is what has no annotation.

  Raises:
    UserError: a value has another type; the message names the macro or the parameter, and the type.
  """
  for (scope, selector), parameters in list(gin.config._CONFIG.items()):
    if selector == _MACRO:
      continue
    hints = _hints(selector)
    for name, value in parameters.items():
      if name not in hints:
        continue
      parameter = f'{selector.split(".")[-1]}.{name}'
      source, value = _resolve(f'{scope}/{parameter}' if scope else parameter, value)
      if not _fits(value, hints[name]):
        where = '' if source.endswith(parameter) else f', for {parameter}'
        raise UserError(f'gin: {source} is {_shortened(value)}; it must be {_describe(hints[name])}{where}')


def _hints(selector: str) -> dict[str, Any]:
  """Return the types of the parameters of a configurable; none if they cannot be found out."""
  try:
    wrapped = gin.config._REGISTRY[selector].wrapped
    function = wrapped.__init__ if inspect.isclass(wrapped) else wrapped
    return typing.get_type_hints(function)
  except (KeyError, NameError, TypeError, AttributeError):
    return {}


def _resolve(source: str, value: Any) -> tuple[str, Any]:
  """Follow macros; return where the value is set, and the value."""
  seen = set()
  while isinstance(value, gin.config.ConfigurableReference) and value.configurable.selector == _MACRO:
    name = '/'.join(value.scopes)
    bound = gin.config._CONFIG.get((name, _MACRO), {})
    if 'value' not in bound:
      return source, value
    if name in seen:
      raise UserError(f'gin: {name} is set to itself; give it a value')
    seen.add(name)
    source, value = name, bound['value']
  return source, value


def _fits(value: Any, hint: Any) -> bool:
  """Return whether a value may have a type; True where that is not known."""
  if isinstance(value, gin.config.ConfigurableReference) or value is gin.REQUIRED or hint is Any:
    return True
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, argument) for argument in arguments)
  if origin is typing.Literal:
    return value in arguments
  if hint is None or hint is type(None):
    return value is None
  if hint in (int, float):
    return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
  if (origin or hint) is collections.abc.Callable:
    return callable(value)
  kind = origin or hint
  if not inspect.isclass(kind):
    return True
  if kind in (list, tuple, collections.abc.Sequence):
    return isinstance(value, list | tuple | str) and all(_fits(item, kind) for item, kind in _items(value, arguments))
  if kind in (dict, collections.abc.Mapping) and arguments:
    return isinstance(value, dict) and all(
      _fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in value.items()
    )
  try:
    return isinstance(value, kind)
  except TypeError:  # a protocol that is only for type checkers
    return True


def _items(value, arguments) -> Iterator[tuple[Any, Any]]:
  """Yield (item, its type) of a sequence; nothing where the type is not known."""
  if not arguments or isinstance(value, str):
    return
  if len(arguments) == 1 or arguments[-1] is Ellipsis:
    yield from ((_resolve('', item)[1], arguments[0]) for item in value)


def _describe(hint: Any) -> str:
  """Return a type in words."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return ' or '.join(dict.fromkeys(map(_describe, arguments)))
  if origin is typing.Literal:
    return ' or '.join(map(repr, arguments))
  names = {int: 'an integer', float: 'a number', bool: 'True or False', str: 'a string', type(None): 'None'}
  if hint in names:
    return names[hint]
  kind = origin or hint
  if kind is collections.abc.Callable:
    return 'a function such as @name'
  if kind in (list, tuple, collections.abc.Sequence):
    return 'a list'
  if kind in (dict, collections.abc.Mapping):
    return 'a dict'
  return f'a {getattr(kind, "__name__", kind)} such as @name()'


def _shortened(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= _MAX_TEXT else f'{text[:_MAX_TEXT]}...'
