"""Builds a data set: plans which piece goes where, then makes the tracks one by one, several at a time.

`dataset.json` in the data set's folder keeps the settings and the plan. A later run with the same settings goes on
where an earlier one was stopped: a track's folder appears only when it is complete.
"""

import collections
import dataclasses
import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mrmt3.dataset_builder.layout import remove_folder
from mrmt3.dataset_builder.plan import make_plan
from mrmt3.dataset_builder.recipes import SPLITS
from mrmt3.dataset_builder.settings import Settings, prepare
from mrmt3.dataset_builder.track import TrackPlan, make_track
from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_path, make_folder
from mrmt3.utils.journal import FolderJournal, check_settings, read_settings
from mrmt3.utils.parallel import parallel, with_bar

PLAN_FILE = 'dataset.json'


@dataclasses.dataclass(frozen=True)
class BuildReport:
  """What `build` did.

  Attributes:
    made: tracks made now.
    kept: tracks that were there.
    splits: number of tracks in each split.
    left_out: a line for each piece of music that could not be used.
  """

  made: int
  kept: int
  splits: dict[str, int]
  left_out: tuple[str, ...] = ()


def build(
  out: str | os.PathLike,
  *,
  recipe: str | None = None,
  pieces: int | None = None,
  hours: float | None = None,
  seconds: float | None = None,
  seed: int = 0,
  takes: int = 1,
  drums: float | None = None,
  midi: Sequence[str | os.PathLike] = (),
  soundfonts: Sequence[str | os.PathLike] = (),
  held_out: Sequence[str | os.PathLike] = (),
  extras: bool = False,
  tracks_of: str | os.PathLike | None = None,
  split: str | None = None,
  workers: int | None = None,
  force: bool = False,
  progress: bool = True,
  say: Callable[[str], None] | None = None,
) -> BuildReport:
  """Builds a data set in Slakh2100's layout, or goes on with one that the same settings began.

  Args:
    out: the data set's folder.
    recipe: a name in recipes.RECIPES; None for 'midi' where `midi` is given, else 'demo'.
    pieces: number of tracks; None for the recipe's own.
    hours: of music altogether, instead of `pieces`.
    seconds: length of a track (for most recipes the most); None for the recipe's own.
    seed: same seed, same bytes (with the same versions of the packages), whatever `workers` is.
    takes: in how many arrangements a piece may be there.
    drums: share of the pieces without drums that get some; None for the recipe's own.
    midi: folders of MIDI files to add to the recipe's music.
    soundfonts: .sf2 or .sf3 files, one chosen for each stem; none for the one inside pretty_midi.
    held_out: soundfonts for the test split alone, of other families than `soundfonts`.
    extras: also write what MR-MT3's and MT3-style loaders read (see layout.write_track).
    tracks_of: another data set built here, whose tracks are made again, with these settings (with the same seed and seconds:
      the same notes; other soundfonts).
    split: with `tracks_of`: the tracks of this split only.
    workers: processes; None for one per processor.
    force: replace the tracks of a data set built here with other settings. Only TrackNNNNN folders in `train`,
      `validation` and `test` are removed; a data set that was not built here is left alone.
    progress: show a bar on stderr.
    say: called with a line for all that is missing or cannot be used; None to print it to stderr.

  Raises:
    UserError: settings that make no sense, no usable music, missing packages, or `out` cannot or must not be written.
  """
  say = say or _say
  workers = (os.cpu_count() or 1) if workers is None else workers
  _check_arguments(workers, pieces, hours, tracks_of, split)
  setup, lines = prepare(
    recipe,
    pieces=pieces,
    hours=hours,
    seconds=seconds,
    seed=seed,
    takes=takes,
    drums=drums,
    midi=midi,
    fonts=soundfonts,
    held_out=held_out,
    extras=extras,
  )
  for line in lines:
    say(line)
  out = make_folder(Path(out))
  if force:
    _check_is_ours(out)
  known = None if force else _known_plan(out, setup.settings)
  wanted = None if tracks_of is None else _plan_of(Path(tracks_of), split)
  if known is not None and wanted is not None and known[0] != wanted:
    raise UserError(f'{out} holds other tracks than {tracks_of}; choose another folder, or replace them with --force')
  if known is None:
    plan, left_out = make_plan(setup, workers, progress, say) if wanted is None else (wanted, [])
    _remove(out, 'Track[0-9]*')
    _write_plan(out, setup.settings, plan, left_out)
  else:
    plan, left_out = known
  _clear(out)

  todo = FolderJournal(out, lambda track: f'{track.split}/{track.name}').todo(plan)
  make = functools.partial(make_track, out=out, setup=setup)
  failed = []
  for track, reason in zip(
    todo, with_bar(parallel(make, todo, workers), len(todo), 'building', 'track', progress), strict=True
  ):
    if reason is not None:
      say(f'left out: {reason}')
      failed.append(track)
      left_out = [*left_out, reason]
  splits = collections.Counter(track.split for track in plan if track not in failed)
  if not splits:
    raise UserError(f'none of the {len(plan)} tracks could be made ({left_out[0]}); use other music or soundfonts')
  return BuildReport(
    made=len(todo) - len(failed),
    kept=len(plan) - len(todo),
    splits={split: splits[split] for split in SPLITS if splits[split]},
    left_out=tuple(left_out),
  )


