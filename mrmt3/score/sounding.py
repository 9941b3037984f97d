"""What sounds when: the lowest and the highest note of each step of time, and drums by their part in a kit."""

import numpy as np

KICKS, SNARES, CYMBALS, CRASHES = (35, 36), (37, 38, 39, 40), (42, 44, 46, 51, 53, 59), (49, 52, 55, 57)


def sounding_pitches(begin: np.ndarray, end: np.ndarray, pitch: np.ndarray, steps: int) -> np.ndarray:
  """Return which pitches sound in each step, bool `[steps, 128]`.

  Args:
    begin: first step of each note, int `[notes]`.
    end: step after its last one, at most `steps`, int `[notes]`.
    pitch: MIDI pitch, int `[notes]`.
    steps: number of steps.
  """
  edges = np.zeros((steps + 1, 128), np.int16)
  np.add.at(edges, (begin, pitch), 1)
  np.add.at(edges, (end, pitch), -1)
  return np.cumsum(edges[:-1], axis=0, dtype=np.int16) > 0


def is_extreme(sounding: np.ndarray, begin: np.ndarray, pitch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return whether each note is the lowest, and the highest, that sounds in its first step, bool `[notes]` each."""
  lowest = np.argmax(sounding, axis=1)
  highest = 127 - np.argmax(sounding[:, ::-1], axis=1)
  return pitch <= lowest[begin], pitch >= highest[begin]
