"""Static batching: whole pieces in one batch, each conditioned on a memory of the caller's choice.

The k-th segments of all pieces are decoded together, on all devices, until the longest piece ends. Evaluation and
studies decode this way: all pieces are available, and the memory may differ from the model's own output.
`batched_pieces` decodes audio of any length while it is read: its memory is always the model's own output, and a
finished piece's slot goes to the next piece.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mrmt3.inference import memory
from mrmt3.inference.transcriber import Transcriber


class ConditionedPiece(NamedTuple):
  """A piece to decode.

  Attributes:
    mel: log-mel frames of its segments, float32 `[segments, frames, mel]`.
    memory_of: returns what the next segment is conditioned on, one row. Called once for each segment, in order, with
      the tokens of the segments decoded so far, int32 `[targets_length]` each, padded with 0.
  """

  mel: np.ndarray
  memory_of: Callable[[list[np.ndarray]], memory.Memory]


def decode(
  transcriber: Transcriber, pieces: Sequence[ConditionedPiece], rows: int, allowed: np.ndarray | None = None
) -> list[list[np.ndarray]]:
  """Decode pieces greedily.

  Args:
    transcriber: the model.
    pieces: 1 to `rows` pieces.
    rows: size of the network's batch, the same in every call so that it is compiled once. The devices share it if their
      number divides it.
    allowed: bool `[vocab]`, the tokens that may be emitted; None: all.

  Returns:
    for each piece the tokens of each segment, int32 `[targets_length]` each, padded with 0.
  """
  decoded = [[] for _ in pieces]
  idle = memory.empty(transcriber.spec, 1)
  for segment in range(max(len(piece.mel) for piece in pieces)):
    inputs = np.zeros((rows, *pieces[0].mel.shape[1:]), np.float32)
    conditions, active = [idle] * rows, np.zeros(rows, bool)
    for row, piece in enumerate(pieces):
      if segment < len(piece.mel):
        inputs[row], active[row] = piece.mel[segment], True
        conditions[row] = piece.memory_of(decoded[row])
    tokens = transcriber.decode_rows(_over_devices(inputs), memory.joined(conditions), active, allowed)
    for row in np.flatnonzero(active):
      decoded[row].append(transcriber.padded(tokens[row]))
  return decoded


def _over_devices(inputs):
  """Return the inputs with their rows spread over this host's devices, or as they are if these do not divide them."""
  import jax
  from jax.sharding import Mesh, NamedSharding, PartitionSpec

  devices = jax.local_devices()
  if len(devices) == 1 or len(inputs) % len(devices):
    return inputs
  return jax.device_put(inputs, NamedSharding(Mesh(np.array(devices), 'rows'), PartitionSpec('rows')))
