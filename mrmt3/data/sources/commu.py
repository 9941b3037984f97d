"""Pieces from ComMU: 11,144 short MIDI clips of one instrument each, and audio rendered from them.

    commu_meta.csv                      a row per clip; the columns id and inst (e.g. 'string_violin-1') are used
    commu_midi/train/raw/commu00001.mid and commu_midi/val/raw/..., as published
    commu_audio/commu00001.flac         rendered by `mrmt3 dataset commu`; wav files and names with _16k work, too

MR-MT3 (arXiv 2403.10024) trains on ComMU to study domain overfitting: 90 / 5 / 5 percent of the clips of each
instrument, in order of their ids, are train / validation / test. Each instrument has one General MIDI program.
"""

import csv
import dataclasses
import functools
from pathlib import Path

import numpy as np

from mrmt3.audio.files import read_audio
from mrmt3.data.piece_source import PieceContent
from mrmt3.errors import UserError
from mrmt3.notes.midi import read_midi_counted
from mrmt3.utils.fingerprints import files_below, files_fingerprint

SPLITS = ('train', 'validation', 'test')
METADATA = ('commu_meta.csv', 'commu_meta_v2.csv')  # the second is MR-MT3's, with its splits in a column
AUDIO_FOLDER = 'commu_audio'
_AUDIO_SUFFIXES = ('.flac', '.wav')
_RATE_ENDING = '_16k'

# MR-MT3's programs, counted from 0. The first name that is part of a clip's `inst` gives its program.
PROGRAMS = {
  'accordion': 21,
  'acoustic_bass': 32,
  'acoustic_guitar': 24,
  'acoustic_piano': 0,
  'bassoon': 70,
  'bell': 14,
  'brass_ensemble': 61,
  'celesta': 8,
  'choir': 52,
  'clarinet': 71,
  'electric_bass': 33,
  'electric_guitar_clean': 27,
  'electric_guitar_distortion': 30,
  'electric_piano': 4,
  'flute': 73,
  'glockenspiel': 9,
  'harp': 46,
  'horn': 60,
  'marimba': 12,
  'nylon_guitar': 24,
  'oboe': 68,
  'orgel': 16,
  'string_cello': 42,
  'string_double_bass': 43,
  'string_ensemble': 48,
  'string_viola': 41,
  'string_violin': 40,
  'synth_bass': 38,
  'synth_bass_wobble': 38,
  'synth_bell': 14,
  'synth_pad': 88,
  'synth_pluck': 82,
  'synth_voice': 85,
  'timpani': 47,
  'trombone': 57,
  'tuba': 58,
  'vibraphone': 11,
  'xylophone': 13,
}


