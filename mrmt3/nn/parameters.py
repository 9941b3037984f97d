"""Parameter trees: shapes of a network's, and parts of them by name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
  from mrmt3.nn.network_config import NetworkConfig
  from mrmt3.tokens.token_ids import TokenIds


def parameter_shapes(config: 'NetworkConfig', tokens: 'TokenIds | None', num_mel_bins: int, **options) -> dict:
  """Return the parameter tree of a network with a `jax.ShapeDtypeStruct` for each array; computes nothing.

  Args:
    config: of the network.
    tokens: the model ids of the vocabulary's tokens; None where the network does not need them.
    num_mel_bins: of its inputs.
    **options: of `NetworkConfig.module`.
  """
  prior = jax.ShapeDtypeStruct((1, config.min_prior_length), jnp.int32)
  frames = jax.ShapeDtypeStruct((1, 1, num_mel_bins), jnp.float32)

  def init(frames, prior):
    module = config.module(tokens, **options)
    more = {'prior_tokens': prior} if config.uses_prior else {}
    return module.init(jax.random.key(0), frames, prior, prior, enable_dropout=False, **more)['params']

  return jax.eval_shape(init, frames, prior)


def is_part(path: str, name: str) -> bool:
  """Return whether a path, such as 'encoder/layers_0/mlp/wo/kernel', is in a part, such as 'encoder/layers_0'."""
  return f'{path}/'.startswith(f'{name}/')


def paths(tree) -> list[str]:
  """Return the paths of a tree's leaves, such as 'encoder/layers_0/mlp/wo/kernel'."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [jax.tree_util.keystr(keys, simple=True, separator='/') for keys, _ in leaves]


def without_training_only(params: Mapping, wanted: Mapping, training_only: tuple[str, ...]) -> dict:
  """Return a parameter tree without those `training_only` groups that `wanted`, another tree, does not have."""
  return {name: part for name, part in params.items() if name in wanted or name not in training_only}
