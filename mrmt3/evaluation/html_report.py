"""A report of scores as one HTML page that needs nothing else: no scripts, no fonts, no other files."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrmt3.errors import UserError
from mrmt3.evaluation import breakdowns, confusion, statistics
from mrmt3.evaluation.metric_registry import SCORES, shown_in
from mrmt3.evaluation.summary import Summary, compare
from mrmt3.notes.note_array import empty_notes
from mrmt3.plots import charts, html_page
from mrmt3.plots.html_page import Figure
from mrmt3.utils import console, files
from mrmt3.utils.warning_lines import collected_warnings

PAGE_NAME = 'index.html'
_WORST = 4  # pieces with a piano roll, for each system
_ROLL_SECONDS = 30.0
_ROLL_DPI = 90
_MOST_FAILED = 50


def write(
  folder: Path,
  summaries: Mapping[str, Summary],
  references: Mapping,
  systems: Mapping[str, Mapping],
  *,
  title: str,
) -> Path:
  """Write folder/index.html and return its path.

  Args:
    folder: made where it is missing.
    summaries: by system, on the same pieces; the others are compared with the first. Six have a colour of their own.
    references: `references.Reference` by piece, for the piano rolls.
    systems: by system and piece, `references.Estimate` or None.
    title: of the page.

  Raises:
    UserError: it cannot be written.
  """
  page = files.make_folder(folder) / PAGE_NAME
  text = render(summaries, references, systems, title)
  with files.atomic_path(page) as temporary:
    temporary.write_text(text, encoding='utf-8')
  return page


class Verdict(NamedTuple):
  """A p-value as text, and 'better' or 'worse' where it is unlikely to be chance, else ''."""

  text: str
  kind: str


class Cell(NamedTuple):
  """A score of a system: the mean over pieces and its interval ('' of a single piece) as text."""

  heading: str
  mean: str
  interval: str
  verdict: Verdict | None = None


class Row(NamedTuple):
  """A score of all systems."""

  heading: str
  description: str
  cells: list[Cell]


def render(summaries, references, systems, title: str) -> str:
  """Return the page; arguments as `write`'s."""
  return html_page.render(
    __package__,
    'report.html',
    title=title,
    count=len(next(iter(summaries.values())).pieces),
    systems=list(summaries),
    cards={name: [_cell(summary, score) for score in shown_in('table')] for name, summary in summaries.items()},
    failed={name: list(summary.failed.items()) for name, summary in summaries.items() if summary.failed},
    unreadable=list(next(iter(summaries.values())).unreadable.items()),
    most_failed=_MOST_FAILED,
    odd_files={name: summary.odd_files for name, summary in summaries.items() if summary.odd_files},
    scores=_score_rows(summaries),
    leakage=_leakage(summaries),
    notes=_f1(summaries),
    classes=_classes(summaries),
    confusions=_confusions(summaries),
    worst=_worst(summaries, references, systems),
    roll_seconds=f'{_ROLL_SECONDS:.0f}',
    pieces=_all_pieces(summaries),
  )


def _cell(summary, score, verdict=None):
  low, high = summary.interval(score.name)
  interval = '' if np.isnan(low) else f'{low:.3f} to {high:.3f}'
  return Cell(score.heading, f'{summary.mean[score.name]:.3f}', interval, verdict)


def _score_rows(summaries):
  base, *others = summaries.values()
  compared = [compare(base, other, list(SCORES)) for other in others]
  lines = []
  for score in SCORES.values():
    verdicts = [
      _verdict(score, base, other, tests[score.name]) if len(base.pieces) > 1 else None
      for other, tests in zip(others, compared, strict=True)
    ]
    cells = [
      _cell(summary, score, verdict) for summary, verdict in zip([base, *others], [None, *verdicts], strict=True)
    ]
    lines.append(Row(score.heading, score.description, cells))
  return lines


def _verdict(score, base, other, test):
  """Return the result of a paired test as text; of ratios, the system whose ratio is nearer to 1 is better."""
  if score.better == 'near_one':
    # 2/3 and 4/3 are as far away but for a rounding.
    distances = ([round(abs(value - 1), 9) for value in summary.values(score.name)] for summary in (base, other))
    test = statistics.paired_test(*distances)
  is_better = (test.difference > 0) == (score.better == 'higher')
  kind = ('better' if is_better else 'worse') if test.p_value < 0.05 else ''
  return Verdict('p < 0.001' if test.p_value < 0.001 else f'p = {test.p_value:.3f}', kind)


def _leakage(summaries):
  points = {
    name: [(p.name, p.scores['instruments_reference'], p.scores['instruments_estimate']) for p in summary.pieces]
    for name, summary in summaries.items()
  }
  leaked = {
    name: [(piece.name, piece.scores['leaked_note_ratio']) for piece in s.pieces] for name, s in summaries.items()
  }
  by_count = {name: _column(s.by_instruments(['leakage_ratio']), 'leakage_ratio') for name, s in summaries.items()}
  top = float(np.ceil(max(1.0, *(value for own in by_count.values() for value in own.values()))))
  bins = _bins(by_count, breakdowns.INSTRUMENT_LEVELS)
  by_instruments = charts.curves(by_count, bins, 'reference instruments', 'leakage ratio', top)
  strips = charts.strips(leaked, 'Share of leaked notes')
  return [
    Figure('Detected and reference instruments', charts.leakage_scatter(points), 'one dot per piece'),
    Figure('Leaked notes', strips, 'share of a piece’s notes; the tick is the mean'),
    Figure('Leakage ratio by number of instruments', by_instruments, '1 is right'),
  ]


