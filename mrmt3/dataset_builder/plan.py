"""Plans a data set: draws the music, splits it by work and tune, and balances the Slakh classes."""

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

_MIN_NOTES, _MIN_DENSITY = 48, 2.0  # a track needs the smaller of 48 notes and 2 notes per second
_STEERING = 3.0  # exponent of the preference for classes with little audio so far


def make_plan(
  setup: Setup, workers: int, progress: bool, log: Callable[[str], None]
) -> tuple[list[TrackPlan], list[str]]:
  """Plan the tracks of a data set.

  Returns:
    (the tracks, a line for each piece of music that cannot be used). The lines are also passed to `log`.

  Raises:
    UserError: there is not enough music.
  """
  recipe, settings = setup.recipe, setup.settings
  if recipe.works is not None:
    try:
      pairs = fixed_plan(recipe, settings.pieces)
    except ValueError as error:
      raise UserError(
        f'the recipe {settings.recipe} cannot give {settings.pieces} pieces ({error}); ask for fewer with --pieces'
      ) from error
    return [TrackPlan(split, _track_name(number), source) for number, (split, source) in enumerate(pairs, 1)], []
  rng = np.random.default_rng(settings.seed)
  sources = setup.library.sources()
  if settings.pieces < ALL and settings.pieces > len(sources) * settings.takes:
    raise UserError(
      f'there are {len(sources)} pieces of music, not {settings.pieces}; ask for fewer with --pieces,'
      ' or for more arrangements of each with --takes'
    )
  chosen, scores, left_out = _draw(setup, draw_order(sources, rng), workers, progress, log)
  split_of = _split(setup, scores, rng)
  order = sorted(chosen, key=lambda pair: SPLITS.index(split_of[pair[0]]))
  tracks = [
    TrackPlan(split_of[source], _track_name(number), source, take) for number, (source, take) in enumerate(order, 1)
  ]
  return steer(tracks, scores, setup), left_out


def _track_name(number):
  return f'Track{number:05d}'


def _draw(setup, order, workers, progress, log):
  """Return the (source, take) of all tracks, the scores of their sources, and lines about music that cannot be used."""
  settings = setup.settings
  usable, chosen, left_out = {}, [], []
  seconds = 0.0

  def is_enough():
    return seconds >= settings.hours * 3600 if settings.hours is not None else len(chosen) == settings.pieces

  with contextlib.closing(parallel(functools.partial(usable_score, setup=setup), order, workers)) as read:
    for source, (score, length, reason) in zip(order, with_bar(read, None, 'reading', 'score', progress), strict=False):
      if score is None:
        if reason:
          log(f'left out: {reason}')
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
    raise UserError(
      f'{len(usable)} of {len(order)} pieces can be used ({_first_reason(left_out)}); add more or other music'
    )
  if not is_enough() and settings.hours is not None:
    raise UserError(
      f'the usable music lasts {seconds / 3600:.2f} hours, not {settings.hours:g}; ask for fewer with --hours,'
      ' or for more arrangements of each piece with --takes'
    )
  if not is_enough() and settings.pieces < ALL:
    raise UserError(f'only {len(chosen)} pieces can be used; ask for fewer with --pieces, or for more --takes')
  return chosen, {source: score for source, (score, _) in usable.items()}, left_out


def _first_reason(lines):
  return lines[0] if lines else 'they have too few notes'


def usable_score(source: str, *, setup: Setup) -> tuple[Score | None, float, str]:
  """Return (score, track duration in s, ''), or (None, 0, reason); no reason for short corpus scores."""
  rng = track_rng(setup.settings.seed, source)
  try:
    score = setup.library.read(source)
  except UserError as error:
    return None, 0.0, str(error)
  part_score, tempo = fitted(score, setup, rng)
  is_users = source.startswith(MIDI)
  min_notes = min(_MIN_NOTES, round(_MIN_DENSITY * setup.settings.seconds))
  if part_score.num_notes < min_notes:
    reason = f'cannot use {source}: it has {part_score.num_notes} notes; at least {min_notes} are needed'
    return None, 0.0, reason if is_users else ''
  num_parts = len(arrange_for(part_score, setup, 'train', rng))
  if num_parts < setup.recipe.min_parts:
    reason = f'cannot use {source}: {num_parts} parts can be played; at least {setup.recipe.min_parts} are needed'
    return None, 0.0, reason if is_users else ''
  return score, track_seconds(part_score, tempo), ''


def _split(setup, scores, rng) -> dict[str, str]:
  """Return the split of each source; works and near-duplicates stay in one split."""
  from mrmt3.dataset_builder.sources import work_of

  names = list(scores)
  groups = group_scores(list(scores.values()), [work_of(source) for source in names])
  return dict(zip(names, split_groups(groups, setup.recipe.shares, rng), strict=True))


def steer(tracks: list[TrackPlan], scores: Mapping[str, Score], setup: Setup) -> list[TrackPlan]:
  """Choose the instruments of the tracks so that in each split all Slakh classes play for about equally long."""
  if not setup.recipe.vary:
    return tracks
  class_seconds = defaultdict(lambda: dict.fromkeys(SLAKH_CLASSES.values(), 0.0))
  steered = []
  for track in tracks:
    rng = track_rng(setup.settings.seed, track.source, track.take)
    score, tempo = fitted(scores[track.source], setup, rng)
    seconds = class_seconds[track.split]
    arranged = arrange_for(score, setup, track.split, rng, weights=class_weights(seconds))
    programs = [-1] * len(score.parts)
    for part in arranged:
      programs[part.index] = part.program
      seconds[slakh_class_program(part.program)] += track_seconds(score, tempo)
    steered.append(TrackPlan(track.split, track.name, track.source, track.take, tuple(programs)))
  return steered


def class_weights(seconds: Mapping[int, float]) -> dict[int, float]:
  """Return the weight of each class in the choice of instruments, given how long each has played (`seconds`)."""
  mean = sum(seconds.values()) / len(seconds) + 60.0
  return {program: (mean / (own + 0.1 * mean)) ** _STEERING for program, own in seconds.items()}
