"""Checks and trims single notes of a sound source: lead-in, level, clipping, pitch and octave."""

import dataclasses

import numpy as np

from mrmt3.audio.files import SAMPLE_RATE, resample

RATE = SAMPLE_RATE
MAX_CENTS = 30.0
_LEAD_DB, _KEEP = -32.0, 0.002  # a note starts where it is this far below its peak; s kept before it
_LEVEL_WINDOW = 0.004  # s
_SILENT_PEAK = 10 ** (-60 / 20)
_CLIPPED_RUN = 6  # successive samples at the same extreme value
_PITCH_BEGIN, _PITCH_SECONDS = 0.06, 0.8  # s of the note in which its pitch is measured
_HARMONICS = 8


@dataclasses.dataclass(frozen=True)
class NoteCheck:
  """Result of `check_note`.

  Attributes:
    audio: float32 `[n]` at 16 kHz without lead-in; empty if the note is inaudible.
    lead: s that were cut off at its beginning.
    cents: deviation from the pitch, in (-50, 50) modulo octaves; NaN if none is measurable.
    octave: octaves from the expected pitch: -1, 0 or 1.
    problem: why the note cannot be used, or ''; the pitch is judged by the caller.
  """

  audio: np.ndarray
  lead: float
  cents: float
  octave: int
  problem: str = ''


def check_note(audio: np.ndarray, sample_rate: int, pitch: int | None, *, is_drum: bool = False) -> NoteCheck:
  """Trim a note (mono float `[n]`) and measure its level and pitch. `pitch` None: do not measure a pitch."""
  nothing = np.zeros(0, np.float32)
  audio = np.asarray(audio, np.float32)
  if not len(audio) or not np.isfinite(audio).all():
    return NoteCheck(nothing, 0.0, np.nan, 0, 'no usable samples')
  if is_clipped(audio):
    return NoteCheck(nothing, 0.0, np.nan, 0, 'clipped')
  if sample_rate != RATE:
    audio = resample(audio, sample_rate, RATE)
  audio = audio - (0.0 if is_drum else float(audio.mean()))
  if np.abs(audio).max() < _SILENT_PEAK:
    return NoteCheck(nothing, 0.0, np.nan, 0, 'inaudible')
  begin = onset_sample(audio)
  audio = audio[begin:].astype(np.float32)
  if pitch is None or is_drum:
    return NoteCheck(audio, begin / RATE, np.nan, 0)
  cents, octave = pitch_deviation(audio, pitch)
  return NoteCheck(audio, begin / RATE, cents, octave)


def is_clipped(audio: np.ndarray) -> bool:
  """Whether runs of samples stay at the largest or smallest value near full scale."""
  peak = float(np.abs(audio).max())
  if peak < 0.98:
    return False
  at_peak = np.abs(audio) >= 0.9999 * peak
  runs = np.diff(np.flatnonzero(np.diff(np.r_[0, at_peak.astype(np.int8), 0])))[::2]
  return bool(np.sum(runs >= _CLIPPED_RUN) > 3)


def level(audio: np.ndarray, window: float = _LEVEL_WINDOW) -> np.ndarray:
  """Return the RMS of successive windows (s) of audio at 16 kHz."""
  size = max(1, round(window * RATE))
  count = len(audio) // size
  if not len(audio):
    return np.zeros(0, np.float32)
  if not count:
    return np.sqrt(np.mean(np.square(audio), keepdims=True))
  return np.sqrt(np.mean(np.square(audio[: count * size].reshape(count, size)), axis=1))


def onset_sample(audio: np.ndarray) -> int:
  """Return the first sample of a note at 16 kHz: where its level rises, relative to its peak and its noise floor."""
  levels = level(audio)
  floor = float(levels[:2].mean()) if len(levels) > 8 else 0.0
  peak = float(levels.max())
  # A recording that starts in the middle of the sound has no floor to speak of.
  threshold = peak * 10 ** (_LEAD_DB / 20)
  if floor < 0.1 * peak:
    threshold = max(threshold, 3.0 * floor)
  first = int(np.argmax(levels >= threshold))
  return max(0, first * round(_LEVEL_WINDOW * RATE) - round(_KEEP * RATE))


def pitch_deviation(audio: np.ndarray, pitch: int) -> tuple[float, int]:
  """Return (cents, octaves) by which a note deviates from its pitch.

  Harmonics are searched near their expected frequencies in the spectrum of the first 0.8 s. The octave is that of the
  candidate (an octave lower, expected, higher) with the most energy that the others do not explain.
  """
  begin = round(_PITCH_BEGIN * RATE)
  part = audio[begin : begin + round(_PITCH_SECONDS * RATE)]
  part = part if len(part) > 0.1 * RATE else audio[: round(_PITCH_SECONDS * RATE)]
  if len(part) < 256:
    return float('nan'), 0
  size = 1 << 17
  spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), size))
  step = RATE / size
  f0 = 440.0 * 2 ** ((pitch - 69) / 12)
  cents = _deviation(spectrum, step, f0, RATE / len(part))
  return cents, _octave(spectrum, step, f0)


def _peak(spectrum, step, frequency, cents):
  """Return (magnitude, frequency) of the largest value within `cents` of a frequency."""
  low = int(np.floor(frequency * 2 ** (-cents / 1200) / step))
  high = int(np.ceil(frequency * 2 ** (cents / 1200) / step)) + 1
  if high >= len(spectrum):
    return 0.0, frequency
  at = low + int(np.argmax(spectrum[low:high]))
  return float(spectrum[at]), at * step


def _deviation(spectrum, step, f0, resolution):
  found = []
  top = spectrum.max()
  for harmonic in range(1, _HARMONICS + 1):
    # A peak is located to about a tenth of the resolution; that must be less than 15 cents.
    if harmonic * f0 * (2 ** (15 / 1200) - 1) < resolution / 10:
      continue
    magnitude, frequency = _peak(spectrum, step, harmonic * f0, 70)
    if magnitude > 0.02 * top:
      found.append((1200 * np.log2(frequency / (harmonic * f0)), magnitude / harmonic**0.5))
  if not found:
    return float('nan')
  deviations, weights = np.array(found).T
  order = np.argsort(deviations)
  half = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
  return float(deviations[order][half])


def _octave(spectrum, step, f0):
  """Return -1, 0 or 1: the octave that explains the harmonics best."""

  def strength(multiples):
    return sum(_peak(spectrum, step, multiple * f0, 35)[0] ** 2 for multiple in multiples)

  own = strength(range(1, 9))
  below = strength((0.5, 1.5, 2.5, 3.5))  # only a note one octave lower has these
  odd = strength((1, 3, 5, 7))  # only a note at the pitch or lower has these
  if below > 0.5 * own:
    return -1
  if odd < 1e-3 * own:
    return 1
  return 0