def _f1(summaries):
  strips = {
    key: charts.strips(
      {n: [(piece.name, piece.scores[key]) for piece in s.pieces] for n, s in summaries.items()}, SCORES[key].heading
    )
    for key in ('onset_f1', 'onset_program_f1')
  }
  levels = {
    name: {level: x.f1 for level, x in breakdowns.level_scores(s.polyphony).items()} for name, s in summaries.items()
  }
  by_count = {
    name: _column(s.by_instruments(['onset_program_f1']), 'onset_program_f1') for name, s in summaries.items()
  }
  bins, counts = _bins(levels, breakdowns.POLYPHONY_LEVELS), _bins(by_count, breakdowns.INSTRUMENT_LEVELS)
  polyphony = charts.curves(levels, bins, 'notes that sound at once', 'onset F1')
  by_instruments = charts.curves(by_count, counts, 'reference instruments', 'onset + program F1')
  return [
    *(Figure(SCORES[key].heading, strip, 'one dot per piece; the tick is the mean') for key, strip in strips.items()),
    Figure('Onset F1 by polyphony', polyphony, 'pitched notes of all pieces together'),
    Figure('Onset + program F1 by number of instruments', by_instruments, 'means over pieces'),
  ]


def _column(table, name):
  return {level: row[name] for level, row in table.items()}


def _bins(systems, levels):
  return [name for name in breakdowns.level_names(levels) if any(name in own for own in systems.values())]


def _classes(summaries):
  scores = [confusion.class_scores(summary.confusion) for summary in summaries.values()]
  # Only classes of the reference: one that is detected but does not play has an F1 of 0 and is in the confusion.
  reference = next(iter(summaries.values())).confusion.sum(axis=1)
  names = [name for name, notes in zip(confusion.CLASS_NAMES, reference, strict=False) if notes]
  if not names:
    return None
  rows = {name: [own[name].f1 if name in own else None for own in scores] for name in names}
  means = {name: f'{confusion.macro_f1(summary.confusion):.3f}' for name, summary in summaries.items()}
  macro = ', '.join(f'{mean} ({name})' if len(means) > 1 else mean for name, mean in means.items())
  chart = charts.bars(rows, 'F1 of each instrument')
  note = f'onset, pitch and Slakh class right; notes of all pieces together. Mean over instruments: {macro}'
  return Figure('F1 of each instrument', chart, note)


def _confusions(summaries):
  figures = []
  for name, summary in summaries.items():
    matrix = summary.confusion
    rows = [i for i in range(confusion.NOBODY) if matrix[i].sum()]
    columns = [j for j in range(confusion.NOBODY) if matrix[:, j].sum()]
    if not rows:
      continue
    names = (*confusion.CLASS_NAMES, 'missed')
    shown = [*columns, confusion.NOBODY]
    counts = matrix[np.ix_(rows, shown)].tolist()
    labels = [names[i] for i in rows], [names[j] for j in shown]
    chart = charts.heat_map(counts, *labels, names[-1], 'Instrument confusion')
    invented = int(matrix[confusion.NOBODY].sum())
    note = f'percent of the notes of each row; {console.counted(invented, "detected note")} not in the reference'
    figures.append(Figure(f'Instrument confusion: {name}', chart, note))
  return figures


def _worst(summaries, references, systems):
  pieces = []
  for name, summary in summaries.items():
    for piece in summary.worst(most=_WORST):
      with collected_warnings():  # they are in the summary
        picture = _roll(references[piece.name], systems[name].get(piece.name))
      scores = ', '.join(f'{score.heading.lower()} {piece.scores[score.name]:.3f}' for score in shown_in('table'))
      pieces.append({'system': name, 'name': piece.name, 'scores': scores, 'picture': picture})
  return pieces


def _roll(reference, estimate) -> str:
  """Return a picture as base64, '' where the notes can no longer be read."""
  from mrmt3.plots import piano_roll

  try:
    notes = reference.read()
  except UserError:
    return ''
  try:
    estimated = estimate.read() if estimate else empty_notes()
  except UserError:
    estimated = empty_notes()
  end = float(max(notes['offset'].max(initial=0), estimated['offset'].max(initial=0), 1.0))
  figure = piano_roll.piano_roll(None, notes, estimated, seconds=min(end, _ROLL_SECONDS))
  file = io.BytesIO()
  figure.savefig(file, format='png', dpi=_ROLL_DPI)
  return base64.b64encode(file.getvalue()).decode()


def _all_pieces(summaries):
  shown = shown_in('table')
  lines = [
    (results[0].name, [f'{result.scores[score.name]:.3f}' for result in results for score in shown])
    for results in zip(*(summary.pieces for summary in summaries.values()), strict=True)
  ]
  return {'headings': [score.heading for score in shown], 'rows': lines}
