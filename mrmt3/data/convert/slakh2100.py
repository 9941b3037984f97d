"""Slakh2100's folder, for records like MT3's with a NoteSequence per stem and the samples of the mix."""

import dataclasses

import numpy as np

from mrmt3.audio.files import read_audio
from mrmt3.data import slakh_layout
from mrmt3.data.convert.base import Features, Options
from mrmt3.data.records.messages import serialize_notes
from mrmt3.errors import UserError
from mrmt3.notes.instruments import slakh_class_name

SAMPLE_RATE = 16000  # Hz, of the samples in records
LEAST_STEMS = 4  # minimum of a random sub-mix


@dataclasses.dataclass(frozen=True)
class Slakh2100:
  """A folder in the Slakh2100 layout as a `base.Original`. A piece's name is e.g. 'train/Track00001'.

  Attributes:
    folder: the folder that contains train, validation and test, or one with tracks and no splits.
    subsets: number of random sub-mixes per training track (MT3 trains on 10), named 'train/Track00001/0' and so on.
      Each has at least LEAST_STEMS stems, if the track has that many. 0 writes the mix of each track.
    sample_rate: Hz, of the samples written.
  """

  folder: str
  subsets: int = 0
  sample_rate: int = SAMPLE_RATE

  def splits(self) -> dict[str, list[str]]:
    """Return split -> names in order of their numbers; UserError if there are no tracks."""
    names = {split: [] for split in slakh_layout.SPLITS}
    for track in slakh_layout.find_tracks(self.folder):
      if track.split in names:
        name = f'{track.split}/{track.name}'
        names[track.split] += [f'{name}/{i}' for i in range(self.subsets)] if self._is_divided(track.split) else [name]
    if not any(names.values()):
      raise UserError(f'no tracks in {self.folder}: expected folders like train/Track00001 (Slakh2100 layout)')
    return names

  def features(self, name: str) -> Features:
    """Return the features of MT3's records, with empty `stems`; UserError if a stem or the mix cannot be read."""
    split, track_name, *number = name.split('/')
    track = slakh_layout.find_track(self.folder, split, track_name)
    stems = slakh_layout.read_stems(track)
    if not stems:
      raise UserError(f'{track.metadata_path} lists no audible stem with labels: replace or remove the track')
    if number:
      stems = _some(stems, int(track_name[5:]), int(number[0]))
      audio = [read_audio(stem.audio_path, self.sample_rate, whole=True) for stem in stems]
      mix = np.zeros(max(map(len, audio)), np.float32)
      for samples in audio:
        mix[: len(samples)] += samples
    else:
      mix = read_audio(track.audio_path, self.sample_rate, whole=True)
    notes = [slakh_layout.read_stem_notes(stem) for stem in stems]
    seconds = len(mix) / self.sample_rate
    classes = ['Drums' if stem.is_drum else slakh_class_name(stem.program) for stem in stems]
    none = np.zeros(len(stems), np.int64)
    return {
      'audio_sample_rate': np.array([self.sample_rate]),
      'mix': mix,
      'stems': np.zeros(0, np.float32),
      'stems_shape': np.array([0, 0]),
      'target_type': b'',
      'track_id': '_'.join([track_name, *number]).encode(),
      'inst_names': [name.encode() for name in classes],
      'src_ids': [stem.name.encode() for stem in stems],
      'note_sequences': [serialize_notes(table, stem.name, seconds) for table, stem in zip(notes, stems, strict=True)],
      'program_num': np.array([128 if stem.is_drum else stem.program for stem in stems]),
      'midi_class': none,
      'plugin_name': none,
      'slakh_class': none,
    }

  def _is_divided(self, split):
    return self.subsets > 0 and split == 'train'


def _some(stems, *seed):
  """Return a random subset of the stems, the same for the same seed."""
  rng = np.random.default_rng(seed)
  count = rng.integers(min(LEAST_STEMS, len(stems)), len(stems) + 1)
  return [stems[i] for i in sorted(rng.choice(len(stems), count, replace=False))]


def open_slakh(folder: str, options: Options) -> Slakh2100:
  """Open Slakh2100."""
  return Slakh2100(folder, options.subsets, **options.rate)
