"""What is scored: references found in files, folders and data sets, and transcriptions of them by any system.

Readers are functions that can be sent to other processes; nothing is read before they are called.
"""

import collections
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrmt3.data import catalogue
from mrmt3.data.sources.audio_midi_folder import AUDIO_SUFFIXES, MIDI_SUFFIXES
from mrmt3.errors import UserError
from mrmt3.utils.fingerprints import files_fingerprint


class Reference(NamedTuple):
  """A piece as it should be.

  Attributes:
    read: returns its note table; UserError if it cannot be read.
    audio: sample rate -> float32 samples `[n]`; None where there is no audio.
    state: a text that is another when what `read` reads has changed (`sources.fingerprints`), as of when the piece was found.
    audio_state: the same of `audio`.
    read_published: the note table as MR-MT3's script counts instruments in it, where that is another: with raw programs.
  """

  read: Callable[[], np.ndarray]
  audio: Callable[[int], np.ndarray] | None = None
  state: str = ''
  audio_state: str = ''
  read_published: Callable[[], np.ndarray] | None = None


class Estimate(NamedTuple):
  """A transcription: how it is read, and of which file; `read` raises UserError for one that failed or is broken."""

  read: Callable[[], np.ndarray]
  file: Path


def find_references(path: Path, *, task: str | None = None, split: str | None = None) -> dict[str, Reference]:
  """Returns the references by name, in a fixed order.

  Args:
    path: a MIDI file; a folder of MIDI files, with or without audio files of the same names; or one in the Slakh2100
      layout, whose references are the stems' MIDI files: all_src.mid has wrong octaves and stems that are not in the mix.
    task: what else a folder is, one of `catalogue.sources`, read as training reads it; None finds out.
    split: 'test', ...; None takes all there are.

  Raises:
    UserError: nothing there, or no such task or split.
  """
  if not path.exists():
    raise UserError(f'no such file or folder: {path}')
  if not path.is_dir() and not path.is_file():
    raise UserError(f'{path} is neither a file nor a folder; save it as a MIDI file first')
  if task is not None:
    return _of_source(catalogue.open_source(task, path.resolve()), split)
  if path.is_file():
    return {path.stem: _midi_reference(path)}
  if any(path.glob('Track*/metadata.yaml')) or any(path.glob('*/Track*/metadata.yaml')):
    return _slakh_references(path, split)
  folder = path
  if split is not None:
    folder = path / split
    if not folder.is_dir():
      raise UserError(f'{path} has no split {split!r}: expected a folder of that name there')
  files = midi_files(folder)
  if not files:
    raise UserError(f'{folder} holds no MIDI files and no Slakh tracks to compare with')
  return {name: _midi_reference(file) for name, file in files.items()}


def _midi_reference(path):
  from mrmt3.notes.midi import read_midi

  audio = next((found for found in map(path.with_suffix, AUDIO_SUFFIXES) if found.is_file()), None)
  heard = audio and functools.partial(_read_audio, audio)
  return Reference(
    functools.partial(read_midi, path),
    heard,
    *(files_fingerprint(files, path.parent) for files in ([path], [audio] if audio else [])),
  )


def _slakh_references(folder, split):
  from mrmt3.data import slakh_layout

  return {
    track.path.relative_to(folder).as_posix(): _slakh_reference(track)
    for track in slakh_layout.find_tracks(folder, split)
  }


def _slakh_reference(track):
  from mrmt3.data import slakh_layout

  read, published = (
    functools.partial(each, track) for each in (slakh_layout.read_notes, slakh_layout.read_published_notes)
  )
  notes, audio = [track.path / 'metadata.yaml', *track.path.glob('*/*.mid')], track.path.glob('mix*')
  states = (files_fingerprint(files, track.path) for files in (notes, audio))
  return Reference(read, functools.partial(_slakh_audio, track), *states, published)


def _slakh_audio(track, sample_rate):
  return _read_audio(track.audio_path, sample_rate)


def _read_audio(path, sample_rate):
  from mrmt3.audio.files import read_audio

  return read_audio(path, sample_rate)


