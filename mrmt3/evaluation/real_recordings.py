"""Scores of a transcriber on real recordings with reference notes, by kind of recording.

A folder of recordings has

  audio/NAME.*      any audio
  ref/NAME.mid      its notes
  kinds.json        optional: {"NAME": "kind"} where the kind is not the name up to its first _
  slakh/            optional: tracks in the Slakh2100 layout, the kind `slakh`

Of a `band`, only the drums are in the reference: their recall is all that is known. Of the kinds in `LATE`, references
are scores aligned to the sound, so that onsets are also scored at 100 ms.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from mrmt3.audio import formats
from mrmt3.data import slakh_layout
from mrmt3.errors import UserError
from mrmt3.evaluation import note_scores
from mrmt3.metrics_utils import match_notes
from mrmt3.notes import instruments, midi
from mrmt3.utils import bounded_files, strict_json

BAND, SLAKH, OTHER = 'band', 'slakh', 'other'
LATE = ('violin',)
FIRST = 0.05  # s: how far into a recording its first notes lie
BORDER = 0.015  # s
OLD_GRID = 2.0  # s, between the borders of segments without context
SILENCE = 0.1  # s, of the case 'silence'
CASES = ('plain', 'instruments', 'silence', '-24 dB', '-36 dB', '-60 dB')
_MAX_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Recording:
  """A recording with reference notes.

  Attributes:
    name: unique among the recordings.
    kind: 'piano', 'drums', ...
    audio: the audio file.
    read_notes: returns the reference, a note table; UserError if it cannot be read.
  """

  name: str
  kind: str
  audio: Path
  read_notes: Callable[[], np.ndarray]


def find_recordings(folder: Path) -> tuple[list[Recording], list[str]]:
  """Return the recordings of a folder, sorted by name, and a line for each file that has no partner.

  Raises:
    UserError: there are none, or kinds.json is not what it should be.
  """
  if not folder.is_dir():
    raise UserError(f'no folder of recordings: {folder}')
  kinds, found, lines = _kinds(folder), [], []
  audio = {}
  for path in _files(folder / 'audio'):
    if formats.has_audio_suffix(path):
      first = audio.setdefault(path.stem, path)
      if first != path:
        lines.append(f'{path} has the name of {first.name}; rename one of them and its reference')
  references = {path.stem: path for path in _files(folder / 'ref') if path.suffix.lower() in ('.mid', '.midi')}
  for name in sorted(audio.keys() | references.keys()):
    if name in audio and name in references:
      kind = kinds.get(name) or (name.partition('_')[0] if '_' in name else name)
      path = references[name]
      found.append(Recording(name, kind, audio[name], lambda path=path: midi.read_midi(path)))
    elif name in audio:
      lines.append(f'{audio[name]} has no reference; add {folder / "ref" / name}.mid')
    else:
      lines.append(f'{references[name]} has no recording; add it to {folder / "audio"}')
  if (folder / 'slakh').is_dir():
    for track in slakh_layout.find_tracks(folder / 'slakh'):
      found.append(Recording(track.name, SLAKH, track.audio_path, lambda track=track: slakh_layout.read_notes(track)))
  if not found:
    raise UserError(f'{folder} has no recordings with references; put them into audio/ and ref/, with equal names')
  return found, lines


def _files(folder):
  if not folder.is_dir():
    return []
  return [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith('.')]


def _kinds(folder):
  path = folder / 'kinds.json'
  if not path.exists():
    return {}
  try:
    kinds = strict_json.loads(bounded_files.read_bytes(path, _MAX_BYTES), _MAX_BYTES)
  except (OSError, ValueError) as error:
    raise UserError(f'cannot read {path}: {error}') from error
  if not isinstance(kinds, dict) or not all(isinstance(kind, str) and kind for kind in kinds.values()):
    raise UserError(f'{path}: give an object of names and kinds, such as {{"take1": "piano"}}')
  return kinds


def instrument_names(notes: np.ndarray) -> list[str]:
  """Return the instruments of notes as `--instruments` takes them."""
  return sorted(
    {'drums' if is_drum else instruments.slakh_class_name(p) for p, is_drum in instruments.instruments_of(notes)}
  )


def share_at(notes: np.ndarray, period: float) -> float:
  """Return the share of the pitched notes that end within `BORDER` of a multiple of `period`, s; 0 without any."""
  ends = notes['offset'][~notes['is_drum']]
  near = np.abs(ends - period * np.round(ends / period)) <= BORDER
  return float(near.mean()) if len(near) else 0.0


def first_notes(reference: np.ndarray, found: np.ndarray) -> tuple[int, int]:
  """Return how many of the notes in the first `FIRST` seconds are found, and how many there are."""
  first = reference[reference['onset'] < FIRST]
  return sum(bool(len(match_notes(first[k : k + 1], found))) for k in range(len(first))), len(first)


def velocity_correlation(reference: np.ndarray, found: np.ndarray) -> float:
  """Return the correlation of velocities over matched notes; NaN where either side has a single value."""
  pairs = match_notes(reference, found)
  if len(pairs) < 3:
    return float('nan')
  left, right = reference['velocity'][pairs[:, 0]], found['velocity'][pairs[:, 1]]
  if left.std() == 0 or right.std() == 0:
    return float('nan')
  return float(np.corrcoef(left, right)[0, 1])


def score(
  reference: np.ndarray, notes: np.ndarray, kind: str, grid: float | None, names_instruments: bool = True
) -> dict:
  """Return the scores of one recording; NaN for what does not apply.

  Args:
    reference: note table.
    notes: what was transcribed.
    kind: of the recording.
    grid: seconds between the borders of the model's own segments; None: not known.
    names_instruments: whether the transcriber tells instruments apart.
  """
  nan = float('nan')
  if kind == BAND:
    drums = (table[table['is_drum']] for table in (reference, notes))
    return {'notes': len(notes), 'drum_recall': note_scores.onset_scores(*drums).recall}
  classes = [instruments.map_to_slakh_classes(table) for table in (reference, notes)]
  found = note_scores.instrument_detection(reference, notes)
  first = first_notes(reference, notes)
  pitched = not reference['is_drum'].all()
  return {
    'notes': len(notes),
    'onset_f1': note_scores.onset_scores(reference, notes).f1,
    'onset_f1_100ms': note_scores.onset_scores(reference, notes, onset_tolerance=0.1).f1 if kind in LATE else nan,
    'class_f1': note_scores.program_scores(*classes, 'full').f1 if names_instruments else nan,
    'leakage_ratio': note_scores.leakage_ratio(reference, notes) if names_instruments else nan,
    'instrument_precision': found.precision if names_instruments else nan,
    'instrument_recall': found.recall if names_instruments else nan,
    'ends_at_border': share_at(notes, grid) - share_at(reference, grid) if grid and pitched else nan,
    'ends_at_2s': share_at(notes, OLD_GRID) - share_at(reference, OLD_GRID) if pitched else nan,
    'velocity_correlation': velocity_correlation(reference, notes),
    'first_found': first[0],
    'first_all': first[1],
  }


def prepared(samples: np.ndarray, rate: int, case: str) -> np.ndarray:
  """Return a recording in one of `CASES`: with silence in front, or at a lower level."""
  if case == 'silence':
    return np.concatenate([np.zeros(round(SILENCE * rate), np.float32), samples])
  if case.endswith('dB'):
    return samples * np.float32(10 ** (float(case.split()[0]) / 20))
  return samples


def shifted(notes: np.ndarray, case: str) -> np.ndarray:
  """Return notes at their times in the recording itself."""
  if case != 'silence':
    return notes
  notes = notes.copy()
  for field in ('onset', 'offset'):
    notes[field] = np.maximum(notes[field] - SILENCE, 0)
  return notes


def mean_by_kind(rows: Iterable[Mapping]) -> dict[str, dict[str, float]]:
  """Return the means of rows with a `kind`, by kind in order and as a whole ('all'); NaNs are left out of a mean."""
  rows = list(rows)
  groups = {kind: [row for row in rows if row['kind'] == kind] for kind in sorted({row['kind'] for row in rows})}
  groups['all'] = rows
  names = list(dict.fromkeys(name for row in rows for name in row if name not in ('kind', 'name')))
  means = {}
  for kind, own in groups.items():
    values = {name: np.array([row.get(name, np.nan) for row in own], float) for name in names}
    means[kind] = {'n': len(own)} | {
      name: float(np.nanmean(column)) if np.isfinite(column).any() else float('nan') for name, column in values.items()
    }
  return means


def write_json(path: Path, systems: Mapping[str, list[dict]]) -> None:
  """Write the rows of each system; NaNs as null. UserError if that fails."""
  from mrmt3.utils.files import atomic_path

  plain = {
    system: [{k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()} for row in rows]
    for system, rows in systems.items()
  }
  with atomic_path(path) as temporary:
    temporary.write_text(json.dumps(plain, indent=1) + '\n', encoding='utf-8')
