"""The pieces that a study tests on."""

from pathlib import Path

from mrmt3.data import slakh_layout
from mrmt3.errors import UserError
from mrmt3.evaluation import references as evaluation_references


def references_of(data: Path, split: str | None, pieces: int | None) -> dict[str, evaluation_references.Reference]:
  """Returns the references with audio of a folder: of its split, or all of them where it has no splits.

  UserError if there are none, or if it has other splits only.
  """
  has_split = split is not None and (data / split).is_dir()
  there = [name for name in slakh_layout.SPLITS if (data / name).is_dir()]
  if split is not None and there and not has_split:
    raise UserError(f'{data} has no split {split!r}, only {", ".join(there)}; give one of them as --split')
  found = evaluation_references.find_references(data, split=split if has_split else None)
  found = {name: reference for name, reference in found.items() if reference.audio is not None}
  if not found:
    raise UserError(f'{data} has no audio beside its MIDI files; a study needs both')
  return dict(list(found.items())[:pieces])
