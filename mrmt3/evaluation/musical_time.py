"""Scores of musical time: beats, downbeats, metre and key of MIDI files with bars, compared with references.

- Beat and downbeat F1: within 70 ms (`mir_eval.beat.f_measure`). All beats from the first note of the reference to its
  last one count; mir_eval's usual cut of the first 5 s is not made.
- Metre: whether the time signature that holds for most of the piece is the same.
- Key: the weighted score of MIREX (`mir_eval.key`): 1 for the key, .5 for a fifth above or below, .3 for the relative
  and .2 for the parallel key. NaN if the reference has no key signature.

An estimate without a time signature has no bars: its notes are analysed (`score.analysis`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.score.analysis import analyze
from mrmt3.score.key import Key

SCORES = ('beat', 'downbeat', 'metre', 'key')
HEADINGS = {'beat': 'beat F1', 'downbeat': 'downbeat F1', 'metre': 'metre', 'key': 'key'}
_WINDOW = 0.07  # s
_TONICS = ('C', 'C#', 'D', 'Eb', 'E', 'F', 'F#', 'G', 'Ab', 'A', 'Bb', 'B')  # as mir_eval.key spells them


@dataclasses.dataclass(frozen=True)
class MusicalTime:
  """The bars of a piece.

  Attributes:
    beats: times, s, increasing.
    downbeats: times, s, increasing.
    metre: (numerator, denominator) that holds longest; None without bars.
    key: its first key; None if unknown.
    span: (first onset, last onset), s; all beats count if it is infinite.
  """

  beats: np.ndarray
  downbeats: np.ndarray
  metre: tuple[int, int] | None
  key: Key | None
  span: tuple[float, float] = (-np.inf, np.inf)


def read_musical_time(path: Path, *, find_bars: bool = False) -> MusicalTime:
  """Return the bars of a MIDI file.

  Args:
    path: the file.
    find_bars: whether to look for bars in the notes if the file has no time signature.

  Raises:
    UserError: the file cannot be read, has no notes, or no time signature (unless they are looked for).
  """
  from mrmt3.notes.midi import read_midi_bars

  notes, bars = read_midi_bars(path)
  if not len(notes):
    raise UserError(f'{path} has no notes; there is nothing to score')
  span = float(notes['onset'].min()), float(notes['onset'].max())
  if bars is not None:
    key = None if bars.key is None else Key.from_signature(*bars.key)
    return MusicalTime(bars.beats, bars.downbeats, bars.metre, key, span)
  if not find_bars:
    raise UserError(f'{path} has no time signature; a reference for --score needs bars and a tempo map')
  found = analyze(notes)
  metre = (found.beats.numerator, found.beats.denominator) if found.tempo is not None else None
  return MusicalTime(found.beats.times, found.beats.downbeats, metre, found.key, span)


def score(reference: MusicalTime, estimate: MusicalTime) -> dict[str, float]:
  """Return the scores named in `SCORES`; the key's is NaN if the reference has none."""
  import mir_eval

  low, high = reference.span[0] - _WINDOW, reference.span[1] + _WINDOW
  result = {}
  for kind in ('beat', 'downbeat'):
    rows = [getattr(one, f'{kind}s') for one in (reference, estimate)]
    wanted, found = (row[(row >= low) & (row <= high)] for row in rows)
    both = len(wanted) and len(found)
    result[kind] = mir_eval.beat.f_measure(wanted, found) if both else float(len(wanted) == len(found))
  result['metre'] = float(reference.metre == estimate.metre)
  if reference.key is None:
    result['key'] = float('nan')
  else:
    result['key'] = key_score(reference.key, estimate.key)
  return result


def key_score(reference: Key, estimate: Key | None) -> float:
  """Return the weighted score of MIREX; 0 without an estimate."""
  import mir_eval

  if estimate is None:
    return 0.0
  names = (f'{_TONICS[key.tonic]} {"minor" if key.is_minor else "major"}' for key in (reference, estimate))
  return float(mir_eval.key.weighted_score(*names))


def score_files(
  references: Mapping[str, Path], estimates: Mapping[str, Path | None]
) -> tuple[dict[str, dict[str, float]], dict[str, str], dict[str, str]]:
  """Score MIDI files with bars.

  Args:
    references: files by piece.
    estimates: files by piece; None for a missing one, which scores 0.

  Returns:
    (scores by piece; why references are left out, by piece; why estimates count as 0, by piece).
  """
  results, left_out, failed = {}, {}, {}
  for name, file in references.items():
    try:
      truth = read_musical_time(file)
    except UserError as error:
      left_out[name] = str(error)
      continue
    results[name] = dict.fromkeys(SCORES, 0.0)
    if (estimate := estimates[name]) is not None:
      try:
        results[name] = score(truth, read_musical_time(estimate, find_bars=True))
      except UserError as error:
        failed[name] = str(error)
  return results, left_out, failed


def mean_scores(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
  """Return the mean of each of `SCORES` over the pieces in which it is known; NaN if it is in none."""
  known = {kind: [scores[kind] for scores in results.values() if not np.isnan(scores[kind])] for kind in SCORES}
  return {kind: float(np.mean(values)) if values else float('nan') for kind, values in known.items()}
