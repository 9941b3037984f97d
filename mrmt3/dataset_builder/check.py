"""Checks that a data set in Slakh2100's layout sounds as its labels say, stem by stem.

Of every labelled stem three things are measured on its own audio:

- audible: its integrated loudness is above -70 LUFS and at most `MAX_SILENT_NOTES` of its notes have no sound.
- lag: how much later the sound begins than the labels say. The rise of the sound's level (dB, from 5 ms before a moment
  to 5 ms after it) is averaged over all onsets for each shift from -50 to +100 ms; the lag is the shift where it is largest.
- pitch: the share of notes with energy at the labelled pitch. In the 256 ms after the onset one of three harmonics (the
  first three above 130 Hz, below which a semitone cannot be told from the next) is a spectral peak: the strongest within
  110 cents either way is less than 40 cents from its place, and at most 35 dB below the strongest of all.

And of every track, that its stems add up to its mix.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrmt3.audio.files import SAMPLE_RATE
from mrmt3.audio.synthesizer import silent_share
from mrmt3.data import catalogue, piece_validation, slakh_layout
from mrmt3.data.piece_source import PieceSource
from mrmt3.dataset_builder.layout import integrated_loudness
from mrmt3.errors import UserError
from mrmt3.utils.parallel import parallel, with_bar

MAX_LAG = 0.010  # s
WANTED_LAG_SHARE = 0.80  # of the stems
WANTED_PITCH_SHARE = 0.95  # of the notes
MAX_SILENT_NOTES = 0.05  # of a stem's notes
MAX_MIX_ERROR = -40.0  # dB of the difference between the mix and the sum of the stems, relative to the mix
_HOP = 0.001  # s, the lag's resolution
_RISE = 0.005
_EARLIEST, _LATEST = -50, 100  # hops
_FLOOR = 1e-5  # level that counts as silence, relative to the stem's loudest moment
_WINDOW = 0.256  # s
_NEAR, _AROUND = 40.0, 110.0  # cents
_HARMONICS = 3
_LOWEST = 130.0  # Hz
_WEAKEST = 10 ** (-35 / 20)
_MOST_NOTES = 4000  # of a stem that are looked at for pitch, evenly chosen


@dataclasses.dataclass(frozen=True)
class StemCheck:
  """What was measured of a stem.

  Attributes:
    track: split/name of its track.
    stem: e.g. 'S03'.
    program: Slakh class program; 0 for drums.
    is_drum: whether it is a drum kit.
    audible: see the module.
    lag: s; None where it has no notes or no sound.
    notes: notes looked at for pitch; 0 for drums.
    pitched: how many of them have their pitch.
  """

  track: str
  stem: str
  program: int
  is_drum: bool
  audible: bool
  lag: float | None
  notes: int
  pitched: int


@dataclasses.dataclass(frozen=True)
class TrackCheck:
  """A track's stems, the error of its mix in dB (None where it cannot be told), and a line for each trouble."""

  stems: tuple[StemCheck, ...]
  mix_error: float | None
  troubles: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What was found in a data set.

  Attributes:
    tracks, stems, notes: how many were looked at.
    audible: share of the stems.
    in_time: share of the stems with a lag of at most `MAX_LAG` either way.
    pitched: share of the notes.
    mixes: share of the tracks whose stems add up to the mix, of those where it can be told; 1 if it nowhere can.
    troubles: a line for each file that is missing or broken, and for each stem that cannot be heard.
    is_of_mixes: whether whole mixes were looked at instead of stems. One instrument may hide another there, so neither lags
      nor pitches have limits.
  """

  tracks: int
  stems: int
  notes: int
  audible: float
  in_time: float
  pitched: float
  mixes: float
  troubles: tuple[str, ...]
  is_of_mixes: bool = False

  @property
  def is_good(self) -> bool:
    """Whether all stems are audible, all mixes add up, and enough stems and notes are where their labels are."""
    if self.is_of_mixes:
      return self.audible == 1 and not self.troubles
    return (
      self.audible == 1
      and self.mixes == 1
      and self.in_time >= WANTED_LAG_SHARE
      and self.pitched >= WANTED_PITCH_SHARE
      and not self.troubles
    )


def check(
  root: str | os.PathLike,
  *,
  task: str | None = None,
  split: str | None = None,
  tracks: int | None = None,
  workers: int | None = None,
  progress: bool = True,
) -> tuple[Verdict, list[StemCheck]]:
  """Checks a data set.

  Args:
    root: its folder.
    task: what the folder is, one of `catalogue.sources`; its mixes are measured as stems are. None: one in Slakh2100's layout.
    split: only this split; None for all.
    tracks: look at so many tracks, evenly chosen; None for all.
    workers: processes; None for one per processor.
    progress: show a bar on stderr.

  Raises:
    UserError: it is no data set, or none of its stems can be looked at.
  """
  if task is None:
    found, check_one = slakh_layout.find_tracks(root, split), check_track
  else:
    source = catalogue.open_source(task, root)
    splits = [split] if split is not None else source.splits()
    found = [(name, piece) for name in splits for piece in source.list_pieces(name)]
    check_one = functools.partial(check_piece, source)
  if tracks is not None:
    if tracks < 1:
      raise UserError(f'{tracks} tracks cannot be checked; use 1 or more')
    found = [found[index] for index in np.unique(np.linspace(0, len(found) - 1, tracks).round().astype(int))]
  results = list(
    with_bar(parallel(check_one, found, workers or os.cpu_count() or 1), len(found), 'checking', 'track', progress)
  )
  stems = [stem for result in results for stem in result.stems]
  troubles = tuple(line for result in results for line in result.troubles)
  if not stems:
    raise UserError(
      f'nothing to check in {root}: {troubles[0] if troubles else "no track has labelled stems with audio"}'
    )
  return dataclasses.replace(_verdict(results, stems, troubles), is_of_mixes=task is not None), stems


def _verdict(results, stems, troubles):
  lags = np.array([stem.lag for stem in stems if stem.lag is not None])
  notes = sum(stem.notes for stem in stems)
  errors = np.array([result.mix_error for result in results if result.mix_error is not None])
  return Verdict(
    tracks=len(results),
    stems=len(stems),
    notes=notes,
    audible=float(np.mean([stem.audible for stem in stems])),
    in_time=float(np.mean(np.abs(lags) <= MAX_LAG + 1e-9)) if len(lags) else 0.0,
    pitched=sum(stem.pitched for stem in stems) / notes if notes else 1.0,
    mixes=float(np.mean(errors <= MAX_MIX_ERROR)) if len(errors) else 1.0,
    troubles=troubles,
  )


def check_track(track: slakh_layout.Track) -> TrackCheck:
  """Checks one track; what is missing or broken becomes a line."""
  from mrmt3.audio.files import read_audio

  name = f'{track.split}/{track.name}'
  try:
    stems = slakh_layout.read_stems(track)
    mix = read_audio(track.audio_path)
  except UserError as error:
    return TrackCheck((), None, (f'{name}: {error}',))
  checks, troubles, total, complete = [], [], np.zeros(len(mix)), True
  for stem in stems:
    try:
      if not stem.audio_path.exists():
        raise UserError(f'the audio of stem {stem.name} is missing: {stem.audio_path}')
      notes, audio = slakh_layout.read_stem_notes(stem), read_audio(stem.audio_path)
    except UserError as error:
      troubles.append(f'{name}: {error}')
      complete = False
      continue
    if len(audio) == len(mix):
      total += audio
    else:
      complete = False
    one = check_stem(notes, audio, SAMPLE_RATE)
    checks.append(dataclasses.replace(one, track=name, stem=stem.name))
    if not one.audible:
      troubles.append(f'{name}: stem {stem.name} cannot be heard, or not all of its notes')
  error = None
  if complete and stems and np.any(mix):
    error = float(10 * np.log10(np.mean((mix - total) ** 2) / np.mean(np.square(mix, dtype=np.float64)) + 1e-12))
    if error > MAX_MIX_ERROR:
      troubles.append(f'{name}: the stems do not add up to the mix (error {error:.0f} dB)')
  return TrackCheck(tuple(checks), error, tuple(troubles))


def check_piece(source: PieceSource, piece: tuple[str, str]) -> TrackCheck:
  """Checks one piece (split, name) of a source; what cannot be used of it becomes lines."""
  split, name = piece
  title = f'{split}/{name}'
  try:
    content = source.read_piece(split, name, SAMPLE_RATE)
  except UserError as error:
    return TrackCheck((), None, (f'{title}: {error}',))
  checked = piece_validation.check_piece(content, SAMPLE_RATE)
  lost = (piece_validation.LEFT_OUT, piece_validation.DROPPED)
  troubles = [f'{title}: {problem.text}' for problem in checked.problems if problem.action in lost]
  if checked.content is None:
    return TrackCheck((), None, tuple(troubles))
  one = check_stem(checked.content.notes, checked.content.samples, SAMPLE_RATE)
  if not one.audible:
    troubles.append(f'{title}: it cannot be heard, or not all of its notes')
  return TrackCheck((dataclasses.replace(one, track=title),), None, tuple(troubles))


def check_stem(notes: np.ndarray, audio: np.ndarray, sample_rate: int) -> StemCheck:
  """Checks a stem's note table against its audio `[n]`; the result's track and stem are empty."""
  is_drum = bool(notes['is_drum'].all()) and len(notes) > 0
  # Labels behind the end of the audio say nothing about it.
  notes = notes[notes['onset'] < len(audio) / sample_rate - 0.05]
  is_silent = integrated_loudness(audio, sample_rate) is None
  audible = not is_silent and silent_share(audio, notes, sample_rate) <= MAX_SILENT_NOTES
  pitched = np.zeros(0, bool)
  tonal = notes[~notes['is_drum']]
  if len(tonal):
    chosen = tonal[np.unique(np.linspace(0, len(tonal) - 1, _MOST_NOTES).round().astype(int))]
    pitched = has_pitch(audio, chosen['onset'], chosen['pitch'], sample_rate)
  return StemCheck(
    track='',
    stem='',
    program=int(notes['program'][0]) if len(notes) else 0,
    is_drum=is_drum,
    audible=audible,
    lag=None if is_silent or not len(notes) else onset_lag(audio, notes['onset'], sample_rate),
    notes=len(pitched),
    pitched=int(pitched.sum()),
  )


def onset_lag(audio: np.ndarray, onsets: Sequence[float], sample_rate: int) -> float:
  """Returns how much later (s) the sound `[n]` begins than `onsets` (s) say; of many onsets, in the mean."""
  hop = round(_HOP * sample_rate)
  energy = np.concatenate([[0.0], np.cumsum(np.square(audio, dtype=np.float64))])
  at = np.arange(len(audio) // hop + 1) * hop
  width = round(_RISE * sample_rate)
  after = energy[np.minimum(at + width, len(audio))] - energy[at]
  before = energy[at] - energy[np.maximum(at - width, 0)]
  floor = _FLOOR * after.max() + 1e-30
  rise = np.maximum(10 * np.log10((after + floor) / (before + floor)), 0)
  places = np.unique(np.rint(np.asarray(onsets) / _HOP).astype(np.int64))
  shifts = np.arange(_EARLIEST, _LATEST + 1)
  index = places[:, None] + shifts  # [onsets, shifts]
  inside = (index >= 0) & (index < len(rise))
  mean = np.where(inside, rise[np.clip(index, 0, len(rise) - 1)], 0).mean(axis=0)
  # Of equal maxima the one nearest to no lag.
  best = np.flatnonzero(mean >= mean.max() - 1e-9)
  return float(shifts[best[np.argmin(np.abs(shifts[best]))]] * _HOP)


def has_pitch(audio: np.ndarray, onsets: np.ndarray, pitches: np.ndarray, sample_rate: int) -> np.ndarray:
  """Returns bool `[notes]`: whether there is energy at each MIDI pitch just after its onset (s) in audio `[n]`."""
  size = 1 << int(np.ceil(np.log2(_WINDOW * sample_rate)))
  padded = np.pad(np.asarray(audio, np.float32), (0, size))
  loudest = float(np.abs(padded).max())
  found = np.zeros(len(onsets), bool)
  window = np.hanning(size).astype(np.float32)
  for first in range(0, len(onsets), 256):
    rows = slice(first, first + 256)
    begin = np.rint(onsets[rows] * sample_rate).astype(np.int64)
    spectra = np.abs(np.fft.rfft(padded[begin[:, None] + np.arange(size)] * window, axis=1))  # [notes, bins]
    strongest = spectra.max(axis=1)
    audible = strongest > 1e-4 * loudest * size / 4
    for row, (spectrum, pitch) in enumerate(zip(spectra, pitches[rows], strict=True)):
      if audible[row]:
        bands = _bands(int(pitch), size, sample_rate)
        found[first + row] = any(_is_peak(spectrum, strongest[row], *band) for band in bands)
  return found


def _is_peak(spectrum, strongest, low, high, around_low, around_high):
  peak = spectrum[low:high].max()
  return peak >= _WEAKEST * strongest and peak >= spectrum[around_low:around_high].max()


@functools.cache
def _bands(pitch, size, sample_rate):
  """Returns the bins (low, high, low and high of the surroundings) of a pitch's harmonics below half the sample rate."""
  fundamental = 440.0 * 2 ** ((pitch - 69) / 12)
  first = max(1, int(np.ceil(_LOWEST / fundamental)))
  bands = []
  for harmonic in range(first, first + _HARMONICS):
    place = fundamental * harmonic * size / sample_rate  # in bins
    if place * 1.1 < size / 2:
      near, around = 2 ** (_NEAR / 1200), 2 ** (_AROUND / 1200)
      bands.append((round(place / near), round(place * near) + 1, round(place / around), round(place * around) + 1))
  return tuple(bands)


