"""MAESTRO's original folder: maestro-v3.0.0.csv and a folder per year, with a wav and a MIDI file per performance."""

import csv
import dataclasses
from pathlib import Path

from mrmt3.audio.files import promised_seconds
from mrmt3.data.convert import audio_features
from mrmt3.data.convert.base import Features, Options, in_splits
from mrmt3.data.records.messages import serialize_notes
from mrmt3.errors import UserError
from mrmt3.notes.midi import read_performance

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Maestro:
  """MAESTRO as a `base.Original`. A piece's name is its audio file name in the csv file.

  Notes end when the key is released. The sustain pedal is written as control changes.

  Attributes:
    folder: the folder that contains maestro-v<version>.csv.
    version: '1.0.0' or '3.0.0'.
    sample_rate: Hz, of the audio written; None copies the files.
  """

  folder: str
  version: str
  sample_rate: int | None = None

  def splits(self) -> dict[str, list[str]]:
    """Return split -> sorted names; UserError if the csv file is missing or has other columns."""
    rows = self._rows()
    return in_splits(sorted(rows), {name: row['split'] for name, row in rows.items()}, SPLITS)

  def features(self, name: str) -> Features:
    """Return audio (a wav file), sequence, id and velocity_range of a performance."""
    row = self._rows()[name]
    audio, midi = Path(self.folder) / row['audio_filename'], Path(self.folder) / row['midi_filename']
    notes, pedal = read_performance(midi)
    notes = notes.copy()
    notes['program'], notes['is_drum'] = 0, False  # MAESTRO is piano only
    sequence = serialize_notes(notes, name, promised_seconds(audio) or 0.0, pedal)
    return {
      'id': name.encode(),
      'audio': audio_features.as_file(audio, self.sample_rate),
      'sequence': sequence,
      'velocity_range': audio_features.velocity_range(notes['velocity']),
    }

  def _rows(self):
    path = Path(self.folder) / f'maestro-v{self.version}.csv'
    if not path.is_file():
      raise UserError(f'no MAESTRO {self.version} in {self.folder}: expected {path.name} there')
    try:
      with open(path, newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
      raise UserError(f'cannot read {path}: {" ".join(str(error).split())}') from error
    columns = {'split', 'midi_filename', 'audio_filename'}
    if not rows or columns - rows[0].keys() or any(row[column] is None for row in rows for column in columns):
      raise UserError(f'{path} is not the table of MAESTRO: it needs the columns {", ".join(sorted(columns))}')
    return {row['audio_filename']: row for row in rows}


def open_v1(folder: str, options: Options) -> Maestro:
  """Open MAESTRO 1.0.0."""
  return Maestro(folder, '1.0.0', options.sample_rate)


def open_v3(folder: str, options: Options) -> Maestro:
  """Open MAESTRO 3.0.0."""
  return Maestro(folder, '3.0.0', options.sample_rate)
