"""References in files, folders and data sets, and transcriptions of them by any system.

Note tables and audio are read lazily, by functions that can be pickled for other processes.
"""

import collections
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrmt3.audio.formats import AUDIO_SUFFIXES
from mrmt3.data import catalogue, slakh_layout
from mrmt3.errors import UserError
from mrmt3.notes.midi_file import MIDI_SUFFIXES
from mrmt3.utils import console
from mrmt3.utils.file_names import normal_form
from mrmt3.utils.fingerprints import files_below, files_fingerprint


class Reference(NamedTuple):
  """The reference of a piece.

  Attributes:
    read: returns the note table; raises UserError if it cannot be read.
    audio: sample rate (Hz) -> float32 samples `[n]`; None without audio.
    state: fingerprint of the files that `read` reads, taken when the piece was found.
    audio_state: fingerprint of the audio.
    read_published: returns the note table of MR-MT3's script, with raw programs; None if it is the same.
  """

  read: Callable[[], np.ndarray]
  audio: Callable[[int], np.ndarray] | None = None
  state: str = ''
  audio_state: str = ''
  read_published: Callable[[], np.ndarray] | None = None


class Estimate(NamedTuple):
  """A transcription and its file; `read` returns the note table, or raises UserError if it failed or is unreadable."""

  read: Callable[[], np.ndarray]
  file: Path


def find_references(path: Path, *, task: str | None = None, split: str | None = None) -> dict[str, Reference]:
  """Return the references by name, in a fixed order.

  Args:
    path: a MIDI file; a folder of MIDI files, with or without audio files of the same names; or a folder in the
      Slakh2100 layout, or one of its tracks. References of Slakh are the stems' MIDI files, since all_src.mid has
      wrong octaves and stems that are not in the mix. Hidden files are ignored.
    task: one of `catalogue.sources`, to read the folder as training does; None detects the layout.
    split: 'test', ...; None uses all splits.

  Raises:
    UserError: there are no references, or no such task or split.
  """
  if not path.exists():
    raise UserError(f'no such file or folder: {path}')
  if not path.is_dir() and not path.is_file():
    raise UserError(f'{path} is neither a file nor a folder; give a MIDI file or a folder')
  if task is not None:
    return _of_source(catalogue.open_source(task, path.resolve()), split)
  if path.is_file():
    return {path.stem: _midi_reference(path, path.parent.iterdir())}
  if slakh_layout.is_dataset(path):
    return _slakh_references(path, split)
  folder = path
  if split is not None:
    folder = path / split
    if not folder.is_dir():
      raise UserError(f'{path} has no split {split!r}; expected a folder of that name in it')
  files = midi_files(folder)
  if not files:
    raise UserError(f'{folder} has no MIDI files and no Slakh tracks; give a folder with references')
  named = collections.defaultdict(list)
  for file in files_below(folder):
    named[file.with_suffix('')].append(file)
  return {name: _midi_reference(file, named[file.with_suffix('')]) for name, file in files.items()}


def _midi_reference(path: Path, siblings: Iterable[Path]) -> Reference:
  """Return the reference of a MIDI file, with the audio file of its name among files of the same folder."""
  from mrmt3.notes.midi import read_midi

  audios = {file.suffix.lower(): file for file in sorted(siblings) if file.stem == path.stem and file.is_file()}
  audio = next((audios[suffix] for suffix in AUDIO_SUFFIXES if suffix in audios), None)
  read_samples = audio and functools.partial(_read_audio, audio)
  return Reference(
    functools.partial(read_midi, path),
    read_samples,
    *(files_fingerprint(files, path.parent) for files in ([path], [audio] if audio else [])),
  )


def _slakh_references(folder, split):
  tracks = slakh_layout.find_tracks(folder, split)
  if split is None and slakh_layout.is_track(folder):
    return {tracks[0].name: _slakh_reference(tracks[0])}
  return {track.path.relative_to(folder).as_posix(): _slakh_reference(track) for track in tracks}


def _slakh_reference(track):
  read, published = (
    functools.partial(each, track) for each in (slakh_layout.read_notes, slakh_layout.read_published_notes)
  )
  states = (files_fingerprint(files, track.path) for files in (track.label_files(), track.mixes()))
  return Reference(read, functools.partial(_slakh_audio, track), *states, published)


def _slakh_audio(track, sample_rate):
  return _read_audio(track.audio_path, sample_rate)


def _read_audio(path, sample_rate):
  from mrmt3.audio import levels
  from mrmt3.audio.files import read_audio

  samples = read_audio(path, sample_rate)
  levels.check_peak(np.abs(samples).max(), str(path))
  return samples


def _of_source(source, split):
  splits = source.splits()
  if split is not None and split not in splits:
    raise UserError(f'{source} has no split {split!r}; choose from {", ".join(splits)}')
  references = {}
  for each in [split] if split else splits:
    state = f'{source} {source.fingerprint(each)}'
    for name in source.list_pieces(each):
      read, audio = (
        functools.partial(_source_notes, source, each, name),
        functools.partial(_source_audio, source, each, name),
      )
      published = (
        functools.partial(source.read_published_notes, each, name) if hasattr(source, 'read_published_notes') else None
      )
      references[name if split else f'{each}/{name}'] = Reference(read, audio, state, state, published)
  return references


