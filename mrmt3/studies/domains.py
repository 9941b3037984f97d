"""Data sets of simpler music made from a data set of mixtures: single stems as pieces, and single notes.

They have the Slakh2100 layout, like other data sets. Audio and MIDI files are links to the files of the mixtures.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from mrmt3.audio import files as audio_files
from mrmt3.data import slakh_layout
from mrmt3.errors import UserError
from mrmt3.notes import midi
from mrmt3.notes.note_array import as_notes
from mrmt3.utils import files

ALL_STEMS, ONE_STEM = 'all', 'one'

# NSynth's families without vocals and mallets, as in MR-MT3, and the first program of each (for the flute, of its Slakh
# class).
NSYNTH_PROGRAMS = {
  'keyboard': 0,
  'organ': 16,
  'guitar': 24,
  'bass': 32,
  'string': 40,
  'brass': 56,
  'reed': 64,
  'flute': 73,
  'synth_lead': 80,
}
NOTE_SILENCE, NOTE_SECONDS = 0.05, 4.0
_NOTE_PITCHES = {'bass': (28, 33, 38, 43, 48, 52)}
_PITCHES = (48, 53, 58, 63, 68, 74)


def write_stems(data: Path, folder: Path, *, which: str = ALL_STEMS, mixtures: bool = False) -> Path:
  """Make a data set whose pieces are single stems, and return its folder. An existing folder is kept.

  Args:
    data: data set in the Slakh2100 layout, with audio of its stems.
    folder: folder of the new data set, created atomically.
    which: ALL_STEMS, or ONE_STEM per track, cycling through the stems, for the same duration as the mixtures.
    mixtures: whether to include the mixtures as well.

  Raises:
    UserError: the stems' audio is missing, or `folder` cannot be written.
  """
  if folder.exists():
    return folder
  temporary = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=files.make_folder(folder.parent)))
  try:
    found = 0
    for split in slakh_layout.split_folders(data):
      if split == slakh_layout.OMITTED:
        continue
      number = 0
      for track in slakh_layout.find_tracks(data, split):
        stems = [stem for stem in slakh_layout.read_stems(track) if stem.audio_path.is_file()]
        if which == ONE_STEM and stems:
          stems = [stems[number % len(stems)]]
        for stem in stems:
          _link_stem(track, stem, files.make_folder(temporary / split) / f'Track{number:05d}')
          number += 1
          found += 1
        if mixtures:
          (files.make_folder(temporary / split) / f'Track{90000 + int(track.name[5:])}').symlink_to(
            track.path.resolve()
          )
    if not found:
      raise UserError(
        f'{data} has no audio of its stems, which this study needs; choose a data set with a folder of stems per track'
      )
    temporary.chmod(0o755)
    temporary.rename(folder)
  except OSError as error:
    raise UserError(f'cannot write {folder}: {error.strerror or error}') from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return folder


def _link_stem(track, stem, folder):
  """Make a track folder with one stem."""
  import yaml

  entry = slakh_layout.read_metadata(track)['stems'][stem.name]
  for name, target in (('mix' + stem.audio_path.suffix, stem.audio_path), (f'MIDI/{stem.name}.mid', stem.midi_path)):
    link = folder / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.abspath(target))
  (folder / 'metadata.yaml').write_text(yaml.safe_dump({'midi_dir': 'MIDI', 'stems': {stem.name: entry}}))


def write_notes(folder: Path, soundfont: Path | None = None) -> Path:
  """Render single notes like NSynth's and return their folder of audio and MIDI files. An existing folder is kept.

  Each file has 50 ms of silence and a note of 4 s. There are six pitches per family of NSynth. Requires symusic (the
  extra `dataset`).

  Raises:
    UserError: the folder cannot be written.
  """
  if folder.exists():
    return folder
  from mrmt3.audio.synthesizer import Synth, default_soundfont

  synth = Synth(soundfont or default_soundfont())
  with files.atomic_folder(folder) as temporary:
    for family, program in NSYNTH_PROGRAMS.items():
      for pitch in _NOTE_PITCHES.get(family, _PITCHES):
        end = NOTE_SILENCE + NOTE_SECONDS
        notes = as_notes([(NOTE_SILENCE, end, pitch, 100, program, 0)])
        samples = synth.render(notes, program, False, end)
        samples *= 0.5 / max(float(np.abs(samples).max()), 1e-6)
        audio_files.write_audio(temporary / f'{family}-{pitch}.wav', samples, synth.sample_rate)
        midi.write_midi(notes, temporary / f'{family}-{pitch}.mid')
  return folder