def lines(verdict: Verdict) -> list[str]:
  """Returns what was found as lines of text for people."""
  if verdict.is_of_mixes:
    shares = {
      f'pieces audible, of {verdict.stems}': verdict.audible,
      f'pieces within {1000 * MAX_LAG:.0f} ms of their labels': verdict.in_time,
      f'notes with energy at their pitch, of {verdict.notes}': verdict.pitched,
    }
    return [f'{what:<50} {100 * share:6.1f} %' for what, share in shares.items()]
  rows = (
    ('stems audible', verdict.audible, 1.0, f'of {verdict.stems}'),
    ('stems that add up to the mix', verdict.mixes, 1.0, f'of {verdict.tracks} tracks'),
    (f'stems within {1000 * MAX_LAG:.0f} ms of their labels', verdict.in_time, WANTED_LAG_SHARE, f'of {verdict.stems}'),
    ('notes with energy at their pitch', verdict.pitched, WANTED_PITCH_SHARE, f'of {verdict.notes}'),
  )
  return [
    f'{what:<35} {100 * share:6.1f} % {of:<16} wanted {100 * wanted:.0f} %{"" if share >= wanted else "  NOT MET"}'
    for what, share, wanted, of in rows
  ]


def write_json(path: Path, verdict: Verdict, stems: Sequence[StemCheck]) -> None:
  """Writes all that was measured; UserError where the file cannot be written."""
  import json

  from mrmt3.utils.files import atomic_path

  stored = {**dataclasses.asdict(verdict), 'stems': [dataclasses.asdict(stem) for stem in stems]}
  with atomic_path(path) as temporary:
    temporary.write_text(json.dumps(stored, indent=1) + '\n', encoding='utf-8')
