"""Builds a data set: plans which piece goes where, then makes the tracks one by one, several at a time.

`dataset.json` in the data set's folder keeps the settings and the plan. A later run with the same settings goes on
where an earlier one was stopped: a track's folder appears only when it is complete.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mrmt3.dataset_builder.arrange import arrange, perform
from mrmt3.dataset_builder.drums import play_drums
from mrmt3.dataset_builder.groups import group_scores, split_groups
from mrmt3.dataset_builder.layout import Stem, integrated_loudness, write_track
from mrmt3.dataset_builder.recipes import RECIPES, SPLITS, Recipe, draw_order, fixed_plan
from mrmt3.dataset_builder.render import Synth, default_soundfont, silent_share
from mrmt3.dataset_builder.score import Score
from mrmt3.dataset_builder.sources import list_music21, read_score, work_of
from mrmt3.dataset_builder.timing import TAIL_SECONDS, fit
from mrmt3.errors import UserError
from mrmt3.files import atomic_path, make_folder

SAMPLE_RATE = 16000
PLAN_FILE = 'dataset.json'
MIN_SECONDS, MAX_SECONDS = 4.0, 3600.0
_FORMAT = 1  # to be raised when the same settings give other bytes
_MIN_NOTES = 48
_MAX_SILENT = 0.02  # share of a stem's notes that may be inaudible before it gets another instrument


@dataclasses.dataclass(frozen=True)
class TrackPlan:
  """One track to be made: its split, its folder's name and the music it is made from."""

  split: str
  name: str
  source: str


@dataclasses.dataclass(frozen=True)
class Settings:
  """All that decides the bytes of a data set."""

  recipe: str
  pieces: int
  seconds: float
  seed: int
  soundfont: str
  soundfont_sha256: str
  sample_rate: int = SAMPLE_RATE
  format: int = _FORMAT


@dataclasses.dataclass(frozen=True)
class BuildReport:
  """What `build` did: tracks made now, tracks that were there, and the number in each split."""

  made: int
  kept: int
  splits: dict[str, int]


def build(
    out: str | os.PathLike,
    *,
    recipe: str = 'demo',
    pieces: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    soundfont: str | os.PathLike | None = None,
    force: bool = False,
    progress: bool = True,
) -> BuildReport:
  """Builds a data set in Slakh2100's layout, or goes on with one that the same settings began.

  Args:
    out: the data set's folder.
    recipe: a name in recipes.RECIPES.
    pieces: number of tracks; None for the recipe's own.
    seconds: length of each track; None for the recipe's own.
    seed: same seed, same bytes (with the same versions of the packages), whatever `workers` is.
    workers: processes; None for one per processor.
    soundfont: .sf2 or .sf3 file; None for the one inside pretty_midi.
    force: replace the tracks of a data set with other settings, or write into a folder of something else. Only
      `train`, `validation` and `test` folders' TrackNNNNN folders are removed.
    progress: show a bar on stderr.

  Raises:
    UserError: settings that make no sense, missing packages or files, or `out` cannot or must not be written.
  """
  chosen, settings, soundfont = _settings(recipe, pieces, seconds, seed, soundfont)
  out = Path(out)
  workers = (os.cpu_count() or 1) if workers is None else workers
  if workers < 1:
    raise UserError(f'{workers} workers cannot work; use 1 or more')
  make_folder(out)
  if force:
    _check_is_ours(out)
  plan = None if force else _known_plan(out, settings)
  if plan is None:
    plan = _make_plan(chosen, settings, workers, progress)
    _remove(out, 'Track[0-9]*')
    _write_plan(out, settings, plan)
  _remove(out, '.Track*')  # half-made by a run that was killed

  todo = [track for track in plan if not (out / track.split / track.name).is_dir()]
  make = functools.partial(make_track, out, settings=settings, soundfont=soundfont)
  for _ in _bar(_parallel(make, todo, workers), len(todo), 'building', 'track', progress):
    pass
  splits = collections.Counter(track.split for track in plan)
  return BuildReport(len(todo), len(plan) - len(todo), {split: splits[split] for split in SPLITS if splits[split]})


