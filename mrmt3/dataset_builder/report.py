"""Statistics of a data set in Slakh2100's layout: hours, pieces, notes, instruments, polyphony, minutes per class."""

import dataclasses
import functools
import os
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mrmt3.audio.files import SAMPLE_RATE
from mrmt3.data import catalogue, slakh_layout
from mrmt3.data.piece_source import PieceSource
from mrmt3.errors import UserError
from mrmt3.notes.instruments import DRUM_COLOR, SLAKH_CLASSES, instrument_name, map_to_slakh_classes
from mrmt3.utils import console
from mrmt3.utils.parallel import parallel, with_bar
from mrmt3.utils.warning_lines import with_warnings

DRUMS = (0, True)


@dataclasses.dataclass(frozen=True)
class TrackStats:
  """Statistics of one track.

  Attributes:
    split, name: the track.
    source: origin of its music according to its metadata; tracks of one source are one piece.
    seconds: duration of its audio.
    notes: number of notes of each (Slakh class program, is_drum).
    polyphony: mean number of simultaneous pitched notes, over the time when there are any.
    most: maximum number of simultaneous pitched notes.
    attributions: (licence, attribution) of the sounds and the music, sorted, if its metadata name them.
  """

  split: str
  name: str
  source: str
  seconds: float
  notes: dict[tuple[int, bool], int]
  polyphony: float
  most: int
  attributions: tuple[tuple[str, str], ...] = ()


def track_stats(track: slakh_layout.Track) -> TrackStats | str:
  """Return a track's statistics, or a line about why it cannot be read."""
  import soundfile

  try:
    metadata = slakh_layout.read_metadata(track)
    notes = slakh_layout.read_notes(track)
    seconds = soundfile.info(track.audio_path).duration
  except UserError as error:
    return f'{track.split}/{track.name}: {error}'
  except soundfile.SoundFileError:
    return f'{track.split}/{track.name}: the mix is not audio; render the track again'
  counts = defaultdict(int)
  for program, is_drum in zip(notes['program'].tolist(), notes['is_drum'].tolist(), strict=True):
    counts[program, is_drum] += 1
  source = str(metadata.get('lmd_midi_dir') or metadata.get('UUID') or track.name).split('#')[0]
  return TrackStats(
    track.split, track.name, source, seconds, dict(counts), *polyphony(notes[~notes['is_drum']]), attributions(metadata)
  )


def attributions(metadata: dict) -> tuple[tuple[str, str], ...]:
  """Return the sorted (licence, attribution) that the metadata of a track name, of its music and its stems."""
  found = {(metadata.get('music_licence'), metadata.get('music_attribution'))}
  stems = metadata.get('stems')
  for stem in stems.values() if isinstance(stems, dict) else ():
    if isinstance(stem, dict) and stem.get('audio_rendered', True):
      found.add((stem.get('licence'), stem.get('attribution')))
  return tuple(sorted((str(licence), str(text or '')) for licence, text in found if licence))


def piece_stats(source: PieceSource, piece: tuple[str, str]) -> TrackStats | str:
  """Return the statistics of a piece (split, name) of a source, or one line on why it cannot be read."""
  split, name = piece
  try:
    content = source.read_piece(split, name, SAMPLE_RATE)
  except UserError as error:
    return f'{split}/{name}: {error}'
  notes, counts = map_to_slakh_classes(content.notes), defaultdict(int)
  for program, is_drum in zip(notes['program'].tolist(), notes['is_drum'].tolist(), strict=True):
    counts[program, is_drum] += 1
  seconds = len(content.samples) / SAMPLE_RATE
  return TrackStats(split, name, f'{split}/{name}', seconds, dict(counts), *polyphony(notes[~notes['is_drum']]))


def polyphony(notes: np.ndarray) -> tuple[float, int]:
  """Return the mean number of simultaneous notes, over the time when there are any, and the maximum."""
  if not len(notes):
    return 0.0, 0
  times = np.concatenate([notes['onset'], notes['offset']])
  steps = np.concatenate([np.ones(len(notes), int), -np.ones(len(notes), int)])
  order = np.lexsort((steps, times))  # offsets before onsets
  active = np.cumsum(steps[order])
  durations = np.diff(times[order])
  sounding = durations[active[:-1] > 0].sum()
  return float((active[:-1] * durations).sum() / sounding) if sounding else 0.0, int(active.max())


