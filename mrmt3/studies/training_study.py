"""Studies that train: every network of the study, one after the other, is trained, scored and reported."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mrmt3.evaluation import references as evaluation_references
from mrmt3.evaluation import score_pieces
from mrmt3.studies import catalogue, domains, report, starting_weights, training
from mrmt3.studies.catalogue import Cell, Study
from mrmt3.studies.options import Options, moments
from mrmt3.studies.references import references_of
from mrmt3.studies.results import Results, slug
from mrmt3.studies.rows import Row, Table, mean_over_seeds
from mrmt3.studies.scores import HEADLINE, SCORES, pieces_of
from mrmt3.utils import files

_IN_CURVES = ('onset_f1', 'onset_program_f1', 'leaked_note_ratio', 'instrument_detection_f1')  # shares
_MADE = ('cells/*/*/checkpoint_*', 'single', 'stems', 'both')  # what depends on the settings, besides results
BUILT_PIECES, BUILT_SECONDS = 60, 60.0  # of the data set that is made where none is given


class TrainingStudy:
  """A study that trains; arguments as `run`'s, `lock` is a descriptor that trainings inherit."""

  def __init__(self, name: str, study: Study, folder: Path, options: Options, lock: int):
    self._name, self._study, self._folder, self._options, self._lock = name, study, folder, options, lock
    self._steps = study.steps if options.steps is None else options.steps
    self._moments = moments(self._steps, options.moments or study.moments)
    made_by = {
      'study': name,
      'steps': self._steps,
      'moments': self._moments,
      'batch_size': options.batch_size,
      'base': options.base,
      'bindings': options.bindings,
      'data': str(options.data and options.data.resolve()),
      'split': options.split,
      'pieces': options.pieces,
      'single': str(options.single),
      'notes': str(options.notes),
      'init_from': options.init_from,
    }
    self._results = Results(folder, made_by)

  def run(self) -> Path:
    """Trains and scores what is missing; the report is written after every network, of those that are done."""
    self._results.begin(any(next(self._folder.glob(pattern), None) for pattern in _MADE))
    data = self._data()
    tests = {test: self.references(test, data) for test in self._study.tests}
    tested_on = {
      test: hashlib.sha1('\n'.join(sorted(references)).encode()).hexdigest() for test, references in tests.items()
    }
    done: list[Cell] = []
    found: dict[str, list[dict]] = {}
    for cell in self._study.cells:
      for seed in range(self._options.seeds):
        where = f'{cell.name}, seed {seed}' if self._options.seeds > 1 else cell.name
        print(f'{self._name}: {where}', file=sys.stderr, flush=True)
        found.setdefault(cell.name, []).append(
          self._results.get(
            f'{cell.name} {seed}',
            lambda cell=cell, seed=seed: self._measure(cell, seed, data, tests),
            flags=cell.flags(),
            trained_on=cell.data,
            seed=seed,
            scores=list(SCORES),
            tested_on=tested_on,
          )
        )
      done.append(cell)
      self._results.write_lines()
      page = self._write(done, found)
    return page

  def model_dir(self, cell: Cell, seed: int) -> Path:
    """Returns the folder in which a network is trained."""
    return self._folder / 'cells' / f'{slug(cell.name)}-{seed}' / 'model'

  def _data(self) -> Path:
    if self._options.data is not None:
      return self._options.data
    from mrmt3.dataset_builder import build

    build.build(self._folder / 'data', recipe='corpus', pieces=BUILT_PIECES, seconds=BUILT_SECONDS)
    return self._folder / 'data'

  def references(self, test: str, data: Path) -> dict[str, evaluation_references.Reference]:
    """Returns what a test consists of: the first `pieces` of it, but all of the notes that are rendered, which last as long as one piece."""
    options = self._options
    if test == catalogue.NOTES:
      return (
        references_of(options.notes, None, options.pieces)
        if options.notes
        else references_of(domains.write_notes(self._folder / 'notes'), None, None)
      )
    if test == catalogue.SINGLE:
      if options.single is not None:
        return references_of(
          options.single, options.split if (options.single / options.split).is_dir() else None, options.pieces
        )
      return references_of(
        domains.write_stems(data, self._folder / 'single', which=domains.ONE_STEM), options.split, options.pieces
      )
    return references_of(data, options.split, options.pieces)

  def _trained_on(self, cell: Cell, data: Path) -> Path:
    if cell.data == catalogue.STEMS:
      return domains.write_stems(data, self._folder / 'stems')
    if cell.data == catalogue.BOTH:
      return domains.write_stems(data, self._folder / 'both', which=domains.ONE_STEM, mixtures=True)
    return data

  def _flags(self, cell: Cell, seed: int, data: Path) -> list[str]:
    options, count = self._options, len(self._moments)
    flags = [
      *(f'--gin_file={file}' for file in options.base),
      *cell.flags(),
      *(f'--gin.{binding}' for binding in options.bindings),
    ]
    # One moment: saved now and then, to be taken up again; several: saved at each, which do for that too.
    period = min(500, self._steps) if count == 1 else self._moments[0]
    flags += [
      f'--gin.DATA_DIR={self._trained_on(cell, data)}',
      f'--gin.SEED={seed}',
      f'--gin.BATCH_SIZE={options.batch_size}',
    ]
    flags += [f'--gin.SAVE_PERIOD={period}', f'--gin.utils.SaveCheckpointConfig.keep={count}']
    start = self._start(cell, seed)
    if start is not None:
      flags += ['--gin_file=runs/continued.gin', f'--gin.INIT_FROM={start}']
    return flags

  def _start(self, cell: Cell, seed: int) -> Path | None:
    """Returns the folder of the weights that a network starts from, None for fresh ones."""
    source = self._options.init_from
    if cell.starts_from is not None:
      source = self.model_dir(next(other for other in self._study.cells if other.name == cell.starts_from), seed)
    if source is None:
      return None
    return starting_weights.write(Path(source), self.model_dir(cell, seed).with_name('start'), cell.l_agg, seed)

  def _measure(self, cell: Cell, seed: int, data: Path, tests: dict) -> dict:
    """Trains a network and scores it; returns {'cost': ..., 'scores': {step: {test: {piece: {score: value}}}}}."""
    model = self.model_dir(cell, seed)
    training.train(self._flags(cell, seed, data), files.make_folder(model), self._steps, [self._lock])
    scores = {}
    for step in self._moments:
      scores[str(step)] = {}
      for test, references in tests.items():
        output = model.parent / f'{slug(test)}-{step}'
        estimates = score_pieces.transcribe(
          references, str(model / f'checkpoint_{step}'), 'cell', output, 'predicted', None
        )
        summary = score_pieces.score('cell', references, estimates, output)
        scores[str(step)][test] = pieces_of(summary)
    return {'cost': training.cost(model, self._options.batch_size), 'scores': scores}

  def _write(self, done: Sequence[Cell], found: dict[str, list[dict]]) -> Path:
    last, tables, figures = str(self._steps), [], []
    for test in self._study.tests:
      rows = [
        Row(
          cell.name,
          mean_over_seeds([one['scores'][last][test] for one in found[cell.name]]),
          cell.against,
          cost_cells(found[cell.name]),
        )
        for cell in done
      ]
      tables.append(Table(test, SCORES, rows, tuple(SCORES)))
      figures.append(report.strips(tables[-1], HEADLINE))
      if self._study.axis and len(rows) > 1:
        figures.append(report.curves(tables[-1], _IN_CURVES, self._study.axis))
      if self._options.seeds > 1:
        seeds = [
          Row(f'{cell.name}, seed {seed}', one['scores'][last][test], f'{cell.name}, seed 0' if seed else None)
          for cell in done
          for seed, one in enumerate(found[cell.name])
        ]
        tables.append(
          Table(f'{test}, each seed', SCORES, seeds, tuple(SCORES), 'How much chance there is in a training.')
        )
    figures.append(self._frontier(done, found))
    options = self._options
    trained = options.data or f'{BUILT_PIECES} pieces of {BUILT_SECONDS:g} s of the recipe corpus'
    left = len(self._study.cells) - len(done)
    remarks = [
      f'{self._steps} steps of {options.batch_size} examples, {options.seeds} seed{"s" if options.seeds > 1 else ""}, on {trained}, '
      f'gin files {", ".join(options.base)}{"".join(f", {binding}" for binding in options.bindings)}'
      f'{f", from {options.init_from}" if options.init_from else ""}. Scores are means over pieces (and seeds), with 95 % bootstrap '
      'intervals over pieces; what chance did in training is not in them: it shows between seeds alone. Costs are as logged while it '
      'ran: whatever else ran on the machine is in them.',
      *([f'{left} networks are still to be trained.'] if left else []),
    ]
    return report.write(self._folder, self._name, self._study.question, tables, figures, remarks)

  def _frontier(self, done, found):
    systems = {}
    for cell in done:
      points = []
      for step in self._moments:
        pieces = mean_over_seeds([one['scores'][str(step)][self._study.tests[0]] for one in found[cell.name]])
        row = Row(cell.name, pieces)
        points.append((f'{cell.name}, step {step}', row.mean('onset_f1'), row.mean('instrument_detection_f1')))
      systems[cell.name] = points
    return report.frontier(systems, f'{self._study.tests[0]}; a curve is a training, from its first to its last moment')


def cost_cells(found: Sequence[dict]) -> dict[str, str]:
  """Returns what a network's training cost, as cells of a table: means over its seeds."""
  forms = {
    'step_seconds': ('step, ms', lambda x: f'{1000 * x:.0f}'),
    'tokens_per_second': ('tokens/s', lambda x: f'{x:.0f}'),
    'peak_megabytes': ('peak, MB', lambda x: f'{x:.0f}'),
    'train_loss': ('train loss', lambda x: f'{x:.3f}'),
  }
  cells = {}
  for key, (title, form) in forms.items():
    values = [one['cost'][key] for one in found if key in one['cost']]
    cells[title] = form(sum(values) / len(values)) if values else ''
  return cells
