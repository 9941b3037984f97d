"""Scores of a system's transcriptions of a set of pieces: the scores of each piece, and their summary."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from mrmt3.evaluation import breakdowns, confusion, metric_registry, statistics
from mrmt3.notes.note_array import empty_notes

MISSING = 'there is no transcription of it'


@dataclasses.dataclass(frozen=True)
class PieceResult:
  """A piece's scores.

  Attributes:
    name: name of the piece.
    scores: see `metric_registry.evaluate_piece`.
    confusion: see `confusion.instrument_confusion`, int64 `[36, 36]`.
    polyphony: see `breakdowns.polyphony_counts`, int64 `[levels, 3]`.
    problem: why there is no transcription, in which case the scores are those of an empty one; '' if there is one.
    odd_files: what was odd about its files, such as lost notes, a line for each file.
  """

  name: str
  scores: Mapping[str, float]
  confusion: np.ndarray
  polyphony: np.ndarray
  problem: str = ''
  odd_files: Sequence[str] = ()

  def to_dict(self) -> dict:
    """Return the result as a JSON object that `from_dict` reads exactly; of the matrix only nonzero entries."""
    places = np.argwhere(self.confusion)
    names = (*confusion.CLASS_NAMES, '')
    cells = [[names[row], names[column], int(self.confusion[row, column])] for row, column in places]
    return {
      'piece': self.name,
      'problem': self.problem,
      'odd_files': list(self.odd_files),
      'scores': dict(self.scores),
      'confusion': cells,
      'polyphony': self.polyphony.tolist(),
    }

  @classmethod
  def from_dict(cls, line: Mapping) -> 'PieceResult':
    """Inverse of `to_dict`; raises ValueError, KeyError or TypeError for anything else."""
    matrix = np.zeros((confusion.NOBODY + 1,) * 2, np.int64)
    places = {name: place for place, name in enumerate((*confusion.CLASS_NAMES, ''))}
    for row, column, count in line['confusion']:
      matrix[places[row], places[column]] = count
    polyphony = np.array(line['polyphony'], np.int64).reshape(len(breakdowns.POLYPHONY_LEVELS), 3)
    return cls(line['piece'], line['scores'], matrix, polyphony, line['problem'], line.get('odd_files', ()))


def score_piece(
  name: str,
  reference: np.ndarray,
  estimate: np.ndarray | None,
  *,
  published_reference: np.ndarray | None = None,
  problem: str = '',
  mt3_suite: bool = False,
) -> PieceResult:
  """Score a piece.

  Args:
    name: name of the piece.
    reference: note table.
    estimate: note table; None is a failed transcription, which counts as empty.
    published_reference: see `metric_registry.evaluate_piece`.
    problem: why the transcription failed.
    mt3_suite: see `metric_registry.evaluate_piece`.

  Raises:
    ValueError: a table cannot be scored; the message begins with the piece's name.
  """
  if estimate is None:
    estimate, problem = empty_notes(), problem or MISSING
  try:
    scores = metric_registry.evaluate_piece(
      reference, estimate, published_reference=published_reference, mt3_suite=mt3_suite
    )
    matrix, polyphony = (
      confusion.instrument_confusion(reference, estimate),
      breakdowns.polyphony_counts(reference, estimate),
    )
  except ValueError as error:
    raise ValueError(f'{name}: {error}') from error
  return PieceResult(name, scores, matrix, polyphony, problem)


@dataclasses.dataclass(frozen=True)
class Summary:
  """Summary of the results of a set of pieces.

  Attributes:
    pieces: the results, in order.
    unreadable: {piece: problem} of the pieces whose reference cannot be read. They are not in any score.

  Raises:
    ValueError: there are no pieces.
  """

  pieces: Sequence[PieceResult]
  unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not self.pieces:
      raise ValueError('there are no pieces to evaluate')

  @property
  def failed(self) -> dict[str, str]:
    """{piece: problem} of the pieces without a transcription, which count as empty."""
    return {piece.name: piece.problem for piece in self.pieces if piece.problem}

  @property
  def unreadable_estimates(self) -> dict[str, str]:
    """{piece: problem} of the pieces whose transcription exists but failed or cannot be read."""
    return {piece: problem for piece, problem in self.failed.items() if problem != MISSING}

  @property
  def odd_files(self) -> list[str]:
    """What was odd about the pieces' files, such as lost notes, a line for each file."""
    return list(dict.fromkeys(line for piece in self.pieces for line in piece.odd_files))

  @functools.cached_property
  def mean(self) -> dict[str, float]:
    """The mean of each score over pieces, for the scores that all pieces have."""
    shared = [name for name in self.pieces[0].scores if all(name in piece.scores for piece in self.pieces)]
    return {name: float(np.mean(self.values(name))) for name in shared}

  @functools.cached_property
  def confusion(self) -> np.ndarray:
    """The sum of the pieces' confusion matrices."""
    return np.sum([piece.confusion for piece in self.pieces], axis=0)

  @functools.cached_property
  def polyphony(self) -> np.ndarray:
    """The sum of the pieces' counts by polyphony."""
    return np.sum([piece.polyphony for piece in self.pieces], axis=0)

  def values(self, name: str) -> list[float]:
    """Return a score of each piece."""
    return [piece.scores[name] for piece in self.pieces]

  def interval(self, name: str) -> statistics.Interval:
    """Return the 95 % interval of a score's mean."""
    return statistics.bootstrap_interval(self.values(name))

  def by_instruments(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return mean scores by number of instruments, see `breakdowns.means_by_level`."""
    pairs = [(round(piece.scores['instruments_reference']), piece.scores) for piece in self.pieces]
    return breakdowns.means_by_level(pairs, names)

  def worst(self, name: str = 'onset_program_f1', most: int = 5) -> list[PieceResult]:
    """Return the pieces with the lowest score."""
    return sorted(self.pieces, key=lambda piece: piece.scores[name])[:most]

  def scalars(self) -> dict[str, float]:
    """Return all scalars for TensorBoard by name: means, 'class_f1/NAME', 'onset_f1_by_polyphony/BIN', ..."""
    result = {
      **self.mean,
      'failed_pieces': float(len(self.failed)),
      'macro_class_f1': confusion.macro_f1(self.confusion),
    }
    result |= {f'class_f1/{name}': scores.f1 for name, scores in confusion.class_scores(self.confusion).items()}
    levels = breakdowns.level_scores(self.polyphony)
    result |= {f'onset_f1_by_polyphony/{level}': scores.f1 for level, scores in levels.items()}
    for level, means in self.by_instruments(['onset_program_f1', 'leakage_ratio']).items():
      result |= {f'{name}_by_instruments/{level}': value for name, value in means.items() if name != 'pieces'}
    return result

  def as_json(self) -> dict:
    """Return the summary, without the single pieces, as a JSON object."""
    ends = {name: [None if np.isnan(end) else end for end in self.interval(name)] for name in self.mean}
    classes = {name: scores._asdict() for name, scores in confusion.class_scores(self.confusion).items()}
    levels = {name: scores._asdict() for name, scores in breakdowns.level_scores(self.polyphony).items()}
    return {
      'mean': self.mean,
      'interval_95': ends,
      'macro_class_f1': confusion.macro_f1(self.confusion),
      'classes': classes,
      'onset_by_polyphony': levels,
      'by_instruments': self.by_instruments([score.name for score in metric_registry.shown_in('log')]),
      'most_confused': confusion.most_confused(self.confusion),
      'counted_as_empty': self.failed,
      **({'unreadable_references': dict(self.unreadable)} if self.unreadable else {}),
      'odd_files': self.odd_files,
    }


def compare(first: Summary, second: Summary, names: Sequence[str]) -> dict[str, statistics.Comparison]:
  """Return {score: paired test} of two systems on the same pieces; ValueError if the pieces differ."""
  if [piece.name for piece in first.pieces] != [piece.name for piece in second.pieces]:
    raise ValueError(
      'the two summaries have different pieces; score both systems on the same pieces, in the same order'
    )
  return {name: statistics.paired_test(first.values(name), second.values(name)) for name in names}
