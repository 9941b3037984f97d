"""A study's report: study.md, a self-contained index.html, and one SVG file per figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mrmt3.plots import charts, html_page
from mrmt3.plots.html_page import Figure
from mrmt3.studies.results import slug
from mrmt3.studies.rows import Table
from mrmt3.utils import files

PAGE_NAME, MARKDOWN_NAME, FIGURES_FOLDER = 'index.html', 'study.md', 'figures'
_DIFFERENCES = (
  'Paired differences per piece, with 95 % intervals and the p of a paired sign-flip test for each score separately'
)
_DIFFERENCES_OF_ONE = 'Differences on a single piece'


def strips(table: Table, score: str) -> Figure:
  """Return a strip plot: one line per row of a table, one dot per piece."""
  systems = {row.name: [(piece, scores[score]) for piece, scores in sorted(row.pieces.items())] for row in table.rows}
  title = f'{table.scores[score]}, {table.title}'
  return Figure(title, charts.strips(systems, title), 'dots are pieces; ticks are means')


def curves(table: Table, scores: Sequence[str], axis: str) -> Figure:
  """Return a chart with one curve per score (within 0..1) of a table whose rows are values of one quantity."""
  systems = {table.scores[score]: {row.name: row.mean(score) for row in table.rows} for score in scores}
  bins = [row.name for row in table.rows]
  return Figure(
    f'Scores by {axis}, {table.title}',
    charts.curves(systems, bins, axis, 'score'),
    'means over pieces',
    tuple(systems),
  )


def frontier(systems: Mapping[str, Sequence[tuple[str, float, float]]], note: str) -> Figure:
  """Return a chart of instrument F1 over onset F1, given (name, onset F1, instrument F1) of each system's points."""
  chart = charts.frontier(systems, 'onset F1', 'instrument F1')
  return Figure('Instrument F1 vs. onset F1', chart, note, tuple(systems))


def markdown(tables: Sequence[Table]) -> str:
  """Return the tables as Markdown."""
  parts = []
  for table in tables:
    parts += [f'## {table.title}', '', *([table.note, ''] if table.note else []), *_lines(table.grid()), '']
    if found := table.differences():
      parts += [f'{differences_note(table)}:', '', *_lines(found), '']
  return '\n'.join(parts)


def differences_note(table: Table) -> str:
  """Return the caption of a table's differences."""
  return _DIFFERENCES if table.has_intervals() else _DIFFERENCES_OF_ONE


def _lines(grid):
  head, *lines = grid
  return [_line(head), '|'.join(['', *('---' for _ in head), '']), *map(_line, lines)]


def _line(cells):
  return '| ' + ' | '.join(cell.replace('|', '/') for cell in cells) + ' |'


def write(
  folder: Path, title: str, question: str, tables: Sequence[Table], figures: Sequence[Figure], remarks: Sequence[str]
) -> Path:
  """Write the report and return the path of its HTML page.

  Args:
    folder: the study's folder.
    title: name of the study.
    question: the question that it answers.
    tables: at least one table.
    figures: charts.
    remarks: sentences on the setup.

  Raises:
    UserError: the report cannot be written.
  """
  text = '\n\n'.join([f'# {title}', question, *remarks, markdown(tables)])
  with files.atomic_path(folder / MARKDOWN_NAME) as temporary:
    temporary.write_text(text, encoding='utf-8', errors='backslashreplace')
  for figure in figures:
    with files.atomic_path(folder / FIGURES_FOLDER / f'{slug(figure.title)}.svg') as temporary:
      temporary.write_text(charts.standalone(figure.svg, html_page.style()), encoding='utf-8')
  page = folder / PAGE_NAME
  values = {'title': title, 'question': question, 'remarks': remarks, 'tables': tables, 'figures': figures}
  text = html_page.render(__package__, 'study.html', **values, differences_note=differences_note)
  with files.atomic_path(page) as temporary:
    temporary.write_text(text, encoding='utf-8')
  return page
