"""Simple accompaniments for melodies: a chord for each half bar or bar, in one of a few patterns."""

import dataclasses

import numpy as np
from pieces import Piece

from mrmt3.dataset_builder.score import SCORE_NOTE_DTYPE, bar_phases

# Degrees of the triads that are tried: semitones above the tonic, whether minor; and a handicap.
MAJOR = ((0, False, 0.0), (7, False, 0.3), (5, False, 0.4), (9, True, 1.0), (2, True, 1.0))
MINOR = ((0, True, 0.0), (7, False, 0.3), (5, True, 0.4), (8, False, 0.9), (3, False, 0.9), (10, False, 0.9))
PATTERNS = ('block', 'bass and chords', 'arpeggio', 'held', 'eighths', 'bass')


def accompanied(piece: Piece, rng: np.random.Generator) -> Piece:
  """Return a melody in a known key with an accompaniment; other pieces as they are."""
  key = piece.key or piece.header_key
  if key is None:
    return piece
  tonic, is_minor = key
  melody = piece.score.parts[0]
  whole = 4.0 * piece.numerator / piece.denominator
  halves = 2 if piece.numerator in (4, 6, 12) and rng.random() < 0.4 else 1
  pattern = PATTERNS[rng.integers(len(PATTERNS))]
  low = int(melody['pitch'].min()) - rng.integers(3, 15)
  rows = []
  for bar, phase in zip(piece.score.bars, bar_phases(piece.score.bars), strict=True):
    if phase > 0:
      continue
    for half in range(halves):
      start, length = bar['start'] + half * whole / halves, whole / halves
      if start >= bar['start'] + bar['length'] - 1e-6:
        continue
      root, minor = _chord(melody, start, length, tonic, MINOR if is_minor else MAJOR, rng)
      rows += _play(pattern, root, minor, start, length, piece.beat, low)
  if not rows:
    return piece
  part = np.zeros(len(rows), SCORE_NOTE_DTYPE)
  part['start'], part['length'], part['pitch'] = (np.array(column) for column in zip(*rows, strict=True))
  part = part[np.lexsort((part['pitch'], part['start']))]
  return dataclasses.replace(piece, score=dataclasses.replace(piece.score, parts=(melody, part)))


def _chord(melody, start, length, tonic, chords, rng):
  overlap = np.minimum(melody['start'] + melody['length'], start + length) - np.maximum(melody['start'], start)
  weights = np.bincount(melody['pitch'] % 12, np.maximum(overlap, 0), 12)
  best = None
  for degree, minor, handicap in chords:
    root = (tonic + degree) % 12
    tones = [root, (root + (3 if minor else 4)) % 12, (root + 7) % 12]
    fit = weights[tones].sum() / max(length, 1e-6) - 0.15 * handicap + rng.normal(0, 0.05)
    if best is None or fit > best[0]:
      best = fit, root, minor
  return best[1], best[2]


def _play(pattern, root, minor, start, length, beat, low):
  """Return (start, length, pitch) of a chord's notes."""
  bass = root + 12 * ((low - 8 - root) // 12)
  chord = [pitch + 12 for pitch in (bass, bass + (3 if minor else 4), bass + 7)]
  beats = round(length / beat)
  rows = []
  if pattern == 'held' or beats == 0:
    return [(start, length, pitch) for pitch in (bass, *chord)]
  if pattern == 'bass':
    return [(start, length, bass)]
  small = 0.5
  for index in range(beats):
    at = start + index * beat
    if pattern == 'block':
      rows += [(at, beat * 0.9, pitch) for pitch in chord] + ([(at, length, bass)] if index == 0 else [])
    elif pattern == 'bass and chords':
      if beat == 1.5:
        rows += [(at, 1.0, bass if index % 2 == 0 else bass + 7)] + [(at + 1.0, 0.5, pitch) for pitch in chord]
      elif index == 0 or (beats == 4 and index == 2):
        rows.append((at, beat * 0.9, bass if index == 0 else bass + 7 - 12 * (bass > 48)))
        if beats == 1:
          rows += [(at + 0.5, 0.5, pitch) for pitch in chord]
      else:
        rows += [(at, beat * 0.9, pitch) for pitch in chord]
    else:
      count = round(beat / small)
      for sub in range(count):
        if pattern == 'arpeggio':
          order = (bass, chord[1], chord[2]) if count == 3 or beats == 3 else (bass, chord[2], chord[1], chord[2])
          rows.append((at + sub * small, small, order[(index * count + sub) % len(order)]))
        else:
          rows += [(at + sub * small, small * 0.8, pitch) for pitch in (bass, *chord[1:])]
  return rows
