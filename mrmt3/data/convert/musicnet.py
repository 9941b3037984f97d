"""MusicNet's original folder, with wav files and csv labels.

    train_data/1727.wav     train_labels/1727.csv     test_data/1819.wav     test_labels/1819.csv

Each csv row is a note: start_time and end_time in samples of the recording at 44.1 kHz, instrument (a General MIDI
program, counted from 1), note (MIDI pitch). MusicNet-EM has better labels for most recordings: MIDI files whose names
begin with the recording's number. The splits are those of MT3 (appendix of its paper), not MusicNet's own.
"""

import csv
import dataclasses
import re
from pathlib import Path

import numpy as np

from mrmt3.audio.files import read_audio
from mrmt3.data.convert.base import VELOCITY, Features, Options, in_splits
from mrmt3.data.records.messages import serialize_notes
from mrmt3.errors import UserError
from mrmt3.notes.midi import read_midi
from mrmt3.notes.note_array import from_tuples, sort_notes
from mrmt3.utils.fingerprints import files_below

SPLITS = ('train', 'validation', 'test')
VALIDATION = (1733, 1765, 1790, 1818, 2160, 2198, 2289, 2300, 2308, 2315, 2336, 2466, 2477, 2504, 2611)
TEST = (1729, 1776, 1813, 1893, 2118, 2186, 2296, 2431, 2432, 2487, 2497, 2501, 2507, 2537, 2621)
LABEL_RATE = 44100  # Hz, of the times in the csv files
SAMPLE_RATE = 16000  # Hz, of the samples in records
_FOLDERS = ('train', 'test')
_NUMBER = re.compile(r'(\d{4})(?!\d)')


@dataclasses.dataclass(frozen=True)
class MusicNet:
  """MusicNet as a `base.Original`. A piece's name is its number, e.g. '1727'.

  Attributes:
    folder: the folder that contains train_data, train_labels, test_data and test_labels.
    labels: folder with the MIDI files of MusicNet-EM, at any depth; recordings without one are left out. None uses the
      csv labels.
    sample_rate: Hz, of the samples written.
  """

  folder: str
  labels: str | None = None
  sample_rate: int = SAMPLE_RATE

  def splits(self) -> dict[str, list[str]]:
    """Return split -> sorted numbers; UserError if there are no recordings, or no labels for any of them."""
    found = self._recordings()
    labelled = self._labels()
    names = sorted(found.keys() & labelled.keys())
    if not names:
      raise UserError(
        f'no recording in {self.folder} has labels: expected {self.labels or "train_labels"} with files like 1727.*'
      )
    split_of = {str(number): 'validation' for number in VALIDATION} | {str(number): 'test' for number in TEST}
    return in_splits(names, {name: split_of.get(name, 'train') for name in names}, SPLITS)

  def features(self, name: str) -> Features:
    """Return audio (samples), sample_rate, sequence and id of a recording."""
    samples = read_audio(self._recordings()[name], self.sample_rate, whole=True)
    labels = self._labels()[name]
    notes = read_labels(labels) if labels.suffix.lower() == '.csv' else read_midi(labels)
    return {
      'id': name.encode(),
      'sample_rate': np.array([self.sample_rate], np.float32),
      'audio': samples,
      'sequence': serialize_notes(notes, name, len(samples) / self.sample_rate),
    }

  def _recordings(self):
    found = self._by_number('data', '.wav')
    if not found:
      raise UserError(f'no MusicNet in {self.folder}: expected train_data/*.wav there')
    return found

  def _labels(self):
    if self.labels is None:
      return self._by_number('labels', '.csv')
    if not Path(self.labels).is_dir():
      raise UserError(f'no labels at {self.labels}: no such folder; check --labels')
    files = [path for path in files_below(Path(self.labels)) if path.suffix.lower() in ('.mid', '.midi')]
    return {number[1]: path for path in files if (number := _NUMBER.match(path.name))}

  def _by_number(self, kind, suffix):
    """Return {name without suffix: path} of the files in train_KIND and test_KIND that are not hidden."""
    folders = [Path(self.folder) / f'{part}_{kind}' for part in _FOLDERS]
    files = [path for folder in folders if folder.is_dir() for path in files_below(folder)]
    return {path.stem: path for path in files if path.suffix.lower() == suffix}


def read_labels(path: Path) -> np.ndarray:
  """Return the notes of a csv label file of MusicNet as a sorted note array; UserError for another kind of file."""
  try:
    with open(path, newline='', encoding='utf-8') as file:
      rows = [
        (
          int(row['start_time']) / LABEL_RATE,
          int(row['end_time']) / LABEL_RATE,
          int(row['note']),
          VELOCITY,
          int(row['instrument']) - 1,
          False,
        )
        for row in csv.DictReader(file)
      ]
    return sort_notes(from_tuples(rows))
  except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
    raise UserError(
      f'{path} is not a label file of MusicNet ({type(error).__name__}: {str(error)[:100]}); replace the file'
    ) from error


def open_musicnet(folder: str, options: Options) -> MusicNet:
  """Open MusicNet."""
  return MusicNet(folder, **options.rate)


def open_musicnet_em(folder: str, options: Options) -> MusicNet:
  """Open MusicNet with the labels of MusicNet-EM; UserError if `options.labels` is not set."""
  if options.labels is None:
    raise UserError('musicnet_em needs the MIDI files of MusicNet-EM: add --labels DIR')
  return MusicNet(folder, options.labels, **options.rate)
