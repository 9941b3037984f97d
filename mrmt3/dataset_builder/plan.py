"""Decides which piece becomes which track: draws the music, splits it by work and tune, and steers the instruments."""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from mrmt3.dataset_builder.groups import group_scores, split_groups
from mrmt3.dataset_builder.recipes import SPLITS, draw_order, fixed_plan
from mrmt3.dataset_builder.score import Score
from mrmt3.dataset_builder.settings import ALL, Setup
from mrmt3.dataset_builder.sources import MIDI
from mrmt3.dataset_builder.track import TrackPlan, arrange_for, fitted, track_rng, track_seconds
from mrmt3.errors import UserError
from mrmt3.notes.instruments import SLAKH_CLASSES, slakh_class_program
from mrmt3.utils.parallel import parallel, with_bar

_MIN_NOTES, _MIN_DENSITY = 48, 2.0  # the lesser of so many notes and so many a second make a track
_STEERING = 3.0  # how strongly classes that have had little are preferred


def make_plan(
  setup: Setup, workers: int, progress: bool, say: Callable[[str], None]
) -> tuple[list[TrackPlan], list[str]]:
  """Returns the tracks of a data set, and a line for each piece of music that cannot be used, which is also said.

  UserError where there is not enough music.
  """
  recipe, settings = setup.recipe, setup.settings
  if recipe.works is not None:
    try:
      pairs = fixed_plan(recipe, settings.pieces)
    except ValueError as error:
      raise UserError(f'the recipe {settings.recipe} cannot give {settings.pieces} pieces ({error})') from error
    return [TrackPlan(split, _name(number), source) for number, (split, source) in enumerate(pairs, 1)], []
  rng = np.random.default_rng(settings.seed)
  sources = setup.library.sources()
  if settings.pieces < ALL and settings.pieces > len(sources) * settings.takes:
    raise UserError(
      f'there are {len(sources)} pieces of music, not {settings.pieces}; ask for fewer with --pieces,'
      ' or for more arrangements of each with --takes'
    )
  chosen, scores, left_out = _draw(setup, draw_order(sources, rng), workers, progress, say)
  split_of = _split(setup, scores, rng)
  order = sorted(chosen, key=lambda pair: SPLITS.index(split_of[pair[0]]))
  tracks = [TrackPlan(split_of[source], _name(number), source, take) for number, (source, take) in enumerate(order, 1)]
  return steer(tracks, scores, setup), left_out


def _name(number):
  return f'Track{number:05d}'


def _draw(setup, order, workers, progress, say):
  """Returns the (source, take) of all tracks, the scores of their sources, and lines about what cannot be used."""
  settings = setup.settings
  usable, chosen, left_out = {}, [], []
  seconds = 0.0

  def is_enough():
    return seconds >= settings.hours * 3600 if settings.hours is not None else len(chosen) == settings.pieces

  with contextlib.closing(parallel(functools.partial(usable_score, setup=setup), order, workers)) as read:
    for source, (score, length, reason) in zip(order, with_bar(read, None, 'reading', 'score', progress), strict=False):
      if score is None:
        if reason:
          say(f'left out: {reason}')
          left_out.append(reason)
        continue
      usable[source] = (score, length)
      chosen.append((source, 0))
      seconds += length
      if is_enough():
        break
  for take in range(1, settings.takes):
    for source, (_, length) in usable.items():
      if not is_enough():
        chosen.append((source, take))
        seconds += length
  if len(chosen) < 2:
    raise UserError(f'{len(usable)} of {len(order)} pieces can be used ({_first(left_out)}); give more or other music')
  if not is_enough() and settings.hours is not None:
    raise UserError(
      f'the music is enough for {seconds / 3600:.2f} hours, not {settings.hours:g}; ask for fewer with --hours,'
      ' or for more arrangements of each piece with --takes'
    )
  if not is_enough() and settings.pieces < ALL:
    raise UserError(f'only {len(chosen)} pieces can be used; ask for fewer with --pieces, or for more --takes')
  return chosen, {source: score for source, (score, _) in usable.items()}, left_out


def _first(lines):
  return lines[0] if lines else 'they have too few notes'


def usable_score(source: str, *, setup: Setup) -> tuple[Score | None, float, str]:
  """Returns a piece with the length of its track in s, or (None, 0, why not); nothing is said of short scores."""
  rng = track_rng(setup.settings.seed, source)
  try:
    score = setup.library.read(source)
  except UserError as error:
    return None, 0.0, str(error)
  part_score, tempo = fitted(score, setup, rng)
  own = source.startswith(MIDI)
  fewest = min(_MIN_NOTES, round(_MIN_DENSITY * setup.settings.seconds))
  if part_score.num_notes < fewest:
    return None, 0.0, f'cannot use {source}: it has {part_score.num_notes} notes, not {fewest}' if own else ''
  played = len(arrange_for(part_score, setup, 'train', rng))
  if played < setup.recipe.min_parts:
    return None, 0.0, f'cannot use {source}: {played} parts can be played, not {setup.recipe.min_parts}' if own else ''
  return score, track_seconds(part_score, tempo), ''


def _split(setup, scores, rng) -> dict[str, str]:
  """Returns the split of each source; whole groups of works and near-duplicates go to one split."""
  from mrmt3.dataset_builder.sources import work_of

  names = list(scores)
  groups = group_scores(list(scores.values()), [work_of(source) for source in names])
  return dict(zip(names, split_groups(groups, setup.recipe.shares, rng), strict=True))


def steer(tracks: list[TrackPlan], scores: Mapping[str, Score], setup: Setup) -> list[TrackPlan]:
  """Returns the tracks with instruments chosen so that in each split all Slakh classes sound for about as long."""
  if not setup.recipe.vary:
    return tracks
  seconds = defaultdict(lambda: dict.fromkeys(SLAKH_CLASSES.values(), 0.0))
  steered = []
  for track in tracks:
    rng = track_rng(setup.settings.seed, track.source, track.take)
    score, tempo = fitted(scores[track.source], setup, rng)
    own = seconds[track.split]
    arranged = arrange_for(score, setup, track.split, rng, weights=class_weights(own))
    programs = [-1] * len(score.parts)
    for part in arranged:
      programs[part.index] = part.program
      own[slakh_class_program(part.program)] += track_seconds(score, tempo)
    steered.append(TrackPlan(track.split, track.name, track.source, track.take, tuple(programs)))
  return steered


def class_weights(seconds: Mapping[int, float]) -> dict[int, float]:
  """Returns how much each class is wanted when they have sounded for `seconds` each."""
  mean = sum(seconds.values()) / len(seconds) + 60.0
  return {program: (mean / (own + 0.1 * mean)) ** _STEERING for program, own in seconds.items()}
