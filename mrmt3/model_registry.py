"""The networks that a model can have, by the name that model.json and gin files use. One line each.

The network's module is imported when it is asked for. Another package registers its own with `register`, before a
checkpoint of that kind is read.
"""

import importlib

from mrmt3.errors import UserError

NETWORKS = {
  'mr_mt3': 'mrmt3.network:T5Config',
  'framewise': 'mrmt3.framewise.config:FramewiseConfig',
  'harmonic_conv': 'mrmt3.harmonic_conv.config:HarmonicConvConfig',
  'hybrid': 'mrmt3.hybrid.config:HybridConfig',
}


def register(kind: str, path: str) -> None:
  """Add a network, or replace one that is there.

  Args:
    kind: `NetworkConfig.kind` of its configuration.
    path: where that class is, 'package.module:Class'.
  """
  NETWORKS[kind] = path


def network_class(kind: str) -> type:
  """Return the configuration class of a kind of network. Raises UserError naming the known kinds."""
  if not isinstance(kind, str) or kind not in NETWORKS:
    raise UserError(f'model: unknown network kind {kind!r:.80}; known are {", ".join(NETWORKS)}')
  module, _, name = NETWORKS[kind].partition(':')
  return getattr(importlib.import_module(module), name)
