"""What to make of the musical time of a piece: the settings behind --tempo, --quantize and --clean."""

import dataclasses
import os

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.midi_clock import MidiClock
from mrmt3.score.analysis import Analysis, analyze, parse_tempo
from mrmt3.score.midi_output import midi_clock
from mrmt3.score.musicxml import musicxml
from mrmt3.score.notation import make_sheet
from mrmt3.score.quantize import Grid, as_played, quantize

NO_TEMPO = 'none'
DEFAULT_GRID = '1/16,triplets'  # of sheets

DEFAULT_VELOCITY = 80  # of files with bars, where all notes have the highest velocity: the model predicts none
_UNKNOWN = 127


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
  """Settings of musical time.

  Attributes:
    tempo: 'auto', beats per minute as text, or 'none' for MIDI files at 120 bpm without bars.
    grid: of quantised notes such as '1/16,triplets'; None leaves the times of MIDI files as they were played.
  """

  tempo: str = NO_TEMPO
  grid: str | None = None

  def check(self) -> None:
    """Raise UserError if a setting makes no sense."""
    if self.tempo not in ('auto', NO_TEMPO):
      parse_tempo(self.tempo)
    if self.grid is not None:
      Grid.parse(self.grid)
      if self.tempo == NO_TEMPO:
        raise UserError('--quantize needs a tempo; leave --tempo none out')

  def analyze(self, notes: np.ndarray) -> Analysis:
    """Find the musical time of notes; as 'auto' if no tempo is set."""
    return analyze(notes, 'auto' if self.tempo == NO_TEMPO else self.tempo)

  def midi(self, notes: np.ndarray, analysis: Analysis | None) -> tuple[np.ndarray, MidiClock | None]:
    """Return (notes, clock) of the MIDI file: as played or on the grid; no clock without an analysis or a pulse."""
    if analysis is None or analysis.tempo is None:
      return notes, None
    if self.grid is not None:
      notes = as_played(quantize(notes, analysis.tempo, Grid.parse(self.grid)), analysis.tempo)
    if len(notes) and (notes['velocity'] == _UNKNOWN).all():  # of models without velocities
      notes = notes.copy()
      notes['velocity'] = DEFAULT_VELOCITY
    return notes, midi_clock(analysis, float(notes['offset'].max(initial=0.0)))

  def musicxml(self, notes: np.ndarray, analysis: Analysis, title: str = '', name: str | os.PathLike = '') -> str:
    """Return notes as MusicXML text; UserError (with the name of the piece) if there is no pulse, or no note."""
    if not len(notes):
      raise UserError(f'{name}: there are no notes to write down; choose another file')
    if analysis.tempo is None:
      raise UserError(
        f'{name}: {analysis.summary()}, so there are no bars to write down; name the tempo with --tempo BPM'
      )
    return musicxml(make_sheet(notes, analysis, Grid.parse(self.grid or DEFAULT_GRID), title))
