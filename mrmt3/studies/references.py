"""The test pieces of a study."""

from pathlib import Path

from mrmt3.data import slakh_layout
from mrmt3.errors import UserError
from mrmt3.evaluation import references as evaluation_references


def references_of(data: Path, split: str | None, pieces: int | None) -> dict[str, evaluation_references.Reference]:
  """Return a folder's references with audio: those of the split, or all of them if the folder has no splits.

  Args:
    data: the folder.
    split: name of the split; None: all references.
    pieces: maximum number of references; None: all.

  Raises:
    UserError: there are no references with audio, or the folder has splits, but not this one.
  """
  has_split = split is not None and (data / split).is_dir()
  existing = [name for name in slakh_layout.SPLITS if (data / name).is_dir()]
  if split is not None and existing and not has_split:
    raise UserError(f'{data} has no split {split!r}, only {", ".join(existing)}; choose one of them with --split')
  found = evaluation_references.find_references(data, split=split if has_split else None)
  found = {name: reference for name, reference in found.items() if reference.audio is not None}
  if not found:
    raise UserError(f'{data} has no audio files with the names of its MIDI files; a study needs both')
  return dict(list(found.items())[:pieces])
