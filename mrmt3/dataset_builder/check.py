"""Checks that the audio of a data set in Slakh2100's layout agrees with its labels, stem by stem.

Three quantities of every labelled stem are measured on its own audio:

- audible: its integrated loudness is above -70 LUFS, and at most `MAX_SILENT_NOTES` of its notes are silent.
- lag: the delay of the audio relative to the labels. The rise of the level (dB, from the 5 ms before a time to the 5 ms
  after it) is averaged over all onsets for each shift from -50 to +100 ms; the lag is the shift with the largest mean.
- pitch: the fraction of notes with energy at the labelled pitch. In the 256 ms after the onset, one of three harmonics
  must be a spectral peak: the largest within 110 cents is less than 40 cents off, and at most 35 dB below the
  spectrum's maximum. The harmonics are the first three above 130 Hz, below which semitones are not resolved.

For every track, the sum of its stems is compared with its mix.
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
from mrmt3.utils import console
from mrmt3.utils.parallel import parallel, with_bar
from mrmt3.utils.warning_lines import with_warnings

MAX_LAG = 0.010  # s
MIN_IN_TIME = 0.80  # fraction of the stems
MIN_PITCHED = 0.95  # fraction of the notes
MAX_SILENT_NOTES = 0.05  # fraction of a stem's notes
MAX_MIX_ERROR = -40.0  # dB, difference between the mix and the sum of the stems relative to the mix
_HOP = 0.001  # s, resolution of the lag
_RISE = 0.005  # s
_MIN_SHIFT, _MAX_SHIFT = -50, 100  # hops
_FLOOR = 1e-5  # power that counts as silence, relative to the stem's maximum
_WINDOW = 0.256  # s
_NEAR, _AROUND = 40.0, 110.0  # cents
_HARMONICS = 3
_MIN_FREQUENCY = 130.0  # Hz
_MIN_PEAK = 10 ** (-35 / 20)
_MAX_NOTES = 4000  # per stem for the pitch check, evenly spaced


@dataclasses.dataclass(frozen=True)
class StemCheck:
  """Measurements of one stem.

  Attributes:
    track: split/name of its track.
    stem: e.g. 'S03'.
    program: Slakh class program; 0 for drums.
    is_drum: whether it is a drum kit.
    audible: see the module's docstring.
    lag: s; None if it has no notes or is silent.
    notes: number of notes checked for pitch; 0 for drums.
    pitched: how many of them have energy at their pitch.
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
  """A track's stems, the error of its mix in dB (None if it cannot be computed), and a line for each problem."""

  stems: tuple[StemCheck, ...]
  mix_error: float | None
  troubles: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DatasetCheck:
  """Measurements of a data set.

  Attributes:
    tracks, stems, notes: how many were checked.
    audible: fraction of the stems that are audible.
    in_time: fraction of the stems whose lag is at most `MAX_LAG` in absolute value.
    pitched: fraction of the notes with energy at their pitch.
    mixes: fraction of the tracks whose stems add up to the mix, of those that can be compared; 1 if there are none.
    troubles: a line for each file that is missing or broken, and for each inaudible stem.
    odd_files: a line for each file that was read although something about it is odd, or with lost notes.
    is_of_mixes: whether whole mixes were checked instead of stems. One instrument may mask another there, so neither
      lags nor pitches have limits.
  """

  tracks: int
  stems: int
  notes: int
  audible: float
  in_time: float
  pitched: float
  mixes: float
  troubles: tuple[str, ...]
  odd_files: tuple[str, ...] = ()
  is_of_mixes: bool = False

  @property
  def is_good(self) -> bool:
    """Whether stems are audible, mixes add up, enough stems and notes match their labels, and no file fails."""
    if self.is_of_mixes:
      return self.audible == 1 and not self.troubles
    return (
      self.audible == 1
      and self.mixes == 1
      and self.in_time >= MIN_IN_TIME
      and self.pitched >= MIN_PITCHED
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
) -> tuple[DatasetCheck, list[StemCheck]]:
  """Check a data set.

  Args:
    root: its folder.
    task: how to read the folder, one of `catalogue.sources`; its mixes are measured like stems. None: in Slakh2100's
      layout.
    split: only this split; None for all.
    tracks: number of tracks to check, evenly spaced; None for all.
    workers: number of processes; None for one per processor.
    progress: show a progress bar on stderr.

  Raises:
    UserError: the folder is not a data set, or none of its stems can be checked.
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
      raise UserError(f'cannot check {tracks} tracks; use 1 or more')
    found = [found[index] for index in np.unique(np.linspace(0, len(found) - 1, tracks).round().astype(int))]
  check_one = functools.partial(with_warnings, check_one)
  pairs = list(
    with_bar(parallel(check_one, found, workers or os.cpu_count() or 1), len(found), 'checking', 'track', progress)
  )
  results = [result for result, _ in pairs]
  odd_files = tuple(line for _, warned in pairs for line in warned)
  stems = [stem for result in results for stem in result.stems]
  troubles = tuple(line for result in results for line in result.troubles)
  if not stems:
    raise UserError(
      f'nothing to check in {root}: {troubles[0] if troubles else "no track has labelled stems with audio"}'
    )
  summary = _summarize(results, stems, troubles)
  return dataclasses.replace(summary, odd_files=odd_files, is_of_mixes=task is not None), stems


def _summarize(results, stems, troubles):
  lags = np.array([stem.lag for stem in stems if stem.lag is not None])
  notes = sum(stem.notes for stem in stems)
  errors = np.array([result.mix_error for result in results if result.mix_error is not None])
  return DatasetCheck(
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
  """Check one track; missing and broken files become lines of `troubles`."""
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
        raise UserError(f'the audio of stem {stem.name} is missing: {stem.audio_path}; render the track again')
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
      troubles.append(f'{name}: stem {stem.name} or some of its notes are inaudible')
  error = None
  if complete and stems and np.any(mix):
    error = float(10 * np.log10(np.mean((mix - total) ** 2) / np.mean(np.square(mix, dtype=np.float64)) + 1e-12))
    if error > MAX_MIX_ERROR:
      troubles.append(f'{name}: the stems do not add up to the mix (error {error:.0f} dB)')
  return TrackCheck(tuple(checks), error, tuple(troubles))


def check_piece(source: PieceSource, piece: tuple[str, str]) -> TrackCheck:
  """Check one piece (split, name) of a source; unusable parts become lines of `troubles`."""
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
    troubles.append(f'{title}: the piece or some of its notes are inaudible')
  return TrackCheck((dataclasses.replace(one, track=title),), None, tuple(troubles))


def check_stem(notes: np.ndarray, audio: np.ndarray, sample_rate: int) -> StemCheck:
  """Check a stem's note table against its audio `[n]`; `track` and `stem` of the result are empty."""
  is_drum = bool(notes['is_drum'].all()) and len(notes) > 0
  # Notes after the end of the audio cannot be checked.
  notes = notes[notes['onset'] < len(audio) / sample_rate - 0.05]
  is_silent = integrated_loudness(audio, sample_rate) is None
  audible = not is_silent and silent_share(audio, notes, sample_rate) <= MAX_SILENT_NOTES
  pitched = np.zeros(0, bool)
  tonal = notes[~notes['is_drum']]
  if len(tonal):
    chosen = tonal[np.unique(np.linspace(0, len(tonal) - 1, _MAX_NOTES).round().astype(int))]
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
  """Return the mean delay (s) of audio `[n]` relative to the labelled onsets (s)."""
  hop = round(_HOP * sample_rate)
  energy = np.concatenate([[0.0], np.cumsum(np.square(audio, dtype=np.float64))])
  at = np.arange(len(audio) // hop + 1) * hop
  width = round(_RISE * sample_rate)
  after = energy[np.minimum(at + width, len(audio))] - energy[at]
  before = energy[at] - energy[np.maximum(at - width, 0)]
  floor = _FLOOR * after.max() + 1e-30
  rise = np.maximum(10 * np.log10((after + floor) / (before + floor)), 0)
  places = np.unique(np.rint(np.asarray(onsets) / _HOP).astype(np.int64))
  shifts = np.arange(_MIN_SHIFT, _MAX_SHIFT + 1)
  index = places[:, None] + shifts  # [onsets, shifts]
  inside = (index >= 0) & (index < len(rise))
  mean = np.where(inside, rise[np.clip(index, 0, len(rise) - 1)], 0).mean(axis=0)
  # Of equal maxima, the shift closest to 0.
  best = np.flatnonzero(mean >= mean.max() - 1e-9)
  return float(shifts[best[np.argmin(np.abs(shifts[best]))]] * _HOP)


def has_pitch(audio: np.ndarray, onsets: np.ndarray, pitches: np.ndarray, sample_rate: int) -> np.ndarray:
  """Return bool `[notes]`: whether audio `[n]` has energy at each MIDI pitch just after its onset (s)."""
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
  return peak >= _MIN_PEAK * strongest and peak >= spectrum[around_low:around_high].max()


@functools.cache
def _bands(pitch, size, sample_rate):
  """Return the bins (low, high, wide low, wide high) of a pitch's harmonics below the Nyquist frequency."""
  fundamental = 440.0 * 2 ** ((pitch - 69) / 12)
  first = max(1, int(np.ceil(_MIN_FREQUENCY / fundamental)))
  bands = []
  for harmonic in range(first, first + _HARMONICS):
    place = fundamental * harmonic * size / sample_rate  # in bins
    if place * 1.1 < size / 2:
      near, around = 2 ** (_NEAR / 1200), 2 ** (_AROUND / 1200)
      bands.append((round(place / near), round(place * near) + 1, round(place / around), round(place * around) + 1))
  return tuple(bands)


def lines(result: DatasetCheck) -> list[str]:
  """Format the measurements as lines of text."""
  if result.is_of_mixes:
    shares = {
      f'pieces audible, of {result.stems}': result.audible,
      f'pieces within {1000 * MAX_LAG:.0f} ms of their labels': result.in_time,
      f'notes with energy at their pitch, of {result.notes}': result.pitched,
    }
    return [f'{what:<50} {100 * share:6.1f} %' for what, share in shares.items()]
  rows = (
    ('stems audible', result.audible, 1.0, f'of {result.stems}'),
    ('stems that add up to the mix', result.mixes, 1.0, f'of {console.counted(result.tracks, "track")}'),
    (f'stems within {1000 * MAX_LAG:.0f} ms of their labels', result.in_time, MIN_IN_TIME, f'of {result.stems}'),
    ('notes with energy at their pitch', result.pitched, MIN_PITCHED, f'of {result.notes}'),
  )
  return [
    f'{what:<35} {100 * share:6.1f} % {of:<16} minimum {100 * minimum:.0f} %{"" if share >= minimum else "  NOT MET"}'
    for what, share, minimum, of in rows
  ]


def write_json(path: Path, result: DatasetCheck, stems: Sequence[StemCheck]) -> None:
  """Write all measurements as JSON; UserError if the file cannot be written."""
  import json

  from mrmt3.utils.files import atomic_path

  stored = {**dataclasses.asdict(result), 'stems': [dataclasses.asdict(stem) for stem in stems]}
  with atomic_path(path) as temporary:
    temporary.write_text(json.dumps(stored, indent=1) + '\n', encoding='utf-8')
