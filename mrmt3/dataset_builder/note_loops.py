"""Loops and release times of single notes, so that a stored note can be played for any duration."""

import dataclasses

import numpy as np

from mrmt3.dataset_builder.sound_checks import RATE, level

MAX_SECONDS = 4.0
_WINDOW = 0.05  # s, for levels
_END_DB = -10.0  # a sustained recording is looped before its level drops by this
_MIN_LOOP, _MAX_LOOP, _MATCH, _FADE = 0.15, 0.9, 0.064, 0.06  # s
_SILENCE = 10 ** (-55 / 20)  # relative to the peak
_MAX_GROWTH = 1.0  # a loop never gets louder
# Release times of recordings, s to -60 dB, by General MIDI family of 8 programs.
_RELEASES = (0.35, 1.6, 0.15, 0.25, 0.2, 0.3, 0.35, 0.2, 0.2, 0.2, 0.2, 0.5, 0.5, 0.4, 0.8, 0.5)
_RINGING = {46: 1.6, 47: 1.6}  # harp and timpani are not damped


@dataclasses.dataclass(frozen=True)
class StoredNote:
  """A note that can be played for any duration.

  Attributes:
    audio: float32 `[n]` at 16 kHz.
    loop: number of samples at the end that repeat; 0 if the sound is over there.
    loop_gain: factor on each further repetition, at most 1.
    release: s from the key's release to -60 dB.
  """

  audio: np.ndarray
  loop: int
  loop_gain: float
  release: float


def default_release(program: int) -> float:
  """Return the release time of a recorded instrument, s."""
  return _RINGING.get(program, _RELEASES[program // 8])


def make_playable(audio: np.ndarray, hold: float | None, program: int, is_drum: bool) -> StoredNote:
  """Cut a note (float32 `[n]` at 16 kHz, no lead-in) and give it a loop and a release time."""
  peak = np.abs(audio).max()
  if is_drum:
    return StoredNote(_until_silent(audio[: round(3.0 * RATE)], peak), 0, 1.0, 0.0)
  release = default_release(program) if hold is None else _measured_release(audio, hold, program)
  body = audio[: round(min(hold or MAX_SECONDS, MAX_SECONDS) * RATE)]
  body = _until_silent(body, peak)
  levels = level(body, _WINDOW)
  if hold is None:
    body = body[: _sustain_end(levels, len(body))]
    levels = level(body, _WINDOW)
  if len(levels) < 8 or levels[-4:].max() < _SILENCE * 10 * peak:
    return StoredNote(_faded(body), 0, 1.0, release)
  return _looped(body, levels, release)


def _until_silent(audio, peak):
  loud = np.flatnonzero(np.abs(audio) > _SILENCE * peak)
  return audio[: loud[-1] + 1] if len(loud) else audio


def _faded(audio):
  fade = min(len(audio), round(0.01 * RATE))
  audio = audio.copy()
  audio[len(audio) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
  return audio


def _sustain_end(levels, length):
  """Return the sample before which a recording is sustained; all of it if the sound decays from its beginning."""
  size = round(_WINDOW * RATE)
  if len(levels) < 5:
    return length
  middle = np.median(levels[len(levels) // 5 : max(len(levels) // 5 + 1, 3 * len(levels) // 5)])
  if middle < levels.max() * 10 ** (-12 / 20):
    return length
  kept = np.flatnonzero(levels >= middle * 10 ** (_END_DB / 20))
  # One window less: the last one may have the beginning of the end.
  return max(size, min(length, int(kept[-1]) * size))


def _measured_release(audio, hold, program):
  """Return the time to -60 dB after the key's release, from the decay over the first 20 dB of it."""
  at = round(hold * RATE)
  tail = level(audio[at:], 0.01)
  before = level(audio[max(0, at - round(0.05 * RATE)) : at], 0.05)
  if not len(tail) or not len(before) or before[-1] <= 0:
    return default_release(program)
  quiet = np.flatnonzero(tail < 0.1 * before[-1])
  if not len(quiet):
    return 3.0
  return float(np.clip(3 * 0.01 * (quiet[0] + 1), 0.03, 3.0))


def _looped(body, levels, release):
  match, fade = round(_MATCH * RATE), round(_FADE * RATE)
  shortest = round(_MIN_LOOP * RATE)
  longest = min(round(_MAX_LOOP * RATE), len(body) // 2 - match)
  if longest <= shortest:
    return StoredNote(_faded(body), 0, 1.0, release)
  end = len(body)
  pattern = body[end - match :].astype(np.float64)
  search = body[end - match - longest : end - shortest].astype(np.float64)
  size = 1 << int(np.ceil(np.log2(len(search) + match)))
  products = np.fft.irfft(np.fft.rfft(search, size) * np.conj(np.fft.rfft(pattern, size)), size)
  products = products[: len(search) - match + 1]
  energy = np.concatenate([[0.0], np.cumsum(search**2)])
  energy = energy[match:] - energy[:-match]
  likeness = products / np.sqrt(energy * (pattern @ pattern) + 1e-12)
  # Of equally good loops the longest, which sounds least mechanical.
  start = int(np.argmax(likeness > likeness.max() - 0.01))
  loop = longest - start
  gain = np.sqrt(np.mean(body[end - loop :] ** 2) / (np.mean(body[end - 2 * loop : end - loop] ** 2) + 1e-12))
  gain = float(min(gain, _MAX_GROWTH)) if end >= 2 * loop else 1.0
  gain = 1.0 if gain > 0.93 else gain  # tremolo and beating are not a decay
  body = body.copy()
  fade = min(fade, loop, end - loop)
  ramp = np.linspace(0, 1, fade, dtype=np.float32)
  body[end - fade :] = body[end - fade :] * (1 - ramp) + body[end - loop - fade : end - loop] * ramp * gain
  return StoredNote(body, loop, gain, release)
