"""Note candidates as further encoder frames, which a token decoder attends to."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3.framewise.candidates import NoteCandidates
from mrmt3.framewise.note_heads import KINDS, NoteHeads
from mrmt3.nn import layers
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.tokens.batched_parsing import NUM_PITCHES

_NEVER = -1e9
_GAIN = 1.5  # of a candidate's embedding, per unit of certainty
_WAVELENGTHS = (2.0, 256.0)  # encoder frames, of `time_code`


def time_frequencies(features: int) -> np.ndarray:
  """Return the angles by which one encoder frame advances in `time_code`, float64 `[features / 2]`."""
  shortest, longest = _WAVELENGTHS
  return 2 * np.pi / np.geomspace(shortest, longest, features // 2)


def time_code(frames: np.ndarray, features: int) -> np.ndarray:
  """Return codes of times, float32 `[n, features]`: sines, then cosines.

  Two codes are nearly orthogonal from some five frames on. In the position table, half of the features hardly change
  within a segment, so that a query hardly distinguishes one time from the next.

  Args:
    frames: `[n]`, times in encoder frames, fractions included.
    features: how many numbers a code has, even.
  """
  angles = np.asarray(frames)[:, None] * time_frequencies(features)
  return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)


class CandidateNoteHeads(NoteHeads):
  """`NoteHeads` that can turn candidates into encoder frames. The decoder's loss trains the parameters for that."""

  def setup(self):
    """Declare the parts."""
    super().setup()
    initializer = layers.PROJECTION_INITIALIZERS['mt3']
    self.carried = layers.Dense(self.features, ('mlp', 'embed'), initializer, jnp.float32)
    self.time = layers.Dense(self.features, ('joined_kv', 'embed'), nn.initializers.orthogonal(np.sqrt(2)), jnp.float32)
    self.before = layers.Dense(self.features, ('joined_kv', 'embed'), nn.initializers.orthogonal(), jnp.float32)
    self.name_of_kind, self.name_of_class = (
      layers.partitioning.param_with_axes(
        name, nn.initializers.normal(1.0), (size, self.features), jnp.float32, axes=('vocab', 'embed')
      )
      for name, size in (('name_of_kind', KINDS), ('name_of_class', NUM_CLASSES))
    )
    self.certainty = layers.partitioning.param_with_axes(
      'certainty', nn.initializers.normal(1.0), (self.features,), jnp.float32, axes=('embed',)
    )

  def as_frames(self, frames: jax.Array, candidates: NoteCandidates, pitches: jax.Array | None = None) -> jax.Array:
    """Return candidates as further encoder frames, float32 `[batch, n, emb]`.

    Each is the sum of embeddings of its time, its kind and its likely classes, its certainty, its event features, and a
    map of the embeddings of the event before it, so that a decoder that has emitted that one finds this one.

    Args:
      frames: encoder frames `[batch, frames, emb]`.
      candidates: of `NoteHeads.candidates`.
      pitches: as in a call.
    """
    places, kinds = candidates.frames, candidates.groups * NUM_PITCHES + candidates.pitches
    certain = jax.nn.sigmoid(candidates.scores)
    times = self.time(jnp.asarray(time_code(np.arange(frames.shape[1]), self.features)))
    names = self.name_of_kind[kinds] + jnp.dot(candidates.classes, self.name_of_class) + times[places]
    # An unlikely candidate has a small embedding, so that it draws little attention.
    gain = jnp.minimum(1.0, _GAIN * certain)
    names = gain[..., None] * names
    before = self.before(jnp.einsum('bnm,bmd->bnd', _event_before(gain), names))
    features = self.event_features(frames, pitches, places, kinds)
    return names + before + self.carried(features) + certain[..., None] * self.certainty


def _event_before(certain):
  """Return the probability that event m is the last one before event n, `[batch, n, m]`, from `[batch, n]`."""
  number = certain.shape[-1]
  missed = jnp.log1p(-jnp.minimum(certain, 1.0 - 1e-3))
  total = jnp.cumsum(missed, axis=-1)
  # Event m, and none of m + 1 .. n - 1.
  between = (total - missed)[..., :, None] - total[..., None, :]
  earlier = np.tri(number, k=-1, dtype=bool)
  return jnp.exp(jnp.where(earlier, between, _NEVER)) * certain[..., None, :]
