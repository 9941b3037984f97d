"""Plots of segments: log-mels, overlaid with the notes of their tokens."""

import dataclasses
import os

import numpy as np

from mrmt3.notes.instruments import DRUM_COLOR, instrument_name, instruments_of, notes_of, slakh_class_program
from mrmt3.plots import piano_roll
from mrmt3.spectrograms import SpectrogramConfig, hz_to_mel
from mrmt3.utils import console

_INK, _FAINT = '#24292f', '#8b949e'
_DPI = 130
_ROW, _WIDTH = 3.3, 14.0  # inches
_DRUM_PLACE = 0.035  # of the height
_LOWEST, _HIGHEST, _STEP = 26.0, 116.0, 0.25  # MIDI pitches


@dataclasses.dataclass(frozen=True)
class Panel:
  """One log-mel and its notes.

  Attributes:
    title: title above the panel.
    log_mel: float32 `[frames, mel]`; None for notes alone.
    notes: note table, times since the segment's start, s; None for an empty panel.
  """

  title: str
  log_mel: np.ndarray | None
  notes: np.ndarray | None


def plot_segments(
  path: str | os.PathLike | None,
  rows: list[list[Panel]],
  spectrogram: SpectrogramConfig,
  seconds: float,
  title: str = '',
):
  """Plot rows of panels, e.g. the prior segment and the segment itself, and return the matplotlib Figure.

  The mel axis is resampled to a pitch axis. A note is a rectangle from its onset to its offset at its fundamental; the
  energy above it is its overtones. Drums are ticks along the lower edge.

  Args:
    path: .png, .svg or .pdf file, written atomically; None writes nothing.
    rows: panels, equally many in each row.
    spectrogram: config of the log-mels.
    seconds: length of a segment, s.
    title: title of the figure.

  Raises:
    UserError: the file cannot be written.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  columns = max(map(len, rows))
  everyone = [panel.notes for row in rows for panel in row if panel.notes is not None]
  colors = _colors(np.concatenate(everyone)) if everyone else {}
  figure = Figure(
    figsize=(_WIDTH * max(columns, 1.4) / 2, _ROW * len(rows) + 1.1), dpi=_DPI, facecolor='white', layout='constrained'
  )
  FigureCanvasAgg(figure)
  axes = figure.subplots(len(rows), columns, squeeze=False, sharey=True)
  for row, row_axes in zip(rows, axes, strict=True):
    for panel, one in zip(row, row_axes, strict=False):
      _draw(one, panel, spectrogram, seconds, colors)
    octaves = np.arange(12 * np.ceil(_LOWEST / 12), _pitches(spectrogram)[1], 12)
    row_axes[0].set_yticks(octaves, [f'C{int(pitch) // 12 - 1}' for pitch in octaves])
  for one in axes[-1]:
    one.set_xlabel('s', color=_FAINT)
  if title:
    figure.suptitle(console.printable(title), color=_INK, weight='bold', x=0.01, ha='left', parse_math=False)
  _legend(figure, colors)
  if path is not None:
    piano_roll.save(figure, path)
  return figure


def mel_place(pitch, spectrogram: SpectrogramConfig):
  """Convert MIDI pitches (a float or an array) to positions on the mel axis, in bins."""
  low, high = (hz_to_mel(hz) for hz in (spectrogram.mel_lo_hz, spectrogram.mel_hi_hz))
  hz = 440.0 * 2.0 ** ((np.asarray(pitch, np.float64) - 69) / 12)
  return (hz_to_mel(hz) - low) / (high - low) * (spectrogram.num_mel_bins + 1) - 1


def _colors(notes):
  """Return {(program, is_drum): color}; programs of one Slakh class share a color."""
  players = instruments_of(notes)
  classes = {player: player if player[1] else (slakh_class_program(player[0]), False) for player in players}
  palette = piano_roll.instrument_colors(list(dict.fromkeys(classes.values())))
  return {player: palette[own] for player, own in classes.items()}


def _pitches(spectrogram):
  """Return the lowest and the highest pitch shown."""
  top = 69 + 12 * np.log2(spectrogram.mel_hi_hz / 440)
  return _LOWEST, min(_HIGHEST, top)


def _image(log_mel, spectrogram):
  """Return the log-mel resampled to a linear pitch axis, `[pitches, frames]`."""
  low, high = _pitches(spectrogram)
  places = mel_place(np.arange(low, high, _STEP), spectrogram)
  bins = np.arange(log_mel.shape[1])
  return np.stack([np.interp(places, bins, frame) for frame in log_mel], axis=-1)


def _draw(axes, panel, spectrogram, seconds, colors):
  low, high = _pitches(spectrogram)
  axes.set_title(console.printable(panel.title), size=9, color=_INK, loc='left', parse_math=False)
  axes.tick_params(length=0, labelsize=8, labelcolor=_FAINT)
  for spine in axes.spines.values():
    spine.set_visible(False)
  if panel.log_mel is not None and len(panel.log_mel):
    # A frame's window begins at the frame, so its energy is drawn at the window's center.
    first = spectrogram.fft_size / 2 / spectrogram.sample_rate
    last = first + len(panel.log_mel) / float(spectrogram.frame_rate)
    dark, light = np.percentile(panel.log_mel, [99.8, 20])
    axes.imshow(
      _image(panel.log_mel, spectrogram),
      origin='lower',
      aspect='auto',
      cmap='Greys',
      interpolation='nearest',
      vmin=light,
      vmax=max(dark, light + 1e-6),
      extent=(first, last, low - _STEP / 2, high - _STEP / 2),
    )
  axes.set_xlim(0, seconds)
  axes.set_ylim(low, high)
  if panel.notes is None or not len(panel.notes):
    return
  for (program, is_drum), color in colors.items():
    own = notes_of(panel.notes, program, is_drum)
    if not len(own):
      continue
    if is_drum:
      axes.plot(
        own['onset'],
        np.full(len(own), _DRUM_PLACE),
        '|',
        color=color,
        markersize=11,
        markeredgewidth=1.8,
        transform=axes.get_xaxis_transform(),
      )
    else:
      _boxes(axes, own, color)


def _boxes(axes, notes, color):
  from matplotlib.collections import PolyCollection

  low, high = notes['pitch'] - 0.5, notes['pitch'] + 0.5
  corners = [(notes['onset'], low), (notes['offset'], low), (notes['offset'], high), (notes['onset'], high)]
  boxes = np.stack([np.stack(corner, -1) for corner in corners], 1)
  axes.add_collection(PolyCollection(boxes, facecolor='none', edgecolor=color, linewidth=1.4))
  axes.vlines(notes['onset'], low, high, color=color, linewidth=3)


def _legend(figure, colors):
  from matplotlib.lines import Line2D

  handles = [
    Line2D([], [], color=DRUM_COLOR if is_drum else color, linewidth=4, label=instrument_name(program, is_drum))
    for (program, is_drum), color in colors.items()
  ]
  if handles:
    figure.legend(
      handles=handles, loc='outside lower left', ncols=min(len(handles), 6), frameon=False, fontsize=9, labelcolor=_INK
    )
