"""Piano rolls of transcriptions, below those of their references."""

import os
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.instruments import DRUM_COLOR, SLAKH_CLASSES, instrument_name, instruments_of, map_to_slakh_classes
from mrmt3.utils import console
from mrmt3.utils.files import atomic_path

_INK, _FAINT, _PAPER = '#24292f', '#8b949e', '#f6f8fa'
_DPI = 150
# Neighbors are the most distinct colors, since neighboring classes are of one family and often play together.
_PALETTE = (
  '#2563eb',
  '#e8590c',
  '#2b8a3e',
  '#c2255c',
  '#0ca0b5',
  '#eca400',
  '#7048e8',
  '#8d5524',
  '#74a80f',
  '#f06595',
  '#2f4b8f',
  '#20c997',
)
_MIN_WIDTH, _MAX_WIDTH, _INCHES_PER_SECOND = 13.0, 26.0, 0.22
_SEMITONE_INCHES, _MIN_SEMITONES = 0.06, 30
_DRUM_ROW_INCHES = 0.19
_LABEL_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)  # distances of time labels

# Rows of the drum lane from the bottom up, with their General MIDI drum pitches.
_DRUM_ROWS = {
  'kick': (35, 36),
  'snare': (37, 38, 39, 40),
  'toms': (41, 43, 45, 47, 48, 50),
  'hi-hat': (42, 44, 46),
  'cymbals': (49, 51, 52, 53, 55, 57, 59),
}
_OTHER_DRUMS = 'percussion'
_ROW_NAMES = (*_DRUM_ROWS, _OTHER_DRUMS)
_ROW_OF_PITCH = np.full(128, len(_DRUM_ROWS))
for _row, _pitches in enumerate(_DRUM_ROWS.values()):
  _ROW_OF_PITCH[list(_pitches)] = _row


