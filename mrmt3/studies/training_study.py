"""Studies that train: they train, score and report one network after the other."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.evaluation import references as evaluation_references
from mrmt3.evaluation import score_pieces
from mrmt3.studies import catalogue, domains, report, starting_weights, training
from mrmt3.studies.catalogue import Study, TrainingRun
from mrmt3.studies.options import Options, eval_steps
from mrmt3.studies.references import references_of
from mrmt3.studies.results import Results, slug
from mrmt3.studies.rows import Row, Table, mean_over_seeds
from mrmt3.studies.scores import HEADLINE, SCORES, pieces_of
from mrmt3.utils import files

_CURVE_SCORES = ('onset_f1', 'onset_program_f1', 'leaked_note_ratio', 'instrument_detection_f1')  # within 0..1
# Runs were once called cells, and eval points moments. Existing folders, files and settings keep these names.
_RUNS_FOLDER, _SYSTEM = 'cells', 'cell'
_ARTIFACTS = (f'{_RUNS_FOLDER}/*/*/checkpoint_*', 'single', 'stems', 'both')  # depend on the settings, as results do
BUILT_PIECES, BUILT_SECONDS = 60, 60.0  # size of the data set that is built if none is given


class TrainingStudy:
  """A study that trains networks.

  Args:
    name: name of the study.
    study: its declaration.
    folder: output folder.
    options: options of the study.
    lock: file descriptor that trainings inherit, see `results.alone`.
  """

  def __init__(self, name: str, study: Study, folder: Path, options: Options, lock: int):
    self._name, self._study, self._folder, self._options, self._lock = name, study, folder, options, lock
    self._steps = study.steps if options.steps is None else options.steps
    self._eval_steps = eval_steps(self._steps, options.eval_points or study.eval_points)
    made_by = {
      'study': name,
      'steps': self._steps,
      'moments': self._eval_steps,
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
    self._labels = {run.name: run.label for run in study.runs}

  def run(self) -> Path:
    """Train and score the missing networks, and return the path of the report, which is updated after each one."""
    self._results.begin(any(next(self._folder.glob(pattern), None) for pattern in _ARTIFACTS))
    data = self._data()
    tests = {test: self.references(test, data) for test in self._study.tests}
    tested_on = {
      test: hashlib.sha1('\n'.join(sorted(references)).encode()).hexdigest() for test, references in tests.items()
    }
    done: list[TrainingRun] = []
    found: dict[str, list[dict]] = {}
    for run in self._study.runs:
      for seed in range(self._options.seeds):
        where = f'{run.label}, seed {seed}' if self._options.seeds > 1 else run.label
        print(f'{self._name}: {where}', file=sys.stderr, flush=True)
        found.setdefault(run.name, []).append(
          self._results.get(
            f'{run.name} {seed}',
            lambda run=run, seed=seed: self._measure(run, seed, data, tests),
            flags=run.flags(),
            trained_on=run.data,
            seed=seed,
            scores=list(SCORES),
            tested_on=tested_on,
          )
        )
      done.append(run)
      self._results.write_lines()
      page = self._write(done, found)
    return page

  def model_dir(self, run: TrainingRun, seed: int) -> Path:
    """Return the model_dir of a training."""
    return self._folder / _RUNS_FOLDER / f'{slug(run.name)}-{seed}' / 'model'

  def _data(self) -> Path:
    if self._options.data is not None:
      return self._options.data
    from mrmt3.dataset_builder import build

    build.build(self._folder / 'data', recipe='corpus', pieces=BUILT_PIECES, seconds=BUILT_SECONDS)
    return self._folder / 'data'

  def references(self, test: str, data: Path) -> dict[str, evaluation_references.Reference]:
    """Return the first `pieces` references of a test. Rendered single notes, which are short, are used completely."""
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

  def _trained_on(self, run: TrainingRun, data: Path) -> Path:
    if run.data == catalogue.STEMS:
      return domains.write_stems(data, self._folder / 'stems')
    if run.data == catalogue.BOTH:
      return domains.write_stems(data, self._folder / 'both', which=domains.ONE_STEM, mixtures=True)
    return data

  def _flags(self, run: TrainingRun, seed: int, data: Path) -> list[str]:
    options, count = self._options, len(self._eval_steps)
    flags = [
      *(f'--gin_file={file}' for file in options.base),
      *run.flags(),
      *(f'--gin.{binding}' for binding in options.bindings),
    ]
    # With one evaluation point, save periodically so that training can resume. With several, those checkpoints suffice.
    period = min(500, self._steps) if count == 1 else self._eval_steps[0]
    flags += [
      f'--gin.DATA_DIR={self._trained_on(run, data)}',
      f'--gin.SEED={seed}',
      f'--gin.BATCH_SIZE={options.batch_size}',
    ]
    flags += [f'--gin.SAVE_PERIOD={period}', f'--gin.utils.SaveCheckpointConfig.keep={count}']
    start = self._start(run, seed)
    if start is not None:
      flags += ['--gin_file=runs/continued.gin', f'--gin.INIT_FROM={start}']
    return flags

  def _start(self, run: TrainingRun, seed: int) -> Path | None:
    """Return the folder of the weights that initialize a run, None for random weights."""
    source = self._options.init_from
    if run.starts_from is not None:
      source = self.model_dir(next(other for other in self._study.runs if other.name == run.starts_from), seed)
    if source is None:
      return None
    return starting_weights.write(Path(source), self.model_dir(run, seed).with_name('start'), run.l_agg, seed)

  def _measure(self, run: TrainingRun, seed: int, data: Path, tests: dict) -> dict:
    """Train a network and score it; return {'cost': ..., 'scores': {step: {test: {piece: {score: value}}}}}."""
    model = self.model_dir(run, seed)
    training.train(self._flags(run, seed, data), files.make_folder(model), self._steps, [self._lock])
    scores = {}
    for step in self._eval_steps:
      scores[str(step)] = {}
      for test, references in tests.items():
        output = model.parent / f'{slug(test)}-{step}'
        estimates = score_pieces.transcribe(
          references, str(model / f'checkpoint_{step}'), _SYSTEM, output, 'predicted', None
        )
        summary = score_pieces.score(_SYSTEM, references, estimates, output)
        if summary.unreadable:  # networks are compared on the same pieces
          piece, problem = next(iter(summary.unreadable.items()))
          raise UserError(f'the reference of {piece} in {test} cannot be read: {problem}')
        scores[str(step)][test] = pieces_of(summary)
    return {'cost': training.cost(model, self._options.batch_size), 'scores': scores}

  def _write(self, done: Sequence[TrainingRun], found: dict[str, list[dict]]) -> Path:
    last, tables, figures = str(self._steps), [], []
    for test in self._study.tests:
      rows = [
        Row(
          run.label,
          mean_over_seeds([one['scores'][last][test] for one in found[run.name]]),
          self._labels.get(run.baseline),
          cost_cells(found[run.name]),
        )
        for run in done
      ]
      tables.append(Table(test, SCORES, rows, tuple(SCORES)))
      figures.append(report.strips(tables[-1], HEADLINE))
      if self._study.axis and len(rows) > 1:
        figures.append(report.curves(tables[-1], _CURVE_SCORES, self._study.axis))
      if self._options.seeds > 1:
        seeds = [
          Row(f'{run.label}, seed {seed}', one['scores'][last][test], f'{run.label}, seed 0' if seed else None)
          for run in done
          for seed, one in enumerate(found[run.name])
        ]
        tables.append(Table(f'{test}, each seed', SCORES, seeds, tuple(SCORES), 'Variation between seeds.'))
    figures.append(self._frontier(done, found))
    options = self._options
    trained = options.data or f'{BUILT_PIECES} pieces of {BUILT_SECONDS:g} s of the recipe corpus'
    left = len(self._study.runs) - len(done)
    scores = 'Scores are of a single piece (means over seeds), without intervals. '
    if any(table.has_intervals() for table in tables):
      scores = (
        'Scores are means over pieces (and seeds), with 95 % bootstrap intervals over pieces. The intervals do not '
        'include the variation between trainings; compare seeds for that. '
      )
    remarks = [
      f'{self._steps} steps of {options.batch_size} examples, {options.seeds} seed{"s" if options.seeds > 1 else ""}, '
      f'on {trained}, gin files {", ".join(options.base)}{"".join(f", {binding}" for binding in options.bindings)}'
      f'{f", from {options.init_from}" if options.init_from else ""}. {scores}'
      'Costs come from the training logs and include the effect of other load on the machine.',
      *([f'{left} networks are still to be trained.'] if left else []),
    ]
    return report.write(self._folder, self._name, self._study.question, tables, figures, remarks)

  def _frontier(self, done, found):
    systems = {}
    for run in done:
      points = []
      for step in self._eval_steps:
        pieces = mean_over_seeds([one['scores'][str(step)][self._study.tests[0]] for one in found[run.name]])
        row = Row(run.label, pieces)
        points.append((f'{run.label}, step {step}', row.mean('onset_f1'), row.mean('instrument_detection_f1')))
      systems[run.label] = points
    note = f'{self._study.tests[0]}; one curve per training, from its first to its last evaluation'
    return report.frontier(systems, note)


def cost_cells(found: Sequence[dict]) -> dict[str, str]:
  """Return the training costs of a run as table cells, means over its seeds."""
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
