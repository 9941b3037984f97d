"""Frame features of notes, the input of the beat network.

Pitch enters as pitch class and relative height only, so that a transposition rotates the chroma channels and changes
nothing else.
"""

import numpy as np

from mrmt3.score.sounding import CYMBALS, KICKS, SNARES, is_extreme, sounding_pitches

FRAME_RATE = 25.0  # frames per second
SCALARS = 15
CHANNELS = SCALARS + 3 * 12
_NOVELTY = (0.5, 1.5)  # s, on each side


def frame_features(notes: np.ndarray) -> np.ndarray:
  """Compute the features of a note table.

  Args:
    notes: `NOTE_DTYPE` table.

  Returns:
    float32 `[frames, CHANNELS]`. Channels: onsets (all, lowest, highest), offsets, log lengths (all, lowest, highest),
    drums (kick, snare, cymbals, other), change of harmony over 0.5 and 1.5 s, time since the last and until the next
    onset, chroma of onsets, of sounding notes, and of bass onsets. An onset is shared by the two frames next to it.
  """
  frames = int(np.ceil(notes['offset'].max(initial=0.0) * FRAME_RATE)) + 3
  features = np.zeros((frames, CHANNELS), np.float32)
  pitched, drums = notes[~notes['is_drum']], notes[notes['is_drum']]
  if len(pitched):
    _add_pitched(features, pitched)
  for channel, kinds in enumerate((KICKS, SNARES, CYMBALS)):
    own = drums[np.isin(drums['pitch'], kinds)]
    _splat(features[:, 7 + channel], own['onset'], 1.0)
  known = np.isin(drums['pitch'], KICKS + SNARES + CYMBALS)
  _splat(features[:, 10], drums['onset'][~known], 1.0)
  times = np.unique(np.round(notes['onset'] * 40) / 40)
  if len(times):
    gaps = np.diff(times, prepend=times[0] - 1.0, append=times[-1] + 1.0)
    _splat(features[:, 13], times, np.log1p(4 * np.minimum(gaps[:-1], 4.0)))
    _splat(features[:, 14], times, np.log1p(4 * np.minimum(gaps[1:], 4.0)))
  compressed = [0, 1, 2, 3, 7, 8, 9, 10, *range(SCALARS, SCALARS + 12), *range(SCALARS + 24, CHANNELS)]
  features[:, compressed] = np.log1p(features[:, compressed])
  return features


def _splat(channel, times, weights):
  place = times * FRAME_RATE
  frame = np.floor(place).astype(int)
  share = place - frame
  np.add.at(channel, frame, weights * (1 - share))
  np.add.at(channel, frame + 1, weights * share)


def _add_pitched(features, notes):
  frames = len(features)
  begin = np.rint(notes['onset'] * FRAME_RATE).astype(int)
  end = np.clip(np.rint(notes['offset'] * FRAME_RATE).astype(int), begin + 1, frames)
  sounding = sounding_pitches(begin, end, notes['pitch'], frames)
  is_bass, is_top = is_extreme(sounding, begin, notes['pitch'])
  length = np.log1p(4 * np.minimum(notes['offset'] - notes['onset'], 4.0))
  for channel, chosen in ((0, slice(None)), (1, is_bass), (2, is_top)):
    _splat(features[:, channel], notes['onset'][chosen], 1.0)
    _splat(features[:, 4 + channel], notes['onset'][chosen], length[chosen])
  _splat(features[:, 3], np.minimum(notes['offset'], (frames - 2) / FRAME_RATE), 1.0)
  chroma = np.zeros((frames, 12), np.float32)
  for pitch in np.unique(notes['pitch']):
    chroma[:, pitch % 12] += sounding[:, pitch]
    own = notes['pitch'] == pitch
    _splat(features[:, SCALARS + pitch % 12], notes['onset'][own], 1.0)
    _splat(features[:, SCALARS + 24 + pitch % 12], notes['onset'][own & is_bass], 1.0)
  features[:, SCALARS + 12 : SCALARS + 24] = chroma / 2
  total = np.concatenate([np.zeros((1, 12), np.float32), np.cumsum(chroma, axis=0)])
  for channel, seconds in enumerate(_NOVELTY):
    width = round(seconds * FRAME_RATE)
    at = np.arange(frames)
    before = total[at] - total[np.maximum(at - width, 0)]
    after = total[np.minimum(at + width, frames)] - total[at]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    features[:, 11 + channel] = np.where(norms > 0, 1 - (before * after).sum(axis=1) / np.maximum(norms, 1e-9), 0.0)


def rotate(features: np.ndarray, semitones: int) -> np.ndarray:
  """Return the features of the notes transposed by `semitones`."""
  chroma = features[..., SCALARS:].reshape(*features.shape[:-1], 3, 12)
  rolled = np.roll(chroma, semitones, axis=-1).reshape(*features.shape[:-1], 36)
  return np.concatenate([features[..., :SCALARS], rolled], axis=-1)
