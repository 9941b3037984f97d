"""Key of notes: a linear model of pitch-class profiles, trained on scores (`benchmarks/score/train_key.py`).

The profiles are those of all notes, of the bass, and of the last sounds, each compared with learned profiles of the
major and minor key on every tonic.
"""

import dataclasses

import numpy as np

from mrmt3.score import weights

PROFILES = ('all', 'bass', 'onsets', 'last', 'last bass')
_LAST = 1.0  # s before the last onset's end that count as the last sounds
_LONGEST = 4.0  # s; longer notes count as this


@dataclasses.dataclass(frozen=True)
class Key:
  """A key.

  Attributes:
    tonic: pitch class 0..11, C being 0.
    is_minor: whether it is minor.
    confidence: probability of the key, 0..1.
  """

  tonic: int
  is_minor: bool
  confidence: float = 1.0

  @classmethod
  def from_signature(cls, sharps: int, is_minor: bool) -> 'Key':
    """Return the key of a signature; flats are negative."""
    return cls((7 * sharps + 9 * is_minor) % 12, is_minor)

  def __str__(self) -> str:
    """Return its name: 'F# minor'."""
    return f'{self.name} {"minor" if self.is_minor else "major"}'

  @property
  def name(self) -> str:
    """The tonic as the signature spells it: 'F#', 'Eb'."""
    fifths = self.sharps + (3 if self.is_minor else 0)
    return 'FCGDAEB'[(fifths + 1) % 7] + '#' * ((fifths + 1) // 7) + 'b' * -((fifths + 1) // 7)

  @property
  def sharps(self) -> int:
    """Sharps of the signature, -5 to 6; negative for flats."""
    major = (self.tonic + 3) % 12 if self.is_minor else self.tonic
    return (7 * major + 5) % 12 - 5


def find_key(notes: np.ndarray) -> Key | None:
  """Return the likeliest key of a note table; None without pitched notes."""
  pitched = notes[~notes['is_drum']]
  if not len(pitched):
    return None
  logits = key_logits(weights.load('key'), key_profiles(pitched)[None], np)[0]
  probabilities = np.exp(logits - logits.max())
  probabilities /= probabilities.sum()
  best = int(np.argmax(probabilities))
  return Key(best % 12, best >= 12, float(probabilities[best]))


def key_profiles(notes: np.ndarray) -> np.ndarray:
  """Return the pitch-class profiles of pitched notes, float32 `[len(PROFILES), 12]`, each with the sum 1."""
  pitch_class = notes['pitch'] % 12
  length = np.clip(notes['offset'] - notes['onset'], 0.05, _LONGEST)
  is_bass = _is_bass(notes)
  last_onset = notes['onset'].max()
  last = length * (notes['offset'] > last_onset - 0.05) * (notes['onset'] > last_onset - _LAST)
  profiles = []
  for weight in (length, length * is_bass, np.minimum(length, 0.25), last, last * is_bass):
    profile = np.bincount(pitch_class, weight, 12)
    profiles.append(profile / max(profile.sum(), 1e-9))
  return np.array(profiles, np.float32)


def _is_bass(notes):
  """Return whether each note is the lowest that sounds shortly after its onset, bool `[n]`."""
  order = np.argsort(notes['onset'], kind='stable')
  onset, offset, pitch = (notes[name][order] for name in ('onset', 'offset', 'pitch'))
  found = np.zeros(len(notes), bool)
  for index, time in enumerate(onset):
    first, end = np.searchsorted(onset, (time - _LONGEST, time + 0.03))
    near = slice(first, end)
    found[index] = pitch[index] <= pitch[near][offset[near] > time + 0.03].min(initial=200)
  out = np.zeros(len(notes), bool)
  out[order] = found
  return out


def key_logits(params: dict[str, np.ndarray], profiles, xp):
  """Return logits of the 12 major, then the 12 minor keys, `[batch, 24]`.

  Args:
    params: 'profiles' `[2, len(PROFILES), 12]` and 'bias' `[2]`.
    profiles: `[batch, len(PROFILES), 12]`.
    xp: numpy or jax.numpy.
  """
  rotated = xp.stack([xp.roll(profiles, -tonic, axis=-1) for tonic in range(12)], axis=1)
  logits = xp.einsum('btpc,mpc->bmt', rotated, params['profiles']) + params['bias'][None, :, None]
  return logits.reshape(len(profiles), 24)
