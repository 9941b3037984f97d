"""A study's report: study.md, a self-contained index.html, and one SVG file per figure."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mrmt3.plots import charts, html_page
from mrmt3.studies.results import slug
from mrmt3.studies.rows import Table
from mrmt3.utils import files

PAGE_NAME, MARKDOWN_NAME, FIGURES_FOLDER = 'index.html', 'study.md', 'figures'
DIFFERENCES = (
  'Paired differences per piece, with 95 % intervals and the p of a paired sign-flip test for each score separately'
)


class Figure(NamedTuple):
  """A chart: title, the <svg>, a note, and the names that its colours stand for."""

  title: str
  svg: str
  note: str = ''
  keys: Sequence[str] = ()


def strips(table: Table, score: str) -> Figure:
  """Returns a strip plot: one line per row of a table, one dot per piece."""
  systems = {row.name: [(piece, scores[score]) for piece, scores in sorted(row.pieces.items())] for row in table.rows}
  title = f'{table.scores[score]}, {table.title}'
  return Figure(title, charts.strips(systems, title), 'dots are pieces; ticks are means')


def curves(table: Table, scores: Sequence[str], axis: str) -> Figure:
  """Returns a chart with one curve per score (within 0..1) of a table whose rows are values of one quantity."""
  systems = {table.scores[score]: {row.name: row.mean(score) for row in table.rows} for score in scores}
  bins = [row.name for row in table.rows]
  return Figure(
    f'Scores by {axis}, {table.title}',
    charts.curves(systems, bins, axis, 'score'),
    'means over pieces',
    list(systems),
  )


def frontier(systems: Mapping[str, Sequence[tuple[str, float, float]]], note: str) -> Figure:
  """Returns a chart of instrument F1 over onset F1, given (name, onset F1, instrument F1) of each system's points."""
  return Figure('Notes against instruments', charts.frontier(systems, 'onset F1', 'instrument F1'), note, list(systems))


def markdown(tables: Sequence[Table]) -> str:
  """Returns the tables as Markdown."""
  parts = []
  for table in tables:
    parts += [f'## {table.title}', '', *([table.note, ''] if table.note else []), *_lines(table.grid()), '']
    if found := table.differences():
      parts += [f'{DIFFERENCES}:', '', *_lines(found), '']
  return '\n'.join(parts)


def _lines(grid):
  head, *lines = grid
  return [_line(head), '|'.join(['', *('---' for _ in head), '']), *map(_line, lines)]


def _line(cells):
  return '| ' + ' | '.join(cell.replace('|', '/') for cell in cells) + ' |'


def write(
  folder: Path, title: str, question: str, tables: Sequence[Table], figures: Sequence[Figure], remarks: Sequence[str]
) -> Path:
  """Writes the report and returns the path of its HTML page.

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
    temporary.write_text(text, encoding='utf-8')
  for figure in figures:
    with files.atomic_path(folder / FIGURES_FOLDER / f'{slug(figure.title)}.svg') as temporary:
      temporary.write_text(standalone(figure.svg), encoding='utf-8')
  page = folder / PAGE_NAME
  parts = [
    f'<h1>{html.escape(title)}</h1><p class="sub">{html.escape(question)}</p>',
    *(f'<p class="note">{html.escape(remark)}</p>' for remark in remarks),
    *map(_table, tables),
    '<h2>Figures</h2><div class="grid">',
    *map(html_figure, figures),
    '</div>',
  ]
  with files.atomic_path(page) as temporary:
    temporary.write_text(html_page.page(title, parts), encoding='utf-8')
  return page


def standalone(svg: str) -> str:
  """Returns an <svg> as a file of its own: with its namespace and the page's style sheet."""
  return svg.replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
    '>', f'><style>{html_page.STYLE}</style>', 1
  )


def html_figure(figure: Figure) -> str:
  """Returns a figure as a part of the page, with what its colours stand for."""
  keys = ''.join(
    f'<span class="key"><i class="{charts.system_class(number)}"></i>{html.escape(name)}</span>'
    for number, name in enumerate(figure.keys)
  )
  return html_page.figure(figure.title, f'{keys}{figure.svg}', figure.note)


def _table(table):
  text = f'<h2>{html.escape(table.title)}</h2><p class="note">{html.escape(table.note)}</p>{_html_grid(table.grid())}'
  found = table.differences()
  return text + (f'<p class="note">{DIFFERENCES}:</p>{_html_grid(found)}' if found else '')


def _html_grid(grid):
  head, *lines = grid
  rows = ''.join(f'<tr>{"".join(f"<td>{html.escape(cell)}</td>" for cell in line)}</tr>' for line in lines)
  cells = ''.join(f'<th>{html.escape(cell)}</th>' for cell in head)
  return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'