@dataclasses.dataclass(frozen=True)
class Report:
  """Statistics of a data set.

  Attributes:
    tracks: statistics of all readable tracks.
    troubles: a line for each other track.
    odd_files: a line for each file that was read although something about it is odd, or with lost notes.
  """

  tracks: tuple[TrackStats, ...]
  troubles: tuple[str, ...] = ()
  odd_files: tuple[str, ...] = ()

  def hours(self, split: str | None = None) -> float:
    """Hours of audio, of one split or all."""
    return sum(track.seconds for track in self.tracks if split in (None, track.split)) / 3600

  def pieces(self) -> int:
    """Number of distinct pieces of music."""
    return len({track.source for track in self.tracks})

  def splits(self) -> dict[str, int]:
    """Number of tracks in each split."""
    names = dict.fromkeys(track.split for track in self.tracks)
    return {split: sum(track.split == split for track in self.tracks) for split in names}

  def minutes(self) -> dict[tuple[int, bool], float]:
    """Minutes of the tracks in which each Slakh class plays, drums last; absent classes have 0."""
    minutes = {(program, False): 0.0 for program in SLAKH_CLASSES.values()} | {DRUMS: 0.0}
    for track in self.tracks:
      for instrument in track.notes:
        minutes[instrument] += track.seconds / 60
    return minutes

  def notes(self) -> dict[tuple[int, bool], int]:
    """Number of notes of each class that occurs."""
    counts = defaultdict(int)
    for track in self.tracks:
      for instrument, count in track.notes.items():
        counts[instrument] += count
    return dict(counts)


def attribution_lines(report: Report) -> list[str]:
  """Format the attributions of all tracks; empty if the data set names no licences."""
  counts = defaultdict(int)
  for track in report.tracks:
    for entry in track.attributions:
      counts[entry] += 1
  if not counts:
    return []
  return [
    '',
    f'{"licence":<26} {"tracks":>8}  attribution',
    *(f'{licence:<26} {count:>8}  {text}' for (licence, text), count in sorted(counts.items())),
  ]


