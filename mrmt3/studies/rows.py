"""What a study puts side by side: rows of scores by piece, and how they differ."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mrmt3.evaluation import statistics

Pieces = Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of a table.

  Attributes:
    name: of what was measured.
    pieces: scores by piece.
    against: name of the row of the same table that it is compared with, on the same pieces; None: none.
    cells: further cells, text by column.
  """

  name: str
  pieces: Pieces
  against: str | None = None
  cells: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def values(self, score: str) -> list[float]:
    """Returns a score of each piece, in the order of their names."""
    return [self.pieces[name][score] for name in sorted(self.pieces)]

  def mean(self, score: str) -> float:
    """Returns the mean over pieces."""
    return float(np.mean(self.values(score)))

  def interval(self, score: str) -> statistics.Interval:
    """Returns the 95 % bootstrap interval of the mean over pieces."""
    return statistics.bootstrap_interval(self.values(score))


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows with the scores that are shown of them.

  Attributes:
    title: heading.
    scores: name of a score -> its heading.
    rows: at least one.
    compared: those of the scores of which differences to another row, with interval and p, are shown.
    note: a sentence or two below the heading.
  """

  title: str
  scores: Mapping[str, str]
  rows: Sequence[Row]
  compared: Sequence[str] = ()
  note: str = ''

  def difference(self, row: Row, score: str) -> statistics.Comparison | None:
    """Returns how a row differs from the one it is compared with, on the pieces of both; None where it is with none."""
    others = {other.name: other for other in self.rows}
    return None if row.against is None else statistics.paired_test(others[row.against].values(score), row.values(score))

  def grid(self) -> list[list[str]]:
    """Returns the table's cells as text, the headings first."""
    further = list(dict.fromkeys(name for row in self.rows for name in row.cells))
    lines = [['', *self.scores.values(), *further]]
    for row in self.rows:
      cells = [_with_interval(row.mean(score), row.interval(score)) for score in self.scores]
      lines.append([row.name, *cells, *(row.cells.get(name, '') for name in further)])
    return lines

  def differences(self) -> list[list[str]]:
    """Returns the cells of a table of differences as text, the headings first; no lines if no row is compared."""
    rows = [row for row in self.rows if row.against is not None and self.compared]
    lines = [['', 'against', *(self.scores[score] for score in self.compared)]] if rows else []
    return lines + [
      [row.name, row.against, *(_difference_text(self.difference(row, score)) for score in self.compared)]
      for row in rows
    ]


def _difference_text(found):
  chance = 'p < 0.001' if found.p_value < 0.001 else f'p = {found.p_value:.3f}'
  return f'{_with_interval(found.difference, (found.low, found.high), "+.3f")}, {chance}'


def _with_interval(mean, ends, form='.3f'):
  low, high = ends
  return f'{mean:{form}}' if np.isnan(low) else f'{mean:{form}} ({low:{form}} to {high:{form}})'


def mean_over_seeds(found: Sequence[Pieces]) -> dict[str, dict[str, float]]:
  """Returns for each piece the mean of its scores in several runs, which must be of the same pieces and scores."""
  first = found[0]
  return {
    piece: {score: float(np.mean([pieces[piece][score] for pieces in found])) for score in scores}
    for piece, scores in first.items()
  }
