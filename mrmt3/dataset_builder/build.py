"""Builds a data set: plans which piece becomes which track, then renders the tracks in parallel.

`dataset.json` in the data set's folder stores the settings and the plan. A run with the same settings resumes an
interrupted one: a track's folder appears only when it is complete.
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
  """Result of `build`.

  Attributes:
    made: number of tracks made by this call.
    kept: number of tracks that already existed.
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
  licence: str | None = None,
  tracks_of: str | os.PathLike | None = None,
  split: str | None = None,
  workers: int | None = None,
  force: bool = False,
  progress: bool = True,
  log: Callable[[str], None] | None = None,
) -> BuildReport:
  """Build a data set in Slakh2100's layout, or resume one that was begun with the same settings.

  Args:
    out: the data set's folder.
    recipe: a name in recipes.RECIPES; None for 'midi' if `midi` is given, else 'demo'.
    pieces: number of tracks; None for the recipe's default.
    hours: total duration of the audio, instead of `pieces`.
    seconds: duration of a track (for most recipes the maximum); None for the recipe's default.
    seed: determines the bytes written (with the same versions of the packages), for any number of `workers`.
    takes: number of arrangements of each piece.
    drums: fraction of the pieces without drums that get a drum part; None for the recipe's default.
    midi: folders of MIDI files to add to the recipe's music.
    soundfonts: .sf2 or .sf3 files, one of which is drawn for each stem; empty for pretty_midi's.
    held_out: soundfonts for the test split only, of other families than `soundfonts`.
    extras: also write the files that MR-MT3's and MT3-style loaders read (see layout.write_track).
    licence: 'permissive' for sounds and music that allow any use with at most attribution; None for all.
    tracks_of: another data set built here; its tracks are rendered again with these settings. With the same seed and
      seconds the notes are the same, with other soundfonts.
    split: with `tracks_of`, only the tracks of this split.
    workers: number of processes; None for one per processor.
    force: replace the tracks of a data set built here with other settings. Removes only TrackNNNNN folders in `train`,
      `validation` and `test`; a data set that was not built here is never changed.
    progress: show a progress bar on stderr.
    log: called with a line about everything that is missing or cannot be used; None prints it to stderr.

  Raises:
    UserError: the settings are invalid, no music is usable, packages are missing, or `out` cannot be written.
  """
  log = log or _log
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
    licence=licence,
  )
  for line in lines:
    log(line)
  out = make_folder(Path(out))
  if force:
    _check_built_here(out)
  known = None if force else _known_plan(out, setup.settings)
  requested = None if tracks_of is None else _plan_of(Path(tracks_of), split)
  if known is not None and requested is not None and known[0] != requested:
    raise UserError(f'{out} has other tracks than {tracks_of}; choose another folder, or replace them with --force')
  if known is None:
    plan, left_out = make_plan(setup, workers, progress, log) if requested is None else (requested, [])
    _remove(out, 'Track[0-9]*')
    _write_plan(out, setup.settings, plan, left_out)
  else:
    plan, left_out = known
  _remove_unfinished(out)

  todo = FolderJournal(out, lambda track: f'{track.split}/{track.name}').todo(plan)
  make = functools.partial(make_track, out=out, setup=setup)
  failed = []
  for track, reason in zip(
    todo, with_bar(parallel(make, todo, workers), len(todo), 'building', 'track', progress), strict=True
  ):
    if reason is not None:
      log(f'left out: {reason}')
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
  """Raise UserError for arguments of `build` that exclude each other or are out of range."""
  if workers < 1:
    raise UserError(f'cannot build with {workers} workers; use 1 or more')
  if split is not None and tracks_of is None:
    raise UserError('a split selects tracks of another data set; name that data set with --tracks-of')
  if tracks_of is not None and (pieces is not None or hours is not None):
    raise UserError('--tracks-of already determines the tracks; leave --pieces and --hours out')


def _log(line):
  import tqdm

  tqdm.tqdm.write(f'mrmt3: {line}', file=sys.stderr)


def _known_plan(out: Path, settings: Settings) -> tuple[list[TrackPlan], list[str]] | None:
  """Return the plan of the data set in `out` and the lines about music left out; None if the folder is empty.

  Raises UserError if it has other contents or another data set.
  """
  # A killed run may leave a partly written plan.
  if all(path.match(f'.{Path(PLAN_FILE).stem}.*') for path in out.iterdir()):
    return None
  if not (out / PLAN_FILE).exists():
    raise UserError(f'{out} is not empty and has no {PLAN_FILE}; choose an empty folder')
  stored, plan, left_out = _read_plan(out / PLAN_FILE, 'choose another folder, or rebuild it with --force')
  mismatch = (
    f'{out} has a data set with other settings ({{changed}}); choose another folder, or replace it with --force'
  )
  check_settings(stored, settings.as_stored(), mismatch)
  return plan, left_out


def _read_plan(path: Path, advice: str) -> tuple[dict, list[TrackPlan], list[str]]:
  """Read the settings, tracks and left-out lines of `_write_plan`; UserError ending in `advice` for anything else."""
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
    raise UserError(f'{other} has no tracks in the split {split}; choose another split')
  return plan


def _check_built_here(out: Path) -> None:
  """Raise UserError if `out` has tracks that `build` did not make; --force must not replace those."""
  if not (out / PLAN_FILE).exists() and any((out / split).exists() for split in SPLITS):
    raise UserError(
      f'{out} has a data set that was not built here, which --force does not replace; choose an empty folder'
    )


def _remove(out: Path, pattern: str) -> None:
  """Remove the track folders that match `pattern`, each atomically."""
  try:
    for split in SPLITS:
      for folder in (out / split).glob(pattern):
        remove_folder(folder)
  except OSError as error:
    raise UserError(f'cannot remove {folder}: {error.strerror or error}; remove it by hand') from error


def _remove_unfinished(out: Path) -> None:
  """Remove temporary files and folders that a killed run left."""
  try:
    for path in out.glob(f'.{Path(PLAN_FILE).stem}.*'):
      path.unlink()
    for split in SPLITS:
      for path in (out / split).glob('.Track*'):
        shutil.rmtree(path)
  except OSError as error:
    raise UserError(f'cannot remove {path}: {error.strerror or error}; remove it by hand') from error


def _write_plan(out, settings, plan, left_out):
  stored = {
    'settings': settings.as_stored(),
    'left_out': left_out,
    'tracks': [dataclasses.asdict(track) for track in plan],
  }
  with atomic_path(out / PLAN_FILE) as path:
    path.write_text(json.dumps(stored, indent=1) + '\n', encoding='utf-8', errors='surrogateescape')