def describe(
  root: str | os.PathLike, *, task: str | None = None, workers: int | None = None, progress: bool = True
) -> Report:
  """Return the statistics of a data set.

  Args:
    root: its folder.
    task: how to read the folder, one of `catalogue.sources`; None: in Slakh2100's layout.
    workers: number of processes; None for one per processor.
    progress: show a progress bar on stderr.

  Raises:
    UserError: the folder is not a data set, or no track can be read.
  """
  if task is None:
    found, read = slakh_layout.find_tracks(root), track_stats
  else:
    source = catalogue.open_source(task, root)
    found = [(split, piece) for split in source.splits() for piece in source.list_pieces(split)]
    read = functools.partial(piece_stats, source)
  # Starting processes takes longer than reading a few tracks.
  workers = min(workers or os.cpu_count() or 1, 1 + len(found) // 40)
  read = functools.partial(with_warnings, read)
  pairs = list(with_bar(parallel(read, found, workers), len(found), 'counting', 'track', progress))
  results = [result for result, _ in pairs]
  report = Report(
    tuple(one for one in results if isinstance(one, TrackStats)),
    tuple(one for one in results if isinstance(one, str)),
    tuple(line for _, warned in pairs for line in warned),
  )
  if not report.tracks:
    raise UserError(f'no track in {root} can be read ({report.troubles[0]}); build the data set again')
  return report


def lines(report: Report) -> list[str]:
  """Format the statistics as lines of text."""
  tracks = report.tracks
  counts = [len(track.notes) for track in tracks]
  mean = float(np.average([track.polyphony for track in tracks], weights=[track.seconds for track in tracks]))
  text = [
    f'{report.hours():.2f} hours, {console.counted(len(tracks), "track")} of '
    f'{console.counted(report.pieces(), "piece")}, {console.counted(sum(report.notes().values()), "note")}',
    'splits: '
    + ', '.join(f'{split} {count} ({report.hours(split):.2f} h)' for split, count in report.splits().items()),
    f'instruments per track: {np.mean(counts):.1f} ({min(counts)} to {max(counts)})',
    f'simultaneous pitched notes: {mean:.1f} on average, {max(track.most for track in tracks)} at most',
    '',
    f'{"class":<26} {"minutes":>8} {"notes":>8}',
  ]
  notes = report.notes()
  absent = 0
  for instrument, minutes in report.minutes().items():
    if minutes or notes.get(instrument):
      text.append(f'{instrument_name(*instrument):<26} {minutes:>8.1f} {notes.get(instrument, 0):>8}')
    else:
      absent += 1
  return (
    text
    + ([f'{absent} other classes do not occur' if absent > 1 else '1 other class does not occur'] if absent else [])
    + attribution_lines(report)
  )


def as_json(report: Report) -> dict:
  """Return the statistics as plain values for a JSON file."""
  minutes, notes = report.minutes(), report.notes()
  return {
    'hours': report.hours(),
    'pieces': report.pieces(),
    'splits': {split: {'tracks': count, 'hours': report.hours(split)} for split, count in report.splits().items()},
    'classes': {
      instrument_name(*instrument): {'minutes': minutes[instrument], 'notes': notes.get(instrument, 0)}
      for instrument in minutes
    },
    'tracks': [
      {
        **{key: value for key, value in dataclasses.asdict(track).items() if value or key != 'attributions'},
        'notes': {instrument_name(*one): n for one, n in track.notes.items()},
      }
      for track in report.tracks
    ],
    'troubles': list(report.troubles),
    'odd_files': list(report.odd_files),
  }


_INK, _FAINT, _PAPER = '#24292f', '#6e7781', '#f6f8fa'
_SPLIT_COLORS = {'train': '#4c78a8', 'validation': '#f2a541', 'test': '#d1495b'}


def draw(report: Report, path: str | os.PathLike, title: str = ''):
  """Plot the statistics (.png, .pdf or .svg): minutes of each class, and histograms over tracks.

  Raises UserError if the file cannot be written.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(13, 8.6), dpi=130, facecolor='white')
  FigureCanvasAgg(figure)
  figure.text(0.015, 0.965, title or 'Data set', size=16, weight='bold', color=_INK, va='center')
  figure.text(0.015, 0.93, '   '.join(lines(report)[:1]), size=10.5, color=_FAINT, va='center')
  grid = figure.add_gridspec(
    3, 2, left=0.155, right=0.985, top=0.885, bottom=0.06, width_ratios=(1.25, 1), wspace=0.16, hspace=0.42
  )
  _draw_classes(figure.add_subplot(grid[:, 0]), report)
  tracks = report.tracks
  most = max(len(track.notes) for track in tracks)
  _draw_histogram(
    figure.add_subplot(grid[0, 1]),
    tracks,
    [len(track.notes) for track in tracks],
    np.arange(most + 1) + 0.5,
    'instruments in a track',
  )
  _draw_histogram(
    figure.add_subplot(grid[1, 1]),
    tracks,
    [track.polyphony for track in tracks],
    24,
    'mean number of simultaneous pitched notes',
  )
  rates = [sum(track.notes.values()) / track.seconds for track in tracks]
  _draw_histogram(figure.add_subplot(grid[2, 1]), tracks, rates, 24, 'notes per second, drums included')
  _save(figure, path)


def _draw_classes(axes, report):
  places = {instrument: index for index, instrument in enumerate(report.minutes())}
  left = np.zeros(len(places))
  for split, color in _splits_with_colors(report):
    part = Report(tuple(track for track in report.tracks if track.split == split)).minutes()
    widths = np.array([part[instrument] for instrument in places])
    axes.barh(
      list(places.values()), widths, left=left, color=color, height=0.78, label=f'{split} ({report.splits()[split]})'
    )
    left += widths
  axes.set_yticks(list(places.values()), [instrument_name(*instrument) for instrument in places], size=9, color=_INK)
  axes.get_yticklabels()[-1].set_color(DRUM_COLOR)
  axes.set_ylim(len(places) - 0.4, -0.6)
  _style(axes, 'minutes of tracks with each class', axis='x')
  axes.legend(
    loc='center right', frameon=True, facecolor='white', edgecolor='none', fontsize=9, title='tracks', title_fontsize=9
  )


def _draw_histogram(axes, tracks, values, bins, label):
  edges = np.histogram_bin_edges(values, bins)
  values = np.array(values)
  splits = [(split, color) for split, color in _splits_with_colors(Report(tuple(tracks)))]
  groups = [values[[track.split == split for track in tracks]] for split, _ in splits]
  axes.hist(groups, edges, stacked=True, color=[color for _, color in splits], rwidth=0.9)
  _style(axes, label, axis='y')
  axes.set_ylabel('tracks', size=9, color=_FAINT)
  axes.yaxis.get_major_locator().set_params(integer=True)


def _splits_with_colors(report) -> Sequence[tuple[str, str]]:
  return [(split, _SPLIT_COLORS.get(split, _FAINT)) for split in report.splits()]


def _style(axes, label, axis):
  axes.set_facecolor(_PAPER)
  axes.set_title(label, size=10.5, color=_INK, loc='left')
  axes.grid(axis=axis, color='white', linewidth=1.5)
  axes.set_axisbelow(True)
  axes.tick_params(length=0, labelsize=9, labelcolor=_INK)
  for spine in axes.spines.values():
    spine.set_visible(False)


def _save(figure, path):
  from pathlib import Path

  from mrmt3.utils.files import atomic_path

  if Path(path).suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
    raise UserError(f'cannot draw {path}: unknown picture format {Path(path).suffix!r}; use .png, .pdf or .svg')
  with atomic_path(path) as temporary:
    figure.savefig(temporary)
