"""Looks a piece over before it is used: what is wrong with its audio and notes, and what becomes of it.

A piece that nothing can be learned from is left out; a note that cannot be written as tokens is dropped and the piece goes
on; what only looks odd is kept as it is. All of it is counted and named, so that nothing vanishes unseen.

| problem | what it is | what becomes of it |
|---|---|---|
| no-samples | the audio has no samples | piece left out |
| not-finite | samples that are NaN or infinite | piece left out |
| silence | no sample is louder than -80 dB of full scale | piece left out |
| no-notes | no notes, or none left after the drops below | piece left out |
| lost-in-midi | struck in the MIDI file, but never released or with no length (the source's count) | notes dropped |
| bad-time | an onset or offset that is NaN, infinite or beyond 10,000,000 s, or an onset below 0 | notes dropped |
| bad-pitch, bad-program | not within 0..127 | notes dropped |
| bad-velocity | not within 1..127; a velocity of 0 is no note in MIDI | notes dropped |
| zero-length | the offset is not after the onset | notes dropped |
| begins-after-end | the onset is not before the end of the audio: nothing of it can be heard | notes dropped |
| ends-after-end | the offset is more than 0.01 s after the end of the audio | kept |
| overlap | begins while a note of its pitch and instrument sounds; training targets cut the first at its onset | kept |
| length | audio and notes end more than 10 s apart | kept |
| unlabelled-stem | an instrument that is heard, of which the source has no notes | kept |
| silent-stem | a stem with notes but no sample above -80 dB | kept |

Training adds too-many-tokens: segments whose tokens do not fit, left out or shortened as `ExampleConfig.on_overflow` says.

Corrupt files are not seen here: reading them is a UserError, for which the piece is left out.
"""

import dataclasses

import numpy as np

from mrmt3.data.piece_source import PieceContent
from mrmt3.tokens.segment_targets import MAX_SECONDS

SILENCE = 1e-4  # of full scale: -80 dB, below the lowest bit but one of 16
END_TOLERANCE = 0.01  # s, a token step: releases rounded to it are nothing to speak of
LENGTH_TOLERANCE = 10.0  # s; recordings end in applause and reverberation

LEFT_OUT, DROPPED, KEPT = 'left out', 'dropped', 'kept'
SEGMENTS_LEFT_OUT, SHORTENED = 'segment left out', 'shortened'  # of examples, not of pieces


@dataclasses.dataclass(frozen=True)
class Problem:
  """Something wrong with a piece.

  Attributes:
    name: see the table above.
    count: how many notes (or samples, stems) it concerns; 1 for the whole piece.
    text: one line for people.
    action: 'left out' (the piece), 'dropped' (these notes) or 'kept'; of segments 'segment left out' or 'shortened'.
  """

  name: str
  count: int
  text: str
  action: str


@dataclasses.dataclass(frozen=True)
class Checked:
  """A piece after `check_piece`.

  Attributes:
    content: the piece with its usable notes, in the order they had; None where it is left out.
    problems: what was wrong, empty for nearly all music.
  """

  content: PieceContent | None
  problems: list[Problem]


def check_piece(content: PieceContent, sample_rate: int) -> Checked:
  """Returns the piece with the notes that can be used, and all that is wrong with it (see the module's table)."""
  problem = _audio_problem(content.samples)
  if problem:
    return Checked(None, [problem])
  seconds = len(content.samples) / sample_rate
  usable, problems = _usable_notes(content, seconds)
  notes = content.notes[usable]
  if not len(notes):
    text = 'there are no notes' if not len(content.notes) else f'none of its {len(content.notes)} notes can be used'
    return Checked(None, [*problems, Problem('no-notes', 1, text, LEFT_OUT)])
  note_stem = None if content.note_stem is None else content.note_stem[usable]
  kept = content if usable.all() else dataclasses.replace(content, notes=notes, note_stem=note_stem)
  problems += _oddities(notes, seconds)
  if content.unlabelled_stems:
    count, names = len(content.unlabelled_stems), ', '.join(content.unlabelled_stems)
    text = f'{count} stems are heard in the mix, but the source has no MIDI of them: {names}'
    problems.append(Problem('unlabelled-stem', count, text, KEPT))
  if content.stems is not None:
    problems += _silent_stems(content.stems, note_stem)
  return Checked(kept, problems)


