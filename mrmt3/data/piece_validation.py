"""Validation of a piece's audio and notes: finds problems and decides what to do about each one.

A piece without usable audio or notes is left out. A note that cannot be encoded is dropped. Anything merely unusual is
kept. All problems are counted and reported, so that no data is lost silently.

| problem | meaning | action |
|---|---|---|
| no-samples | the audio has no samples | piece left out |
| not-finite | some samples are NaN or infinite | piece left out |
| silence | no sample exceeds -80 dB of full scale | piece left out |
| no-notes | no notes, or none left after the drops below | piece left out |
| lost-in-midi | the MIDI file has the note-on, but no note-off or no length (counted by the source) | notes dropped |
| bad-time | an onset or offset is NaN, infinite or beyond 10,000,000 s, or an onset is negative | notes dropped |
| bad-pitch, bad-program | not within 0..127 | notes dropped |
| bad-velocity | not within 1..127; in MIDI, velocity 0 is a note-off | notes dropped |
| zero-length | the offset is not after the onset | notes dropped |
| begins-after-end | the onset is not before the end of the audio, so the note is inaudible | notes dropped |
| ends-after-end | the offset is more than 0.01 s after the end of the audio | kept |
| overlap | begins while a note of its pitch and instrument sounds; training targets cut the first note | kept |
| length | audio and notes end more than 10 s apart | kept |
| unlabelled-stem | an audible instrument without notes in the source | kept |
| odd-file | a MIDI file violates the standard, but its notes are clear (found by the reader) | kept |
| silent-stem | a stem with notes but no sample above -80 dB | kept |

Training adds too-many-tokens: segments with too many tokens, left out or shortened according to
`ExampleConfig.on_overflow`. Corrupt files never get here: reading one raises a UserError, and the piece is left out.
"""

import dataclasses

import numpy as np

from mrmt3.data.piece_source import PieceContent
from mrmt3.tokens.segment_targets import MAX_SECONDS

SILENCE = 1e-4  # of full scale: -80 dB, about 3 units of 16-bit audio
END_TOLERANCE = 0.01  # s, one token step: offsets rounded to steps are not a problem
LENGTH_TOLERANCE = 10.0  # s; recordings can end with applause and reverberation

LEFT_OUT, DROPPED, KEPT = 'left out', 'dropped', 'kept'
SEGMENTS_LEFT_OUT, SHORTENED = 'segment left out', 'shortened'  # actions for examples, not for pieces


@dataclasses.dataclass(frozen=True)
class Problem:
  """Something wrong with a piece.

  Attributes:
    name: see the table above.
    count: number of notes (or samples, stems) affected; 1 for the whole piece.
    text: one human-readable line.
    action: 'left out' (the piece), 'dropped' (these notes) or 'kept'; for segments 'segment left out' or 'shortened'.
  """

  name: str
  count: int
  text: str
  action: str


@dataclasses.dataclass(frozen=True)
class Checked:
  """A piece after `check_piece`.

  Attributes:
    content: the piece with its usable notes, in their original order; None if it is left out.
    problems: the problems found, empty for almost all pieces.
  """

  content: PieceContent | None
  problems: list[Problem]


def check_piece(content: PieceContent, sample_rate: int) -> Checked:
  """Return the piece with its usable notes, and its problems (see the module's table)."""
  problem = _audio_problem(content.samples)
  if problem:
    return Checked(None, [problem])
  seconds = len(content.samples) / sample_rate
  usable, problems = _usable_notes(content, seconds)
  notes = content.notes[usable]
  if not len(notes):
    text = 'there are no notes' if not len(content.notes) else f'none of its {len(content.notes)} notes is usable'
    return Checked(None, [*problems, Problem('no-notes', 1, text, LEFT_OUT)])
  note_stem = None if content.note_stem is None else content.note_stem[usable]
  kept = content if usable.all() else dataclasses.replace(content, notes=notes, note_stem=note_stem)
  problems += _note_warnings(notes, seconds)
  if content.unlabelled_stems:
    count, names = len(content.unlabelled_stems), ', '.join(content.unlabelled_stems)
    text = f'{count} stems are audible in the mix, but the source has no MIDI files of them: {names}'
    problems.append(Problem('unlabelled-stem', count, text, KEPT))
  if content.stems is not None:
    problems += _silent_stems(content.stems, note_stem)
  return Checked(kept, problems)


def _audio_problem(samples):
  if not len(samples):
    return Problem('no-samples', 1, 'the audio has no samples', LEFT_OUT)
  # Minimum and maximum detect NaN as well, without an array of the size of the samples.
  low, high = samples.min(), samples.max()
  if not (np.isfinite(low) and np.isfinite(high)):
    wrong = int(len(samples) - np.isfinite(samples).sum())
    return Problem('not-finite', wrong, f'{wrong} of {len(samples)} samples are NaN or infinite', LEFT_OUT)
  if max(-low, high) < SILENCE:
    return Problem('silence', 1, f'the audio is silent (peak {max(-low, high):.1e} of full scale)', LEFT_OUT)
  return None


def _usable_notes(content, seconds):
  """Return (which notes are usable, bool `[notes]`; problems). A note counts only for the first of its problems."""
  notes = content.notes
  onset, offset = notes['onset'], notes['offset']
  tests = {
    # The comparisons are False for NaN.
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
  """Return a list with one problem, or an empty list if no note is `wrong`, bool `[notes]`."""
  count = int(wrong.sum())
  if not count:
    return []
  first = notes['onset'][wrong].min()
  return [Problem(name, count, f'{count} of {len(notes)} notes {what} (first at {first:.3f} s)', action)]


def _note_warnings(notes, seconds):
  """Return the problems of usable notes."""
  late = notes['offset'] > seconds + END_TOLERANCE
  problems = _note_problem('ends-after-end', notes, late, f'end after the audio, at {seconds:.3f} s', KEPT)
  problems += _note_problem('overlap', notes, _overlapping(notes), 'begin while the same note still sounds', KEPT)
  apart = seconds - notes['offset'].max()
  if abs(apart) > LENGTH_TOLERANCE:
    text = f'the audio ends {abs(apart):.1f} s {"after" if apart > 0 else "before"} the last note'
    problems.append(Problem('length', 1, text, KEPT))
  return problems


def _overlapping(notes):
  """Return whether another note of the same pitch and instrument sounds when a note begins, bool `[notes]`."""
  order = np.lexsort((notes['onset'], notes['pitch'], notes['program'], notes['is_drum']))
  ordered = notes[order]
  begins = np.ones(len(notes), bool)
  for field in ('pitch', 'program', 'is_drum'):
    begins[1:] &= ordered[field][1:] == ordered[field][:-1]
  begins[1:] = ~begins[1:]
  # The running maximum of offsets per (instrument, pitch). `lift` puts the offsets of each group above earlier groups.
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
