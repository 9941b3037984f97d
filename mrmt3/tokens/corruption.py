"""Corruption of prior tokens, so that a network learns not to trust its memory blindly (not in the papers).

In training the memory holds ground truth; at inference it holds predictions. Corrupted training tokens imitate the
model's mistakes: missing notes, and notes of another pitch or instrument.
"""

import numpy as np

from mrmt3.event_codec import Codec
from mrmt3.special_tokens import SPECIAL_TOKENS

_NOTE_TYPES = ('pitch', 'drum')
_REPLACED_TYPES = ('pitch', 'drum', 'program')


def corrupt_tokens(
  tokens: np.ndarray, codec: Codec, *, drop: float, replace: float, rng: np.random.Generator
) -> np.ndarray:
  """Return int32 model ids `[<= n]` in which some events are dropped or replaced.

  Args:
    tokens: int32 model ids `[n]` of a segment.
    codec: codec of the ids.
    drop: probability that a pitch or drum token is dropped, and with it a note-on, note-off or tied note.
    replace: probability that a pitch, drum or program is replaced by another of its type, drawn uniformly.
    rng: random generator.
  """
  tokens = np.asarray(tokens)
  chance = rng.random(len(tokens))
  other = rng.random(len(tokens))
  corrupted, dropped = tokens.copy(), np.zeros(len(tokens), bool)
  for event_type in _REPLACED_TYPES:
    first, last = (index + SPECIAL_TOKENS for index in codec.event_type_range(event_type))
    of_type = (tokens >= first) & (tokens <= last)
    if event_type in _NOTE_TYPES:
      dropped |= of_type & (chance < drop)
    # An offset of 1..n-1 modulo the n ids of the type never gives the id itself.
    distance = 1 + (other * (last - first)).astype(tokens.dtype)
    replaced = of_type & (chance >= drop) & (chance < drop + replace)
    corrupted = np.where(replaced, first + (tokens - first + distance) % (last - first + 1), corrupted)
  return corrupted[~dropped]
