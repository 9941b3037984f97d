"""Whether a checkpoint's arrays are those of a network: what is missing, left over, or of another shape, by name."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

_NAMED = 4  # problems that are named one by one


def problems(
  found: Mapping[str, np.ndarray],
  wanted: Mapping[str, tuple[int, ...]],
  name_of: Callable[[str], str],
  names: Iterable[str],
) -> list[str]:
  """Returns what keeps arrays from being a network's parameters, a short text each; empty if they fit.

  Args:
    found: arrays by parameter path, each among `wanted`.
    wanted: the network's shapes by parameter path.
    name_of: parameter path -> its name in the file.
    names: of the arrays in the file that a network must have a place for.
  """
  texts = [f'{name_of(path)} is missing' for path in wanted if path not in found]
  for path, array in found.items():
    if array.shape != wanted[path]:
      # Both as the file has them.
      turned = slice(None, None, -1) if name_of(path) != path and path.endswith('kernel') else slice(None)
      texts.append(f'{name_of(path)} is {array.shape[turned]}, the network has {wanted[path][turned]}')
  used = {name_of(path) for path in found}
  return texts + [f'{name} is left over, the network has no place for it' for name in names if name not in used]


def in_one_line(texts: list[str]) -> str:
  """Returns the first few texts and how many more there are."""
  more = len(texts) - _NAMED
  return '; '.join(texts[:_NAMED]) + (f'; and {more} more' if more > 0 else '')
