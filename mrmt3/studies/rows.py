"""Tables of a study: rows of scores per piece, and paired differences between rows."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mrmt3.evaluation import statistics

Pieces = Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table.

  Attributes:
    name: name of the row.
    pieces: scores of each piece.
    baseline: name of the row of the same table that it is compared with, on the same pieces; None: no comparison.
    cells: additional cells, column -> text.
  """

  name: str
  pieces: Pieces
  baseline: str | None = None
  cells: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def values(self, score: str) -> list[float]:
    """Return a score of each piece, sorted by the pieces' names."""
    return [self.pieces[name][score] for name in sorted(self.pieces)]

  def mean(self, score: str) -> float:
    """Return the mean over pieces."""
    return float(np.mean(self.values(score)))

  def interval(self, score: str) -> statistics.Interval:
    """Return the 95 % bootstrap interval of the mean over pieces."""
    return statistics.bootstrap_interval(self.values(score))


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of rows and scores.

  Attributes:
    title: heading of the table.
    scores: score -> column heading.
    rows: at least one row.
    compared: scores that are compared with the baseline, with interval and p.
    note: text below the heading.
  """

  title: str
  scores: Mapping[str, str]
  rows: Sequence[Row]
  compared: Sequence[str] = ()
  note: str = ''

  def difference(self, row: Row, score: str) -> statistics.Comparison | None:
    """Return the paired difference of a row to its baseline; None if it has no baseline."""
    if row.baseline is None:
      return None
    others = {other.name: other for other in self.rows}
    return statistics.paired_test(others[row.baseline].values(score), row.values(score))

  def has_intervals(self) -> bool:
    """Return whether there are intervals and tests, which need more than one piece."""
    return any(len(row.pieces) > 1 for row in self.rows)

  def grid(self) -> list[list[str]]:
    """Return the table's cells as text, with a row of headings first."""
    columns = list(dict.fromkeys(name for row in self.rows for name in row.cells))
    lines = [['', *self.scores.values(), *columns]]
    for row in self.rows:
      cells = [_with_interval(row.mean(score), row.interval(score)) for score in self.scores]
      lines.append([row.name, *cells, *(row.cells.get(name, '') for name in columns)])
    return lines

  def differences(self) -> list[list[str]]:
    """Return the cells of a table of differences as text, with a row of headings first; [] if no row is compared."""
    rows = [row for row in self.rows if row.baseline is not None and self.compared]
    lines = [['', 'baseline', *(self.scores[score] for score in self.compared)]] if rows else []
    return lines + [
      [row.name, row.baseline, *(_difference_text(self.difference(row, score)) for score in self.compared)]
      for row in rows
    ]


def _difference_text(found):
  if np.isnan(found.low):  # a single piece
    return f'{found.difference:+.3f}'
  p_value = 'p < 0.001' if found.p_value < 0.001 else f'p = {found.p_value:.3f}'
  return f'{_with_interval(found.difference, (found.low, found.high), "+.3f")}, {p_value}'


def _with_interval(mean, ends, form='.3f'):
  low, high = ends
  return f'{mean:{form}}' if np.isnan(low) else f'{mean:{form}} ({low:{form}} to {high:{form}})'


def mean_over_seeds(found: Sequence[Pieces]) -> dict[str, dict[str, float]]:
  """Return the mean of each piece's scores over several trainings, which must have the same pieces and scores."""
  first = found[0]
  return {
    piece: {score: float(np.mean([pieces[piece][score] for pieces in found])) for score in scores}
    for piece, scores in first.items()
  }
