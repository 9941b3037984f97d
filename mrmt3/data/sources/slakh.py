"""Pieces from a folder in the Slakh2100 layout (see `slakh_layout`): mixes or stems, and notes from the stems' MIDI."""

import dataclasses
from pathlib import Path

import numpy as np

from mrmt3.audio.files import read_audio
from mrmt3.data import slakh_layout
from mrmt3.data.piece_source import PieceContent
from mrmt3.errors import UserError
from mrmt3.notes.note_array import empty_notes, sort_order
from mrmt3.utils.fingerprints import files_below, files_fingerprint


@dataclasses.dataclass(frozen=True)
class SlakhFolder:
  """A data set in the Slakh2100 layout as a `piece_source.PieceSource`.

  Programs are Slakh classes, 0 for drums. Sustain is applied, pitch bends are ignored. Stems that were not rendered,
  are silent or have no MIDI file are left out, as in MT3.

  Attributes:
    data_dir: the folder that contains train, validation and test (any of them), or one with tracks and no splits, see
      `slakh_layout`. `omitted` is read only on request.
  """

  data_dir: str

  def splits(self) -> tuple[str, ...]:
    """Return the existing splits among train, validation, test and omitted; UserError if there are none."""
    root = Path(self.data_dir)
    if not root.is_dir():
      raise UserError(f'no data set at {root}: no such folder; check data_dir')
    found = tuple(slakh_layout.split_folders(root))
    if not found:
      raise UserError(
        f'no splits in {root}: expected folders named {", ".join(slakh_layout.SPLITS)}, or of tracks (Slakh2100 layout)'
      )
    return found

  def list_pieces(self, split: str) -> list[str]:
    """Return the tracks' names in order of their numbers, e.g. 'Track00001'; UserError if there are none."""
    return [track.name for track in slakh_layout.find_tracks(self.data_dir, split)]

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Read one track. With `stems`, its samples are the sum of the labelled stems, padded to the longest one.

    Raises:
      UserError: metadata, a stem's MIDI file or the audio is missing or broken; with `stems`, no stem is audible.
    """
    track = self._track(split, name)
    infos = slakh_layout.read_stems(track)
    if stems and not infos:
      raise UserError(f'{track.metadata_path} lists no audible stem with labels: replace or remove the track')
    read = [slakh_layout.read_stem_notes_counted(info) for info in infos]
    tables, lost = [table for table, _ in read], sum(count for _, count in read)
    notes = np.concatenate(tables) if tables else empty_notes()
    order = sort_order(notes)
    if not stems:
      unlabelled = slakh_layout.unlabelled_stems(track)
      samples = read_audio(track.audio_path, sample_rate, whole=True)
      return PieceContent(samples, notes[order], lost_notes=lost, unlabelled_stems=unlabelled)
    audio = _stack([read_audio(info.audio_path, sample_rate, whole=True) for info in infos])
    note_stem = np.repeat(np.arange(len(infos), dtype=np.int32), [len(table) for table in tables])
    return PieceContent(audio.sum(axis=0), notes[order], audio, note_stem[order], lost)

  def read_notes(self, split: str, name: str) -> np.ndarray:
    """Return the notes of a track; UserError if metadata or a stem's MIDI file is missing or broken."""
    return slakh_layout.read_notes(self._track(split, name))

  def read_published_notes(self, split: str, name: str) -> np.ndarray:
    """Return the notes of a track as in `slakh_layout.read_published_notes`."""
    return slakh_layout.read_published_notes(self._track(split, name))

  def _track(self, split, name):
    return slakh_layout.find_track(self.data_dir, split, name)

  def fingerprint(self, split: str) -> str:
    """Return a digest of the names, sizes and times of all files of the split's tracks."""
    root = slakh_layout.split_folder(Path(self.data_dir), split)
    files = [file for track in slakh_layout.find_tracks(self.data_dir, split) for file in files_below(track.path)]
    return files_fingerprint(files, root)


def _stack(rows: list[np.ndarray]) -> np.ndarray:
  """Return signals `[n]` of different lengths as float32 `[rows, longest]`."""
  stacked = np.zeros((len(rows), max(map(len, rows))), np.float32)
  for place, row in zip(stacked, rows, strict=True):
    place[: len(row)] = row
  return stacked