def _of_source(source, split):
  splits = source.splits()
  if split is not None and split not in splits:
    raise UserError(f'no split {split!r} there; there are {", ".join(splits)}')
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
  # Where notes are a file of their own, audio that is broken is not in their way.
  return (
    source.read_notes(split, name) if hasattr(source, 'read_notes') else source.read_piece(split, name, 16000).notes
  )


def _source_audio(source, split, name, sample_rate):
  return source.read_piece(split, name, sample_rate).samples


def find_estimates(path: Path, model: Path | None = None) -> dict[str, Estimate]:
  """Returns the transcriptions at a path by name: a MIDI file, a folder of them, or predictions saved as JSON lines.

  Of the latter, `model` is the checkpoint that made them, see `saved_predictions.read`. Raises UserError if there are none.
  """
  if not path.exists():
    raise UserError(f'no such file or folder: {path}')
  if path.is_dir():
    from mrmt3.notes.midi import read_midi

    return {name: Estimate(functools.partial(read_midi, file), file) for name, file in midi_files(path).items()}
  if not path.is_file():
    raise UserError(f'{path} is neither a file nor a folder; save it as a MIDI file first')
  if '.jsonl' in path.name:
    from mrmt3.evaluation import predictions

    return {name: Estimate(read, path) for name, read in predictions.read(path, model).items()}
  from mrmt3.notes.midi import read_midi

  return {path.stem: Estimate(functools.partial(read_midi, path), path)}


def midi_files(folder: Path) -> dict[str, Path]:
  """Returns {relative path without suffix: path} of the MIDI files in a folder and below, sorted; UserError for twins."""
  paths = sorted(path for path in folder.rglob('*') if path.suffix.lower() in MIDI_SUFFIXES and path.is_file())
  named = {path.relative_to(folder).with_suffix('').as_posix(): path for path in paths}
  twins = [path for path in paths if path not in named.values()]
  if twins:
    raise UserError(f'{twins[0]} has the same name as another MIDI file beside it; remove or rename one of them')
  return named


def match(
  references: Mapping[str, Reference], estimates: Mapping[str, Estimate], where: Path
) -> dict[str, Estimate | None]:
  """Returns {reference: its transcription or None}, matched by whole name or else by last part (TrackNNNNN).

  What is left over is matched once more with what transcribers append to names cut off, if all of it ends alike
  (TrackNNNNN_basic_pitch). Two MIDI files belong together whatever they are called. Transcriptions of nothing are named
  on stderr. Raises UserError if none has a partner; `where` is where they were found.
  """
  if len(references) == len(estimates) == 1 and where.is_file() and where.suffix.lower() in MIDI_SUFFIXES:
    return dict(zip(references, estimates.values(), strict=True))
  # Names that stand for one piece only on either side; a mix.mid in every folder tells nothing.
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
      f'nothing in {where} has the name of a piece in the reference (such as {next(iter(references))}.mid)'
    )
  for name, estimate in estimates.items():
    if id(estimate) not in used:
      which = estimate.file if estimate.file != where else f'{name} in {where}'
      print(f'mrmt3: warning: {which} is left out: no reference of that name', file=sys.stderr)
  return matched


def _match_endings(references, estimates, taken):
  """Returns {reference: estimate} where all estimates that nobody has are called as a reference with one common ending."""
  taken = {id(estimate) for estimate in taken if estimate}
  free = {name: estimate for name, estimate in _unique_names(estimates).items() if id(estimates[estimate]) not in taken}
  own = _unique_names(references)
  endings = {name[len(last) :] for name in free for last in own if name.startswith(last)}
  for ending in sorted(endings, key=len, reverse=True):
    # A letter or digit would go on the name: song1 is no transcription of song.
    if ending and not ending[0].isalnum() and all(name.endswith(ending) for name in free):
      return {
        own[name.removesuffix(ending)]: estimates[free[name]] for name in free if name.removesuffix(ending) in own
      }
  return {}


def _unique_names(names):
  """Returns {last part: name} of the relative paths whose last part occurs once."""
  counts = collections.Counter(Path(name).name for name in names)
  return {Path(name).name: name for name in names if counts[Path(name).name] == 1}