def _audio_problem(samples):
  if not len(samples):
    return Problem('no-samples', 1, 'the audio has no samples', LEFT_OUT)
  # A minimum and maximum see NaN as well, without a table of all samples.
  low, high = samples.min(), samples.max()
  if not (np.isfinite(low) and np.isfinite(high)):
    wrong = int(len(samples) - np.isfinite(samples).sum())
    return Problem('not-finite', wrong, f'{wrong} of {len(samples)} samples are no finite numbers', LEFT_OUT)
  if max(-low, high) < SILENCE:
    return Problem('silence', 1, f'the audio is silent (peak {max(-low, high):.1e} of full scale)', LEFT_OUT)
  return None


def _usable_notes(content, seconds):
  """Returns (which notes are usable, bool `[notes]`; problems). A note counts under the first of its problems only."""
  notes = content.notes
  onset, offset = notes['onset'], notes['offset']
  tests = {
    # False for NaN as well.
    'bad-time': (~((onset >= 0) & (onset <= MAX_SECONDS) & (np.abs(offset) <= MAX_SECONDS)), 'have impossible times'),
    'bad-pitch': (_outside(notes['pitch'], 0), 'have a pitch out of 0..127'),
    'bad-program': (_outside(notes['program'], 0), 'have a program out of 0..127'),
    'bad-velocity': (_outside(notes['velocity'], 1), 'have a velocity out of 1..127'),
    'zero-length': (~(offset > onset), 'have no length'),
    'begins-after-end': (onset >= seconds, f'begin after the end of the audio at {seconds:.3f} s'),
  }
  usable, problems = np.ones(len(notes), bool), []
  if content.lost_notes:
    text = f'{content.lost_notes} notes in its MIDI are never released or have no length'
    problems.append(Problem('lost-in-midi', content.lost_notes, text, DROPPED))
  for name, (wrong, what) in tests.items():
    problems += _note_problem(name, notes, wrong & usable, f'{what}; they are dropped', DROPPED)
    usable &= ~wrong
  return usable, problems


def _outside(values, low):
  return (values < low) | (values > 127)


def _note_problem(name, notes, wrong, what, action):
  """Returns a list of one problem, or of none where no note is `wrong` `[notes]`."""
  count = int(wrong.sum())
  if not count:
    return []
  first = notes['onset'][wrong].min()
  return [Problem(name, count, f'{count} of {len(notes)} notes {what} (first at {first:.3f} s)', action)]


def _oddities(notes, seconds):
  """Returns what is odd about usable notes."""
  late = notes['offset'] > seconds + END_TOLERANCE
  problems = _note_problem('ends-after-end', notes, late, f'end after the audio, at {seconds:.3f} s', KEPT)
  problems += _note_problem('overlap', notes, _overlapping(notes), 'begin while the same note still sounds', KEPT)
  apart = seconds - notes['offset'].max()
  if abs(apart) > LENGTH_TOLERANCE:
    text = f'the audio ends {abs(apart):.1f} s {"after" if apart > 0 else "before"} the last note'
    problems.append(Problem('length', 1, text, KEPT))
  return problems


def _overlapping(notes):
  """Returns bool `[notes]`: whether a note of the same pitch and instrument sounds when this one begins."""
  order = np.lexsort((notes['onset'], notes['pitch'], notes['program'], notes['is_drum']))
  ordered = notes[order]
  begins = np.ones(len(notes), bool)
  for field in ('pitch', 'program', 'is_drum'):
    begins[1:] &= ordered[field][1:] == ordered[field][:-1]
  begins[1:] = ~begins[1:]
  # The latest end so far, voice by voice: ends are lifted above all of earlier voices.
  lift = np.cumsum(begins) * (notes['offset'].max() + 1)
  latest = np.maximum.accumulate(ordered['offset'] + lift)
  overlapping = np.zeros(len(notes), bool)
  overlapping[order[1:]] = ~begins[1:] & (latest[:-1] > ordered['onset'][1:] + lift[1:] + 1e-12 * lift[-1])
  return overlapping


def _silent_stems(stems, note_stem):
  peaks = np.maximum(stems.max(axis=1), -stems.min(axis=1))
  silent = np.flatnonzero((peaks < SILENCE) & (np.bincount(note_stem, minlength=len(stems)) > 0))
  if not len(silent):
    return []
  numbers = ', '.join(map(str, silent))
  return [Problem('silent-stem', len(silent), f'stems {numbers} (counted from 0) have notes but are silent', KEPT)]