def _source_notes(source, split, name):
  # Read the notes alone if possible, so that broken audio does not matter.
  return (
    source.read_notes(split, name) if hasattr(source, 'read_notes') else source.read_piece(split, name, 16000).notes
  )


def _source_audio(source, split, name, sample_rate):
  return source.read_piece(split, name, sample_rate).samples


def find_estimates(path: Path, model: Path | None = None) -> dict[str, Estimate]:
  """Return the transcriptions at a path by name.

  Args:
    path: a MIDI file, a folder of MIDI files, or a .jsonl file of predictions.
    model: the checkpoint that made the predictions, see `predictions.read`.

  Raises:
    UserError: there is no such path, or nothing that can be read.
  """
  if not path.exists():
    raise UserError(f'no such file or folder: {path}')
  if path.is_dir():
    from mrmt3.notes.midi import read_midi

    return {name: Estimate(functools.partial(read_midi, file), file) for name, file in midi_files(path).items()}
  if not path.is_file():
    raise UserError(f'{path} is neither a file nor a folder; give a MIDI file, a folder or a .jsonl file')
  if '.jsonl' in path.name:
    from mrmt3.evaluation import predictions

    return {name: Estimate(read, path) for name, read in predictions.read(path, model).items()}
  from mrmt3.notes.midi import read_midi

  return {path.stem: Estimate(functools.partial(read_midi, path), path)}


def midi_files(folder: Path) -> dict[str, Path]:
  """Return {relative path without suffix: path} of the MIDI files below a folder that are not hidden, sorted.

  Names are in Unicode's composed form, whichever the file system uses.

  Raises:
    UserError: two files differ only in their suffix, or in the form of their characters.
  """
  # A link to a file that is not there is an error of its own when it is read.
  paths = [
    path
    for path in files_below(folder)
    if path.suffix.lower() in MIDI_SUFFIXES and (path.is_file() or not path.exists())
  ]
  named = {normal_form(path.relative_to(folder).with_suffix('').as_posix()): path for path in paths}
  duplicates = [path for path in paths if path not in named.values()]
  if duplicates:
    raise UserError(
      f'{duplicates[0]} differs from another MIDI file only in its suffix or its accents; remove or rename one of them'
    )
  return named


def match(
  references: Mapping[str, Reference], estimates: Mapping[str, Estimate], where: Path
) -> dict[str, Estimate | None]:
  """Match transcriptions to references by name.

  Names match as a whole, or else by their last part (TrackNNNNN). Transcriptions left over match without a suffix that
  all of them share, such as _basic_pitch. A single MIDI file always matches a single reference. Transcriptions
  without a reference are listed on stderr.

  Args:
    references: references by name.
    estimates: transcriptions by name.
    where: path of the transcriptions.

  Returns:
    {reference: its transcription or None}.

  Raises:
    UserError: nothing matches.
  """
  if len(references) == len(estimates) == 1 and where.is_file() and where.suffix.lower() in MIDI_SUFFIXES:
    return dict(zip(references, estimates.values(), strict=True))
  estimates = {normal_form(name): estimate for name, estimate in estimates.items()}
  # Only last parts that are unique on both sides can be matched; a mix.mid in every folder cannot.
  by_name = _unique_names(estimates)
  own_names = _unique_names(references).keys() & by_name.keys()
  matched = {}
  for name in references:
    last = Path(name).name
    matched[name] = estimates.get(name) or (estimates[by_name[last]] if last in own_names else None)
  matched |= _match_endings([name for name, found in matched.items() if not found], estimates, matched.values())
  used = {id(estimate) for estimate in matched.values() if estimate}
  if not used:
    raise UserError(
      f'{where} has no file named as a piece of the reference; name the files as the pieces, '
      f'such as {next(iter(references))}.mid'
    )
  for name, estimate in estimates.items():
    if id(estimate) not in used:
      which = estimate.file if estimate.file != where else f'{name} in {where}'
      which = console.printable(which)
      print(f'mrmt3: warning: {which} is ignored: no reference of that name', file=sys.stderr)
  return matched


def _match_endings(references, estimates, taken):
  """Return {reference: estimate} if all unmatched estimates are named as references plus one common ending."""
  taken = {id(estimate) for estimate in taken if estimate}
  free = {name: estimate for name, estimate in _unique_names(estimates).items() if id(estimates[estimate]) not in taken}
  own = _unique_names(references)
  endings = {name[len(last) :] for name in free for last in own if name.startswith(last)}
  for ending in sorted(endings, key=len, reverse=True):
    # An ending that begins with a letter or digit would be part of the name: song1 is not a transcription of song.
    if ending and not ending[0].isalnum() and all(name.endswith(ending) for name in free):
      return {
        own[name.removesuffix(ending)]: estimates[free[name]] for name in free if name.removesuffix(ending) in own
      }
  return {}


def _unique_names(names):
  """Return {last part: name} of the relative paths whose last part occurs once."""
  counts = collections.Counter(Path(name).name for name in names)
  return {Path(name).name: name for name in names if counts[Path(name).name] == 1}
