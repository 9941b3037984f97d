"""Transcriptions of rendered performances, cached."""

import functools
import hashlib
from pathlib import Path

import numpy as np
from performance import Performance

from mrmt3.audio.synthesizer import Synth
from mrmt3.notes import instruments
from mrmt3.notes.note_array import NOTE_DTYPE

SAMPLE_RATE = 16000
TAIL = 1.0  # s


@functools.cache
def _synth(font):
  return Synth(font, SAMPLE_RATE)


@functools.cache
def _transcriber(checkpoint):
  from mrmt3.inference import loading

  return loading.load(checkpoint)


def render(performance: Performance, font: Path) -> np.ndarray:
  """Render a performance: mono float32 at `SAMPLE_RATE`."""
  notes = performance.notes
  seconds = float(notes['offset'].max()) + TAIL
  stems = [
    _synth(font).render(instruments.notes_of(notes, program, is_drum), program, is_drum, seconds)
    for program, is_drum in instruments.instruments_of(notes)
  ]
  mix = np.sum(stems, axis=0)
  return (0.5 * mix / max(np.abs(mix).max(), 1e-6)).astype(np.float32)


def transcribed(performance: Performance, font: Path, cache: Path, checkpoint: str | None) -> np.ndarray:
  """Return the notes that a transcriber finds in a rendering."""
  digest = hashlib.sha256(performance.notes.tobytes() + f'{font.name}{checkpoint}'.encode()).hexdigest()[:24]
  path = cache / 'transcriptions' / f'{digest}.npy'
  if path.exists():
    return np.load(path)
  result = _transcriber(checkpoint).transcribe(render(performance, font), SAMPLE_RATE)
  path.parent.mkdir(parents=True, exist_ok=True)
  np.save(path, result.notes)
  assert result.notes.dtype == NOTE_DTYPE
  return result.notes