def make_track(out: Path, track: TrackPlan, *, settings: Settings, soundfont: Path) -> Path:
  """Makes one track of a data set and returns its folder; UserError where its music cannot be read or played."""
  recipe = RECIPES[settings.recipe]
  rng = _track_rng(settings.seed, track.source)
  score, tempo = _fitted(read_score(track.source), recipe, settings, rng)
  length = score.length * 60.0 / tempo + TAIL_SECONDS
  stems = _pitched_stems(score, tempo, length, recipe, _synth(soundfont), rng)
  if len(stems) < recipe.min_parts:
    raise UserError(
        f'{track.source} has only {len(stems)} parts that the soundfont {soundfont} can play, not {recipe.min_parts};'
        ' try another soundfont'
    )
  if rng.random() < recipe.drums:
    notes = play_drums(score, tempo, rng)
    audio = _synth(soundfont).render(notes, 0, True, length)
    stems.append(Stem(0, True, notes, audio, _synth(soundfont).name))
  return write_track(out / track.split / track.name, stems, sample_rate=settings.sample_rate, source=score.name)


def _pitched_stems(score, tempo, length, recipe, synth, rng):
  """Returns the pitched stems, arranged anew without the programs that turn out silent until all can be heard."""
  silent = set()
  while True:
    stems = []
    for part in arrange(score, rng, palette=recipe.palette, exclude=silent):
      notes = perform(part, score, tempo, rng)
      audio = synth.render(notes, part.program, False, length)
      stems.append(Stem(part.program, False, notes, audio, synth.name))
    unheard = {stem.program for stem in stems if not _is_heard(stem, synth.sample_rate)}
    if not unheard:
      return stems
    silent |= unheard


def _is_heard(stem, sample_rate):
  if integrated_loudness(stem.audio, sample_rate) is None:
    return False
  return silent_share(stem.audio, stem.notes, sample_rate) <= _MAX_SILENT


@functools.lru_cache(maxsize=1)
def _synth(soundfont):
  return Synth(soundfont, SAMPLE_RATE)


def _track_rng(seed, source):
  return np.random.default_rng([seed, zlib.crc32(source.encode())])


def _fitted(score, recipe, settings, rng):
  density = rng.uniform(*recipe.notes_per_second)
  score, tempo = fit(score, settings.seconds, density, fill=recipe.fill, rng=rng)
  return dataclasses.replace(score, parts=tuple(part for part in score.parts if len(part))), tempo


def _settings(name, pieces, seconds, seed, soundfont) -> tuple[Recipe, Settings, Path]:
  if name not in RECIPES:
    raise UserError(f'no such recipe: {name!r}; use one of {", ".join(RECIPES)}')
  recipe = RECIPES[name]
  pieces = recipe.pieces if pieces is None else pieces
  seconds = recipe.seconds if seconds is None else float(seconds)
  if not MIN_SECONDS <= seconds <= MAX_SECONDS:
    raise UserError(f'tracks of {seconds:g} s cannot be built; use {MIN_SECONDS:g} to {MAX_SECONDS:g} s')
  if seed < 0:
    raise UserError(f'the seed {seed} is negative; use 0 or more')
  if pieces < 2:
    raise UserError(f'a data set of {pieces} pieces has nothing to test on; use 2 or more')
  soundfont = default_soundfont() if soundfont is None else Path(soundfont)
  _synth(soundfont)  # says what is wrong with the file before anything is written
  with soundfont.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return recipe, Settings(name, pieces, seconds, seed, soundfont.name, digest), soundfont


def _known_plan(out: Path, settings: Settings) -> list[TrackPlan] | None:
  """Returns the plan of the data set in `out`, None if the folder is empty; UserError where it holds something else."""
  if not any(out.iterdir()):
    return None
  path = out / PLAN_FILE
  try:
    stored = json.loads(path.read_text(encoding='utf-8'))
    same = stored['settings'] == dataclasses.asdict(settings)
    plan = [TrackPlan(**track) for track in stored['tracks']]
  except FileNotFoundError:
    raise UserError(f'{out} holds something else; choose an empty folder') from None
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'cannot read {path}; choose another folder, or build anew with --force') from error
  if not same:
    raise UserError(f'{out} holds a data set with other settings; choose another folder, or replace it with --force')
  return plan


def _check_is_ours(out: Path) -> None:
  """Raises UserError if `out` holds tracks that no build made: --force replaces data sets of ours only."""
  if not (out / PLAN_FILE).exists() and any((out / split).exists() for split in SPLITS):
    raise UserError(f'{out} holds a data set that was not built here, and is left alone; choose an empty folder')


