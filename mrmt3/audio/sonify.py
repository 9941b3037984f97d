"""Plays the tokens of a segment with a soundfont, so that a person can hear whether they say what the audio plays."""

import functools
import os
import re
from pathlib import Path

import numpy as np

from mrmt3.audio import files as audio_files
from mrmt3.notes.instruments import instruments_of, notes_of
from mrmt3.utils.files import make_folder

_QUIET = 1e-4  # audio whose root mean square is below has no loudness to match
_PEAK = 0.99


@functools.cache
def _synth(sample_rate):
  from mrmt3.audio.synthesizer import Synth, default_soundfont

  return Synth(default_soundfont(), sample_rate)


def play_notes(notes: np.ndarray, seconds: float, sample_rate: int = audio_files.SAMPLE_RATE) -> np.ndarray:
  """Returns a note table played with pretty_midi's soundfont: float32 `[seconds * sample_rate]`, mono.

  ModuleNotFoundError without symusic (the extra `dataset`); UserError without a soundfont.
  """
  total = np.zeros(round(seconds * sample_rate), np.float32)
  for program, is_drum in instruments_of(notes):
    total += _synth(sample_rate).render(notes_of(notes, program, is_drum), program, is_drum, seconds)
  return total


def as_loud_as(samples: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Returns samples `[n]` with the root mean square of others `[m]`, or less where they would be clipped."""
  own, wanted = (float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0 for x in (samples, other))
  if own == 0.0:
    return samples
  gain = max(wanted, _QUIET) / own
  return samples * np.float32(min(gain, _PEAK / float(np.abs(samples).max())))


def write_pair(
  folder: str | os.PathLike, number: int, name: str, samples: np.ndarray, notes: np.ndarray, sample_rate: int
) -> list[Path]:
  """Writes a segment's audio, its tokens played as loud, and both in stereo (audio left, tokens right), as .wav files.

  Args:
    folder: made where it is missing.
    number: of the example, the names begin with it.
    name: of the piece, part of the files' names.
    samples: float32 `[n]`, the audio.
    notes: what the tokens say, times since the segment's start.
    sample_rate: of the samples, Hz.

  Returns:
    the paths, in this order. UserError if one cannot be written.
  """
  folder = make_folder(folder)
  played = as_loud_as(play_notes(notes, len(samples) / sample_rate, sample_rate), samples)
  stem = '_'.join(part for part in (f'example{number}', re.sub(r'[^\w.-]+', '_', name)) if part)
  sounds = {'audio': samples, 'tokens': played, 'both': np.stack([samples, played], axis=-1)}
  paths = []
  for kind, sound in sounds.items():
    paths.append(folder / f'{stem}_{kind}.wav')
    audio_files.write_audio(paths[-1], sound, sample_rate)
  return paths