def piano_roll(
  path: str | os.PathLike | None,
  reference: np.ndarray | None,
  estimate: np.ndarray,
  *,
  title: str = '',
  seconds: float | None = None,
):
  """Plot the reference (if any) above the transcription and return the matplotlib Figure.

  Both share the time axis, the pitch axis and the colors. Each instrument (Slakh class or drums) has a color; the
  legend marks instruments that only one of the two has. Drums have a lane below the pitched notes. The width grows with
  the duration.

  Args:
    path: .png, .pdf or .svg file, written atomically; None writes nothing.
    reference: note table, or None for a transcription alone.
    estimate: note table.
    title: title of the figure.
    seconds: length shown, from the start, s; None shows everything.

  Raises:
    UserError: the file cannot be written.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  panels = {} if reference is None else {'Reference': reference}
  panels = {name: map_to_slakh_classes(notes) for name, notes in (panels | {'Transcription': estimate}).items()}
  everything = np.concatenate(list(panels.values()))
  if seconds is None:
    seconds = max(everything['offset'].max(initial=0), 1.0)
  panels = {name: notes[notes['onset'] < seconds] for name, notes in panels.items()}

  layout = _Layout(panels, seconds, has_title=bool(title))
  figure = Figure(figsize=layout.size, dpi=_DPI, facecolor='white')
  FigureCanvasAgg(figure)
  layout.text(figure, 0, 0.2, title, size=15, weight='bold')
  for index, (name, notes) in enumerate(panels.items()):
    _draw_panel(figure, layout, index, name, notes)
  _draw_legend(figure, layout)
  if path is not None:
    save(figure, path)
  return figure


def save(figure, path: str | os.PathLike) -> None:
  """Write a figure atomically; UserError if the format is unknown or the file cannot be written."""
  formats = figure.canvas.get_supported_filetypes()
  if Path(path).suffix[1:].lower() not in formats:
    raise UserError(f'cannot draw {path}: unknown picture format {Path(path).suffix!r}; use .png, .pdf or .svg')
  with atomic_path(path) as temporary:
    figure.savefig(temporary)


def instrument_colors(instruments: list[tuple[int, bool]]) -> dict[tuple[int, bool], str]:
  """Return {(program of a Slakh class, is_drum): color}; up to 12 pitched instruments have distinct colors.

  A class has the same color in every figure, unless another class has taken it.
  """
  ranks = {program: rank for rank, program in enumerate(sorted(SLAKH_CLASSES.values()))}
  colors, free = {}, []
  for program, is_drum in instruments:
    if is_drum:
      colors[program, is_drum] = DRUM_COLOR
      continue
    free = free or list(range(len(_PALETTE)))
    slot = min(free, key=lambda slot, first=ranks[program]: (slot - first) % len(_PALETTE))
    free.remove(slot)
    colors[program, is_drum] = _PALETTE[slot]
  return colors


class _Layout:
  """Shared axes, colors and positions of the panels, in inches from the upper left corner.

  Figures of long pieces are scaled up as a whole (`scale`), so that text is still readable in the wider figure.
  """

  def __init__(self, panels, seconds, *, has_title):
    notes = np.concatenate(list(panels.values()))
    drums = notes[notes['is_drum']]
    width = float(np.clip(seconds * _INCHES_PER_SECOND, _MIN_WIDTH, _MAX_WIDTH))
    self.scale = scale = (width / _MIN_WIDTH) ** 0.5
    self.seconds = seconds
    self.pixel = seconds / (width * _DPI)  # s
    self.pitches = _pitch_range(notes['pitch'][~notes['is_drum']])
    self.rows = np.unique(_ROW_OF_PITCH[drums['pitch']])  # rows of the drum lane with notes
    self.colors = instrument_colors(instruments_of(notes))

    self.left, self.right = 0.75 * scale, 0.3 * scale
    self.inner_width = width - self.left - self.right
    self.roll_height = (self.pitches[1] - self.pitches[0]) * _SEMITONE_INCHES * scale
    self.drum_top = self.roll_height + 0.06 * scale
    self.drum_height = len(self.rows) * _DRUM_ROW_INCHES * scale
    panel_height = self.drum_top + self.drum_height if len(self.rows) else self.roll_height
    first_top = (0.9 if has_title else 0.4) * scale
    self.panel_tops = [first_top + index * (panel_height + 0.46 * scale) for index in range(len(panels))]
    self.legend_top = self.panel_tops[-1] + panel_height + 0.48 * scale
    self.legend = _flow(_legend_entries(panels, self.colors), self.inner_width, scale)
    self.size = width, self.legend_top + (0.27 * (1 + self.legend[-1][1]) + 0.12) * scale

  def box(self, top, height):
    """Return [left, bottom, width, height], in figure fractions, of a rectangle as wide as the panels."""
    width, total = self.size
    return [self.left / width, 1 - (top + height) / total, self.inner_width / width, height / total]

  def text(self, figure, x, y, text, *, size, **style):
    """Draw text at `x` inches from the panels' left side and `y` inches below the figure's upper edge."""
    width, total = self.size
    style = {'color': _INK, 'va': 'top'} | style
    # Names are no formulas: $ is an ordinary character in them.
    options = {'size': size * self.scale, 'parse_math': False, **style}
    figure.text((self.left + x) / width, 1 - y / total, console.printable(text), **options)


def _legend_entries(panels, colors):
  """Return (name, color) of each instrument; names mark instruments of one panel only."""
  present = {panel.lower(): set(instruments_of(notes)) for panel, notes in panels.items()}
  entries = []
  for instrument, color in colors.items():
    owners = [panel for panel, own in present.items() if instrument in own]
    remark = f' ({owners[0]} only)' if len(owners) < len(present) else ''
    entries.append((instrument_name(*instrument) + remark, color))
  return entries


def _flow(entries, width, scale):
  """Return [(x in inches, row, name, color)]: the legend entries, wrapped into rows; at least one, possibly empty."""
  placed, x, row = [], 0.0, 0
  for name, color in entries:
    needed = (0.6 + _text_width(name, 10)) * scale
    if x and x + needed > width:
      x, row = 0.0, row + 1
    placed.append((x, row, name, color))
    x += needed
  return placed or [(0.0, 0, '', 'none')]


def _text_width(text, size, weight='normal'):
  """Return the width of a text in inches; `size` in points."""
  from matplotlib.font_manager import FontProperties
  from matplotlib.textpath import TextPath

  return TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight)).get_extents().width / 72


def _pitch_range(pitches):
  """Return the (low, high) pitches shown: all notes with a margin, and at least _MIN_SEMITONES."""
  if not len(pitches):
    return 45.0, 45.0 + _MIN_SEMITONES
  low, high = pitches.min() - 2.0, pitches.max() + 2.0
  missing = max(0.0, _MIN_SEMITONES - (high - low)) / 2
  return low - missing, high + missing


def _draw_panel(figure, layout, index, name, notes):
  """Draw one piano roll with its drum lane and heading."""
  last = index == len(layout.panel_tops) - 1
  top = layout.panel_tops[index]
  heading = f'{_count(len(notes), "note")}, {_count(len(instruments_of(notes)), "instrument")}'
  y, after_name = top - 0.07 * layout.scale, (_text_width(name, 11, 'bold') + 0.14) * layout.scale
  layout.text(figure, 0, y, name, size=11, weight='bold', va='baseline')
  layout.text(figure, after_name, y, heading, size=10, color=_FAINT, va='baseline')
  axes = figure.add_axes(layout.box(top, layout.roll_height))
  _style_axes(axes, layout, time_labels=last and not len(layout.rows))
  _draw_pitched(axes, layout, notes[~notes['is_drum']])
  if len(layout.rows):
    lane = figure.add_axes(layout.box(top + layout.drum_top, layout.drum_height))
    _style_axes(lane, layout, time_labels=last)
    _draw_drums(lane, layout, notes[notes['is_drum']])


def _count(number, noun):
  return f'{number:,} {noun}{"" if number == 1 else "s"}'


def _style_axes(axes, layout, *, time_labels):
  """Apply the common style and time axis."""
  axes.set_xlim(0, layout.seconds)
  axes.set_facecolor(_PAPER)
  for spine in axes.spines.values():
    spine.set_visible(False)
  most_labels = layout.inner_width / layout.scale
  step = next((step for step in _LABEL_SECONDS if layout.seconds / step <= most_labels), _LABEL_SECONDS[-1])
  ticks = np.arange(0, layout.seconds + 1e-9, step)
  axes.set_xticks(ticks, [f'{int(t) // 60}:{int(t) % 60:02d}' for t in ticks] if time_labels else [''] * len(ticks))
  axes.tick_params(length=0, labelsize=9 * layout.scale, labelcolor=_FAINT, pad=5)
  axes.grid(axis='x', color='white', linewidth=1.6)
  axes.set_axisbelow(True)


def _draw_pitched(axes, layout, notes):
  """Draw notes as bars with a darker left end, which separates repeated notes."""
  from matplotlib.collections import PolyCollection

  low, high = layout.pitches
  axes.set_ylim(low, high)
  octaves = np.arange(np.ceil(low / 12) * 12, high, 12)
  axes.set_yticks(octaves, [f'C{int(pitch) // 12 - 1}' for pitch in octaves])
  axes.hlines(octaves, 0, layout.seconds, color='#d0d7de', linewidth=0.8, zorder=0.5)
  for instrument in _longest_first(notes):
    own = notes[notes['program'] == instrument[0]]
    offset = np.maximum(own['offset'] - layout.pixel, own['onset'] + 3 * layout.pixel)
    attack = own['onset'] + np.minimum(3 * layout.pixel, 0.25 * (offset - own['onset']))
    color = layout.colors[instrument]
    bars, attacks = (_bars(own['onset'], end, own['pitch'], 0.46) for end in (offset, attack))
    axes.add_collection(PolyCollection(bars, facecolor=color, alpha=0.88, linewidth=0))
    axes.add_collection(PolyCollection(attacks, facecolor=_INK, alpha=0.35, linewidth=0))


def _longest_first(notes):
  """Return the instruments by mean duration, longest first, so that short notes are drawn over long ones."""

  def mean_duration(instrument):
    own = notes[notes['program'] == instrument[0]]
    return np.mean(own['offset'] - own['onset'])

  return sorted(instruments_of(notes), key=mean_duration, reverse=True)


def _bars(left, right, middle, half_height):
  """Return the corners of rectangles, `[n, 4, 2]`."""
  low, high = middle - half_height, middle + half_height
  return np.stack([np.stack(corner, -1) for corner in ((left, low), (right, low), (right, high), (left, high))], 1)


def _draw_drums(axes, layout, notes):
  """Draw drum notes as ticks, with one row per kind of drum."""
  axes.set_ylim(-0.5, len(layout.rows) - 0.5)
  axes.set_yticks(range(len(layout.rows)), [_ROW_NAMES[row] for row in layout.rows])
  axes.tick_params(axis='y', labelsize=7.5 * layout.scale)
  place = np.searchsorted(layout.rows, _ROW_OF_PITCH[notes['pitch']])
  axes.vlines(notes['onset'], place - 0.36, place + 0.36, color=DRUM_COLOR, linewidth=1.3 / layout.scale)


def _draw_legend(figure, layout):
  """Draw the legend below the panels."""
  from matplotlib.patches import Rectangle

  (width, height), side = layout.size, 0.15 * layout.scale
  for x, row, name, color in layout.legend:
    y = layout.legend_top + 0.27 * row * layout.scale
    corner = (layout.left + x) / width, 1 - (y + side) / height
    figure.add_artist(Rectangle(corner, side / width, side / height, color=color, linewidth=0))
    layout.text(figure, x + 1.5 * side, y + side / 2, name, size=10, va='center_baseline')
