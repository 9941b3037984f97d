"""A queue that serves its clients in turn, so that one with many files does not keep the others waiting."""

import collections
from collections.abc import Hashable
from typing import Any


class FairQueue:
  """Items of clients; a client is an address and one of the browsers there. Not thread-safe.

  Addresses are served in turn, and so are the browsers of one address: many browser names bring no more turns.
  """

  def __init__(self):
    self._addresses: collections.OrderedDict[Hashable, collections.OrderedDict] = collections.OrderedDict()

  def __len__(self) -> int:
    return sum(len(items) for browsers in self._addresses.values() for items in browsers.values())

  def add(self, address: Hashable, browser: Hashable, item: Any) -> None:
    """Append an item of a client."""
    browsers = self._addresses.setdefault(address, collections.OrderedDict())
    browsers.setdefault(browser, collections.deque()).append(item)

  def take(self) -> Any | None:
    """Remove and return the next item; None if there is none."""
    if not self._addresses:
      return None
    address, browsers = self._addresses.popitem(last=False)
    browser, items = browsers.popitem(last=False)
    item = items.popleft()
    if items:
      browsers[browser] = items
    if browsers:
      self._addresses[address] = browsers
    return item

  def remove(self, item: Any) -> bool:
    """Remove an item wherever it is; returns whether it was there."""
    for address, browsers in self._addresses.items():
      for browser, items in browsers.items():
        if item in items:
          items.remove(item)
          if not items:
            del browsers[browser]
          if not browsers:
            del self._addresses[address]
          return True
    return False

  def order(self) -> list:
    """Return all items in the order in which `take` would return them."""
    addresses = [[list(items) for items in browsers.values()] for browsers in self._addresses.values()]
    found = []
    while addresses:
      browsers = addresses.pop(0)
      items = browsers.pop(0)
      found.append(items.pop(0))
      if items:
        browsers.append(items)
      if browsers:
        addresses.append(browsers)
    return found
