"""Features of beats, the input of the bar network: what the notes do between one beat and the next."""

import numpy as np

from mrmt3.score.sounding import CRASHES, CYMBALS, KICKS, SNARES, is_extreme, sounding_pitches

BINS = 12  # of a beat
LAGS = (1, 2, 3, 4, 6)  # beats, for similarities
_ON_BEAT = 1 / 24  # of a beat; notes this much early belong to the beat
SCALARS = 3 * BINS + 3 + 7 + 2 * len(LAGS) + 2
CHANNELS = SCALARS + 3 * 12


def beat_features(notes: np.ndarray, beats: np.ndarray) -> np.ndarray:
  """Compute the features of the spans that begin at beats.

  Args:
    notes: note table, s.
    beats: increasing times of at least two beats, s; the last span is as long as the one before.

  Returns:
    float32 `[beats, CHANNELS]`. Channels: onsets in each twelfth of the span (all, lowest, highest notes), the longest
    note on the beat (all, lowest, highest; in beats), drums, similarity of harmony and of rhythm to earlier beats, log
    interval, number of onsets, then chroma of sounding notes, of the bass, and of the highest notes.
  """
  count = len(beats)
  edges = np.r_[beats, 2 * beats[-1] - beats[-2]]
  place = np.interp(notes['onset'], edges, np.arange(count + 1), left=-1, right=count + 1)
  end = np.interp(notes['offset'], edges, np.arange(count + 1), left=-1, right=count + 1)
  beat = np.floor(place + _ON_BEAT).astype(int)
  fraction = np.clip(np.floor((place - beat + _ON_BEAT) * BINS), 0, BINS - 1).astype(int)
  inside = (beat >= 0) & (beat < count)
  length = np.log1p(np.minimum(end - place, 8.0))
  is_drum = notes['is_drum']
  lowest, highest = _extremes(notes, place, end, count)

  onsets = np.zeros((3, count, BINS), np.float32)
  longest = np.zeros((3, count), np.float32)
  chroma = np.zeros((3, count, 12), np.float32)
  chosen = (inside & ~is_drum, inside & lowest, inside & highest)
  for kind, own in enumerate(chosen):
    np.add.at(onsets[kind], (beat[own], fraction[own]), 1)
    on_beat = own & (fraction == 0)
    np.maximum.at(longest[kind], beat[on_beat], length[on_beat])
  pitch_class = notes['pitch'] % 12
  first, last = np.floor(place), np.floor(end - 1e-6)
  for offset in range(8):  # a note adds to each beat that it sounds in
    span = (first + offset).astype(int)
    own = ~is_drum & (span >= 0) & (span < count) & (span <= last)
    share = np.minimum(end, span + 1) - np.maximum(place, span)
    np.add.at(chroma[0], (span[own], pitch_class[own]), share[own])
    own &= lowest
    np.add.at(chroma[1], (span[own], pitch_class[own]), share[own])
  own = chosen[2]
  np.add.at(chroma[2], (beat[own], pitch_class[own]), 1)

  drums = np.zeros((7, count), np.float32)
  for kind, (pitches, bin_) in enumerate(
    [(pitches, bin_) for pitches in (KICKS, SNARES, CYMBALS) for bin_ in (0, BINS // 2)]
  ):
    own = inside & is_drum & np.isin(notes['pitch'], pitches) & (np.abs(fraction - bin_) <= 1)
    np.add.at(drums[kind], beat[own], 1)
  own = inside & is_drum & np.isin(notes['pitch'], CRASHES)
  np.add.at(drums[6], beat[own], 1)

  rhythm = np.concatenate(list(onsets), axis=1)
  intervals = np.log(np.diff(edges) / 0.6)
  features = [
    np.log1p(rhythm),
    longest.T,
    np.log1p(drums.T),
    *(_similarity(chroma[0], lag)[:, None] for lag in LAGS),
    *(_similarity(rhythm, lag)[:, None] for lag in LAGS),
    np.clip(intervals, -2, 2)[:, None],
    np.log1p(onsets[0].sum(axis=1))[:, None],
    *np.log1p(chroma),
  ]
  return np.concatenate(features, axis=1).astype(np.float32)


def _extremes(notes, place, end, count):
  """Return whether each pitched note is the lowest, and the highest, that sounds shortly after its onset."""
  sixteenths = 8 * count + 1
  begin = np.clip(np.rint(place * 8).astype(int), 0, sixteenths - 1)
  stop = np.clip(np.rint(end * 8).astype(int), begin + 1, sixteenths)
  pitched = ~notes['is_drum']
  sounding = sounding_pitches(begin[pitched], stop[pitched], notes['pitch'][pitched], sixteenths)
  is_lowest, is_highest = is_extreme(sounding, begin, notes['pitch'])
  return pitched & is_lowest, pitched & is_highest


def _similarity(rows, lag):
  """Return the cosine between each row and the one `lag` earlier; 0 where there is none."""
  out = np.zeros(len(rows), np.float32)
  if len(rows) > lag:
    norms = np.linalg.norm(rows, axis=1)
    dots = (rows[lag:] * rows[:-lag]).sum(axis=1)
    out[lag:] = dots / np.maximum(norms[lag:] * norms[:-lag], 1e-6)
  return out


def rotate(features: np.ndarray, semitones: int) -> np.ndarray:
  """Return the features `[beats, CHANNELS]` of the notes transposed by `semitones`."""
  chroma = np.roll(features[:, SCALARS:].reshape(-1, 3, 12), semitones, axis=2)
  return np.concatenate([features[:, :SCALARS], chroma.reshape(-1, 36)], axis=1)
