"""GuitarSet's original folder, with JAMS annotations and wav files of two recordings per piece.

    annotation/00_BN1-129-Eb_comp.jams
    audio_mono-mic/00_BN1-129-Eb_comp_mic.wav
    audio_mono-pickup_mix/00_BN1-129-Eb_comp_mix.wav

There is no official split. MT3 trains on the first two progressions of every style and validates on the last one. The
progression is the digit after the style (BN1). Each existing recording of a piece becomes a record.
"""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np

from mrmt3.audio.files import promised_seconds
from mrmt3.data.convert import audio_features
from mrmt3.data.convert.base import VELOCITY, Features, Options, in_splits, read_bytes
from mrmt3.data.records.messages import serialize_notes
from mrmt3.errors import UserError
from mrmt3.notes.note_array import from_tuples, sort_notes

SPLITS = ('train', 'validation')
ANNOTATIONS = 'annotation'
RECORDINGS = {'mic': 'audio_mono-mic', 'mix': 'audio_mono-pickup_mix'}
PROGRAM = 24
_NAME = re.compile(r'\d+_[A-Za-z]+(\d)-')
_LAST_PROGRESSION = '3'


@dataclasses.dataclass(frozen=True)
class GuitarSet:
  """GuitarSet as a `base.Original`. A piece's name is the name of its wav file without the suffix.

  Attributes:
    folder: the folder that contains `annotation`.
    sample_rate: Hz, of the audio written; None copies the files.
  """

  folder: str
  sample_rate: int | None = None

  def splits(self) -> dict[str, list[str]]:
    """Return split -> sorted names; UserError if there are no annotations, or no recordings of them."""
    root = Path(self.folder)
    annotated = sorted(path.stem for path in (root / ANNOTATIONS).glob('[!.]*.jams'))
    if not annotated:
      raise UserError(f'no GuitarSet in {root}: expected {ANNOTATIONS}/*.jams there')
    names = [f'{name}_{kind}' for name in annotated for kind in RECORDINGS if self._audio(f'{name}_{kind}').is_file()]
    if not names:
      raise UserError(f'no recordings in {root}: expected wav files in {" or ".join(RECORDINGS.values())}')
    return in_splits(names, {name: _split(name) for name in names}, SPLITS)

  def features(self, name: str) -> Features:
    """Return audio (a wav file), sequence, id and velocity_range of a recording."""
    audio = self._audio(name)
    notes = read_jams(Path(self.folder) / ANNOTATIONS / f'{name.rpartition("_")[0]}.jams')
    sequence = serialize_notes(notes, name, promised_seconds(audio) or 0.0)
    return {
      'id': name.encode(),
      'audio': audio_features.as_file(audio, self.sample_rate),
      'sequence': sequence,
      'velocity_range': audio_features.velocity_range(notes['velocity']),
    }

  def _audio(self, name):
    return Path(self.folder) / RECORDINGS[name.rpartition('_')[2]] / f'{name}.wav'


def _split(name):
  found = _NAME.match(name)
  if not found:
    raise UserError(f'{name} is not named like a piece of GuitarSet (00_BN1-129-Eb_comp): rename or remove it')
  return SPLITS[found[1] == _LAST_PROGRESSION]


def read_jams(path: Path) -> np.ndarray:
  """Return the notes of all strings in a JAMS file as a sorted note array; UserError for another kind of file."""
  rows = []
  try:
    for annotation in json.loads(read_bytes(path))['annotations']:
      if annotation['namespace'] == 'note_midi':
        rows += [
          (note['time'], note['time'] + note['duration'], round(note['value']), VELOCITY, PROGRAM, False)
          for note in annotation['data']
        ]
    return sort_notes(from_tuples(rows))
  except (ValueError, KeyError, TypeError, OverflowError) as error:
    raise UserError(
      f'{path} is not an annotation of GuitarSet ({type(error).__name__}: {str(error)[:100]}); replace the file'
    ) from error


def open_guitarset(folder: str, options: Options) -> GuitarSet:
  """Open GuitarSet."""
  return GuitarSet(folder, options.sample_rate)