@dataclasses.dataclass(frozen=True)
class CommuFolder:
  """ComMU with rendered audio as a `piece_source.PieceSource`. A piece's name is its id, e.g. 'commu00001'.

  Attributes:
    data_dir: the folder with commu_meta.csv, and with MIDI and audio files at any depth.
  """

  data_dir: str

  def splits(self) -> tuple[str, ...]:
    """Return the splits with clips in them; UserError if there is no ComMU in the folder."""
    clips = self._clips()
    return tuple(split for split in SPLITS if clips[split])

  def list_pieces(self, split: str) -> list[str]:
    """Return the ids of the split's clips, sorted; UserError if there are none."""
    return sorted(self._of(split))

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Read one clip, without stems; UserError if its MIDI or audio file is missing or broken."""
    notes, lost = self._read_midi(split, name)
    audio = self._files()[1]
    if name not in audio:
      raise UserError(f'{name} has no audio in {self.data_dir}: render it with mrmt3 dataset commu {self.data_dir}')
    return PieceContent(read_audio(audio[name], sample_rate, whole=True), notes, lost_notes=lost)

  def read_notes(self, split: str, name: str) -> np.ndarray:
    """Return the notes of a clip; UserError if its MIDI file is missing or broken."""
    return self._read_midi(split, name)[0]

  def _read_midi(self, split, name):
    """Return (a clip's notes, number of notes lost in reading its MIDI file)."""
    if name not in self._of(split):
      raise UserError(f'ComMU in {self.data_dir} has no clip {name!r} in the split {split!r}')
    midi = self._files()[0]
    if name not in midi:
      raise UserError(
        f'the MIDI file of {name} is missing: expected {name}.mid in {self.data_dir}; unpack commu_midi.tar'
      )
    notes, lost = read_midi_counted(midi[name])
    return as_played(notes, self._of(split)[name]), lost

  def fingerprint(self, split: str) -> str:
    """Return a digest of the names, sizes and times of the split's files and of the metadata."""
    midi, audio = _find_files.__wrapped__(Path(self.data_dir), None)
    own = [files[name] for name in self._of(split) for files in (midi, audio) if name in files]
    return files_fingerprint([*own, find_metadata(self.data_dir)], Path(self.data_dir))

  def programs(self, split: str) -> dict[str, int]:
    """Return {id: program} of the split's clips, empty if there are none."""
    return self._clips().get(split, {})

  def _clips(self):
    path = find_metadata(self.data_dir)
    return _read_clips(path, path.stat().st_mtime_ns)

  def _of(self, split):
    clips = self._clips().get(split)
    if not clips:
      raise UserError(f'ComMU in {self.data_dir} has no split {split!r}; it has {", ".join(self.splits())}')
    return clips

  def _files(self):
    # Cached, because a worker process reads many clips. It need not see files that are rendered while it runs.
    return _find_files(Path(self.data_dir), find_metadata(self.data_dir).stat().st_mtime_ns)


def find_metadata(data_dir: str) -> Path:
  """Return the path of ComMU's csv file in a folder; UserError if there is none."""
  if not Path(data_dir).is_dir():
    raise UserError(f'no data set at {data_dir}: no such folder; check data_dir')
  for name in METADATA:
    if (Path(data_dir) / name).is_file():
      return Path(data_dir) / name
  raise UserError(f'no ComMU in {data_dir}: expected {METADATA[0]} there')


def midi_files(data_dir: str) -> dict[str, Path]:
  """Return {id: MIDI file} of ComMU's folder; UserError if the folder is not ComMU's."""
  return _find_files(Path(data_dir), find_metadata(data_dir).stat().st_mtime_ns)[0]


def as_played(notes: np.ndarray, program: int) -> np.ndarray:
  """Return a clip's notes with the program it is rendered with, instead of the programs of its MIDI file."""
  notes = notes.copy()
  notes['program'], notes['is_drum'] = program, False
  return notes


def split_clips(instruments: dict[str, str]) -> dict[str, dict[str, int]]:
  """Return MR-MT3's splits, split -> {id: program}, given {id: inst} in the order of the csv file.

  An instrument has the clips whose `inst` contains its name. A clip can match two instruments ('bell', 'synth_bell').
  The one with fewer clips decides its split. Clips that match none are left out.
  """
  clips = {}
  for clip, inst in instruments.items():
    for name in (name for name in PROGRAMS if name in inst):
      clips.setdefault(name, []).append(clip)
  where = {}
  for name in sorted(clips, key=lambda name: len(clips[name]), reverse=True):
    own, count = sorted(clips[name]), len(clips[name])
    ends = int(count * 0.9), int(count * 0.95)
    where |= {clip: SPLITS[(number >= ends[0]) + (number >= ends[1])] for number, clip in enumerate(own)}
  divided = {split: {} for split in SPLITS}
  for clip, split in where.items():
    divided[split][clip] = next(program for name, program in PROGRAMS.items() if name in instruments[clip])
  return divided


@functools.lru_cache(maxsize=4)
def _read_clips(path: Path, _changed):
  try:
    with open(path, newline='', encoding='utf-8') as file:
      rows = csv.DictReader(file)
      missing = {'id', 'inst'} - set(rows.fieldnames or ())
      if missing:
        raise UserError(f"{path} has no column {min(missing)!r}; replace it with ComMU's file")
      return split_clips({row['id']: row['inst'] or '' for row in rows})
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UserError(f'cannot read {path}: {" ".join(str(error).split())}') from error


@functools.lru_cache(maxsize=4)
def _find_files(root: Path, _changed):
  """Return ({id: MIDI file}, {id: audio file}) of the files in a folder."""
  midi, audio = {}, {}
  for path in files_below(root):
    if path.suffix.lower() == '.mid':
      midi.setdefault(path.stem, path)
    elif path.suffix.lower() in _AUDIO_SUFFIXES:
      audio.setdefault(path.stem.removesuffix(_RATE_ENDING), path)
  return midi, audio