def _check_arguments(workers, pieces, hours, tracks_of, split):
  """Raises UserError for arguments of `build` that make no sense together."""
  if workers < 1:
    raise UserError(f'{workers} workers cannot work; use 1 or more')
  if split is not None and tracks_of is None:
    raise UserError('a split can be chosen of the tracks of another data set only; name it with --tracks-of')
  if tracks_of is not None and (pieces is not None or hours is not None):
    raise UserError('which tracks are made is what --tracks-of says; leave --pieces and --hours out')


def _say(line):
  import tqdm

  tqdm.tqdm.write(f'mrmt3: {line}', file=sys.stderr)


def _known_plan(out: Path, settings: Settings) -> tuple[list[TrackPlan], list[str]] | None:
  """Returns the plan of the data set in `out` and what was left out of it, None if the folder is empty.

  UserError where it holds something else.
  """
  # A run that was killed may leave its half-written plan.
  if all(path.match(f'.{Path(PLAN_FILE).stem}.*') for path in out.iterdir()):
    return None
  if not (out / PLAN_FILE).exists():
    raise UserError(f'{out} holds something else; choose an empty folder')
  stored, plan, left_out = _read_plan(out / PLAN_FILE, 'choose another folder, or build anew with --force')
  mismatch = (
    f'{out} holds a data set with other settings ({{changed}}); choose another folder, or replace it with --force'
  )
  check_settings(stored, dataclasses.asdict(settings), mismatch)
  return plan, left_out


def _read_plan(path: Path, advice: str) -> tuple[dict, list[TrackPlan], list[str]]:
  """Returns settings, tracks and what was left out, as `_write_plan` wrote them. UserError, with advice, for anything else."""
  try:
    stored = read_settings(path, advice) or {}
    plan = [TrackPlan(**{**track, 'programs': tuple(track.get('programs', ()))}) for track in stored['tracks']]
    return stored['settings'], plan, [str(line) for line in stored.get('left_out', [])]
  except (KeyError, TypeError) as error:
    raise UserError(f'cannot read {path}; {advice}') from error


def _plan_of(other: Path, split: str | None) -> list[TrackPlan]:
  _, plan, _ = _read_plan(other / PLAN_FILE, 'name a data set that was built here')
  plan = [track for track in plan if split in (None, track.split)]
  if not plan:
    raise UserError(f'{other} has no tracks in the split {split}')
  return plan


def _check_is_ours(out: Path) -> None:
  """Raises UserError if `out` holds tracks that no build made: --force replaces data sets of ours only."""
  if not (out / PLAN_FILE).exists() and any((out / split).exists() for split in SPLITS):
    raise UserError(f'{out} holds a data set that was not built here, and is left alone; choose an empty folder')


def _remove(out: Path, pattern: str) -> None:
  """Removes the tracks that `pattern` names, each at once."""
  try:
    for split in SPLITS:
      for folder in (out / split).glob(pattern):
        remove_folder(folder)
  except OSError as error:
    raise UserError(f'cannot remove {folder}: {error.strerror or error}') from error


def _clear(out: Path) -> None:
  """Removes what a run that was killed had begun."""
  try:
    for path in out.glob(f'.{Path(PLAN_FILE).stem}.*'):
      path.unlink()
    for split in SPLITS:
      for path in (out / split).glob('.Track*'):
        shutil.rmtree(path)
  except OSError as error:
    raise UserError(f'cannot remove {path}: {error.strerror or error}') from error


def _write_plan(out, settings, plan, left_out):
  stored = {
    'settings': dataclasses.asdict(settings),
    'left_out': left_out,
    'tracks': [dataclasses.asdict(track) for track in plan],
  }
  with atomic_path(out / PLAN_FILE) as path:
    path.write_text(json.dumps(stored, indent=1) + '\n', encoding='utf-8', errors='surrogateescape')