def _remove(out: Path, pattern: str) -> None:
  """Removes the folders of the splits that `pattern` names."""
  try:
    for split in SPLITS:
      for folder in (out / split).glob(pattern):
        shutil.rmtree(folder)
  except OSError as error:
    raise UserError(f'cannot remove {folder}: {error.strerror or error}') from error


def _make_plan(recipe: Recipe, settings: Settings, workers: int, progress: bool) -> list[TrackPlan]:
  if recipe.works is not None:
    try:
      pairs = fixed_plan(recipe, settings.pieces)
    except ValueError as error:
      raise UserError(f'the recipe {settings.recipe} cannot give {settings.pieces} pieces ({error})') from error
  else:
    pairs = _drawn_plan(recipe, settings, workers, progress)
  return [TrackPlan(split, f'Track{number:05d}', source) for number, (split, source) in enumerate(pairs, 1)]


def _drawn_plan(recipe, settings, workers, progress):
  """Returns (split, source) of pieces drawn from the corpus, those that cannot be read or played left out."""
  rng = np.random.default_rng(settings.seed)
  order = draw_order(list_music21(), rng)
  if settings.pieces > len(order):
    raise UserError(f"music21's corpus has {len(order)} pieces, not {settings.pieces}; ask for fewer with --pieces")
  scores = {}
  check = functools.partial(_playable_score, settings=settings)
  with contextlib.closing(_parallel(check, order, workers)) as read:
    for source, score in zip(order, _bar(read, None, 'reading', 'score', progress), strict=False):
      if score is not None:
        scores[source] = score
      if len(scores) == settings.pieces:
        break
  if len(scores) < settings.pieces:
    raise UserError(f'only {len(scores)} pieces of the corpus can be used; ask for fewer with --pieces')
  groups = group_scores(list(scores.values()), [work_of(source) for source in scores])
  splits = split_groups(groups, recipe.shares, rng)
  return sorted(zip(splits, scores, strict=True), key=lambda pair: SPLITS.index(pair[0]))


def _playable_score(source: str, *, settings: Settings) -> Score | None:
  """Returns the bars of a piece that a track would be made of, or None where they are too few notes or parts."""
  recipe = RECIPES[settings.recipe]
  rng = _track_rng(settings.seed, source)
  try:
    score = read_score(source)
  except UserError:  # a few files of the corpus are beyond music21
    return None
  fitted, _ = _fitted(score, recipe, settings, rng)
  if fitted.num_notes < _MIN_NOTES:
    return None
  return score if len(arrange(fitted, rng, palette=recipe.palette)) >= recipe.min_parts else None


def _write_plan(out, settings, plan):
  stored = {'settings': dataclasses.asdict(settings), 'tracks': [dataclasses.asdict(track) for track in plan]}
  with atomic_path(out / PLAN_FILE) as path:
    path.write_text(json.dumps(stored, indent=1) + '\n', encoding='utf-8')


def _parallel(function: Callable, items: Sequence, workers: int) -> Iterator:
  """Yields function(item) for all items in order, computed by `workers` processes not far ahead of what is taken.

  UserError where a process dies.
  """
  workers = min(workers, len(items))
  if workers <= 1:
    yield from map(function, items)
    return
  # Not forked: the caller may have threads running.
  pool = concurrent.futures.ProcessPoolExecutor(
      workers, mp_context=multiprocessing.get_context('spawn'), initializer=_leave_interrupts_to_the_caller
  )
  try:
    waiting, coming = collections.deque(), iter(items)
    while True:
      for item in itertools.islice(coming, 2 * workers - len(waiting)):
        waiting.append(pool.submit(function, item))
      if not waiting:
        return
      yield waiting.popleft().result()
  except concurrent.futures.process.BrokenProcessPool as error:
    raise UserError('a worker process died, perhaps for want of memory; try again with --workers 1') from error
  finally:
    pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_caller():
  signal.signal(signal.SIGINT, signal.SIG_IGN)


def _bar(iterable: Iterable, total: int | None, what: str, unit: str, progress: bool) -> Iterable:
  import tqdm

  return tqdm.tqdm(iterable, total=total, desc=what, unit=unit, disable=not progress)
