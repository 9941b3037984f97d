"""Synthesis of a segment's target notes with a soundfont, to compare them with the audio by ear."""

import functools
import os
import re
from pathlib import Path

import numpy as np

from mrmt3.audio import files as audio_files
from mrmt3.notes.instruments import instruments_of, notes_of
from mrmt3.utils.files import make_folder

_MIN_RMS = 1e-4  # quieter audio counts as silent when loudness is matched
_MAX_PEAK = 0.99


@functools.cache
def _synth(sample_rate):
  from mrmt3.audio.synthesizer import Synth, default_soundfont

  return Synth(default_soundfont(), sample_rate)


def play_notes(notes: np.ndarray, seconds: float, sample_rate: int = audio_files.SAMPLE_RATE) -> np.ndarray:
  """Synthesize a note table with pretty_midi's soundfont: mono float32 `[seconds * sample_rate]`.

  Raises ModuleNotFoundError without symusic (the extra `dataset`), UserError without a soundfont.
  """
  total = np.zeros(round(seconds * sample_rate), np.float32)
  for program, is_drum in instruments_of(notes):
    total += _synth(sample_rate).render(notes_of(notes, program, is_drum), program, is_drum, seconds)
  return total


def match_loudness(samples: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Scale samples `[n]` to the root mean square of `other` `[m]`, or less where they would clip."""
  own, target = (float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0 for x in (samples, other))
  if own == 0.0:
    return samples
  gain = max(target, _MIN_RMS) / own
  return samples * np.float32(min(gain, _MAX_PEAK / float(np.abs(samples).max())))


def write_pair(
  folder: str | os.PathLike, number: int, name: str, samples: np.ndarray, notes: np.ndarray, sample_rate: int
) -> list[Path]:
  """Write three .wav files of a segment: its audio, its notes as loud, and both in stereo (audio left, notes right).

  Args:
    folder: created if missing.
    number: of the example; file names begin with it.
    name: of the piece, part of the file names.
    samples: float32 `[n]`, the audio.
    notes: note table decoded from the segment's tokens; times are relative to its start.
    sample_rate: of the samples, Hz.

  Returns:
    the paths, in this order.

  Raises:
    UserError: a file cannot be written.
  """
  folder = make_folder(folder)
  played = match_loudness(play_notes(notes, len(samples) / sample_rate, sample_rate), samples)
  stem = '_'.join(part for part in (f'example{number}', re.sub(r'[^\w.-]+', '_', name)) if part)
  sounds = {'audio': samples, 'tokens': played, 'both': np.stack([samples, played], axis=-1)}
  paths = []
  for kind, sound in sounds.items():
    paths.append(folder / f'{stem}_{kind}.wav')
    audio_files.write_audio(paths[-1], sound, sample_rate)
  return paths
