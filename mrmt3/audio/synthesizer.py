"""Synthesis of notes with a soundfont."""

import importlib.util
import os
from pathlib import Path

import numpy as np

from mrmt3.audio.soundfont_tuning import tuned_path
from mrmt3.audio.soundfonts import read_soundfont
from mrmt3.errors import UserError

_FADE_SECONDS = 0.02
_SILENT_NOTE = 1e-5  # power relative to the stem's loudest note: -50 dB


def default_soundfont() -> Path:
  """Return the General MIDI soundfont of the pretty_midi package; UserError if it is missing."""
  spec = importlib.util.find_spec('pretty_midi')
  path = Path(spec.origin).parent / 'TimGM6mb.sf2' if spec else None
  if path is None or not path.is_file():
    raise UserError('no soundfont: pretty_midi has no TimGM6mb.sf2; name one with --soundfont FILE')
  return path


class Synth:
  """A soundfont synthesizer. Its onsets are 1 ms late (measured with TimGM6mb's drums).

  Every stem gets its own symusic synthesizer, which loads in milliseconds. One synthesizer for several stems changes
  the samples that they share, so that the audio (of drums above all) would depend on what was rendered before.
  """

  def __init__(self, soundfont: str | os.PathLike, sample_rate: int = 16000):
    """Load a soundfont (.sf2, .sf3); `sample_rate` in Hz. UserError if the file is not a soundfont."""
    import symusic

    path = Path(soundfont)
    font = read_soundfont(path)
    path = tuned_path(path, font.sha256, sample_rate)
    self._load = lambda: symusic.Synthesizer(path, sample_rate, 0)
    try:
      self._load()
    except (RuntimeError, ValueError) as error:
      raise UserError(f'cannot load the soundfont {soundfont}: {error}; try another one') from error
    self.sample_rate = sample_rate
    self.name = Path(soundfont).name

  def render(self, notes: np.ndarray, program: int, is_drum: bool, seconds: float) -> np.ndarray:
    """Render the notes of one instrument: mono float32 `[seconds * sample_rate]`, faded out at the end.

    Args:
      notes: note table; its program and is_drum columns are ignored.
      program: MIDI program 0..127.
      is_drum: whether to play the drum kit.
      seconds: length of the result; later audio is cut off.

    Raises:
      UserError: the soundfont cannot play the program.
    """
    import symusic

    track = symusic.Track(program=0 if is_drum else int(program), is_drum=bool(is_drum), ttype='second')
    track.notes = symusic.Note.from_numpy(
      time=notes['onset'].astype(np.float32),
      duration=(notes['offset'] - notes['onset']).astype(np.float32),
      pitch=notes['pitch'].astype(np.int8),
      velocity=notes['velocity'].astype(np.int8),
      ttype='second',
    )
    score = symusic.Score(ttype='second')
    score.tracks.append(track)
    score.tracks.append(_end_marker(seconds))
    samples = round(seconds * self.sample_rate)
    audio = np.zeros(samples, np.float32)
    try:
      rendered = np.asarray(self._load().render(score, stereo=False))[0, :samples]
    except (RuntimeError, ValueError) as error:
      raise UserError(f'the soundfont {self.name} cannot play program {program}: {error}; try another one') from error
    if np.isfinite(rendered).all():  # the synthesizer yields NaN for a few presets; they stay silent
      audio[: len(rendered)] = rendered
    fade = min(samples, round(_FADE_SECONDS * self.sample_rate))
    audio[samples - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return audio


def _end_marker(seconds):
  """Return a track with one note at the end; the synthesizer stops at the last note, release tails included."""
  import symusic

  track = symusic.Track(program=0, is_drum=False, ttype='second')
  track.notes.append(symusic.Note(time=float(seconds), duration=0.01, pitch=60, velocity=1, ttype='second'))
  return track


def silent_notes(audio: np.ndarray, notes: np.ndarray, sample_rate: int) -> np.ndarray:
  """Return bool `[notes]`: which notes are inaudible, at most -50 dB relative to the stem in the 60 ms after the onset.

  Some presets have no samples for some pitches, or play a sound effect on few of them.
  """
  energy = np.concatenate([[0.0], np.cumsum(np.square(audio, dtype=np.float64))])
  window = round(0.06 * sample_rate)
  begin = np.clip(np.rint(notes['onset'] * sample_rate).astype(np.int64), 0, max(0, len(audio) - window))
  power = energy[np.minimum(begin + window, len(audio))] - energy[begin]
  return power <= _SILENT_NOTE * power.max(initial=0.0)


def silent_share(audio: np.ndarray, notes: np.ndarray, sample_rate: int) -> float:
  """Return the fraction of notes that are inaudible (see `silent_notes`)."""
  return float(silent_notes(audio, notes, sample_rate).mean()) if len(notes) else 0.0
