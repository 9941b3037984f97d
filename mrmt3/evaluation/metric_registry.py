"""The scores of `mrmt3 evaluate`: which functions compute them, and how each is shown.

A new metric is a function in a file of its own and one line at the end of this one:

    register(my_file.my_metric, Score('my_metric', 'My metric', 'what it counts; 1 is right'))

It then is in the tables, the JSON files, the report, and what seqio logs; see docs/extending.md.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from mrmt3.evaluation import note_scores
from mrmt3.evaluation.note_scores import Piece

PLACES = ('table', 'comparison', 'log')
BETTER = ('higher', 'lower', 'near_one')


@dataclasses.dataclass(frozen=True)
class Score:
  """How a score is shown. The report has a row for every score, the JSON files have all numbers, shown or not.

  Attributes:
    name: the score's key in what its function returns.
    heading: in the report.
    description: a few words below the heading, which value is right among them.
    better: 'higher', 'lower', or 'near_one' for ratios that are too small as well as too large.
    column: heading in the terminal; '' is `heading`.
    shown_in: further places. 'table': the columns of a single system's table, and the report's cards and table of
      pieces. 'comparison': the rows of several systems' table. 'log': seqio's console log, and the JSON's scores by
      number of instruments.

  Raises:
    ValueError: `better` or a place is unknown.
  """

  name: str
  heading: str
  description: str
  better: str = 'higher'
  column: str = ''
  shown_in: tuple[str, ...] = PLACES

  def __post_init__(self):
    if self.better not in BETTER:
      raise ValueError(f'{self.name}: better must be one of {", ".join(BETTER)}, not {self.better!r}')
    if unknown := set(self.shown_in) - set(PLACES):
      raise ValueError(f'{self.name}: shown_in must be of {", ".join(PLACES)}, not {", ".join(sorted(unknown))}')


Function = Callable[[Piece], Mapping[str, float]]

# What `register` was given, in that order; the tables show the scores in it.
_FUNCTIONS: list[Function] = []
SCORES: dict[str, Score] = {}


def register(function: Function, *scores: Score) -> None:
  """Add a metric, behind those there are.

  Args:
    function: computes a piece's numbers, finite floats by name; names that no other function has.
    scores: how those of them are shown that are.

  Raises:
    ValueError: there is a score of that name already.
  """
  for score in scores:
    if score.name in SCORES:
      raise ValueError(f'there is a score {score.name} already')
  _FUNCTIONS.append(function)
  SCORES.update({score.name: score for score in scores})


def shown_in(place: str) -> list[Score]:
  """Return the scores that are shown in one of PLACES, in order."""
  return [score for score in SCORES.values() if place in score.shown_in]


def evaluate_piece(
  reference: np.ndarray, estimate: np.ndarray, *, published_reference: np.ndarray | None = None, mt3_suite: bool = False
) -> dict[str, float]:
  """Return all scores of a piece by name.

  ==============================================  ==========================================================
  name                                            meaning
  ==============================================  ==========================================================
  onset_*                                         `onset_scores` with drums (MR-MT3)
  onset_program_*                                 `program_scores`, onsets only (MR-MT3)
  onset_no_drums_*, onset_offset_no_drums_*       `onset_scores`, `onset_offset_scores` without drums (MT3)
  onset_offset_program_*                          `program_scores` with offsets (MT3)
  nondrum_onset_offset_program_*, drum_onset_*    its two parts (MT3)
  leakage_ratio, log_leakage_ratio                as the functions of that name (`leakage`)
  instrument_detection_*                          `instrument_detection`
  instruments_estimate, instruments_reference     numbers of instruments
  published_(the four above)                      the same with counting='published' (MR-MT3)
  leaked_note_ratio, track_switches_per_minute    as the functions of that name
  ==============================================  ==========================================================

  `*` is precision, recall or f1. Scores that know programs are of granularity midi_class; 'flat' and 'full' are added
  to the name of the others (onset_program_f1_full). Registered metrics follow.

  Args:
    reference: note table (`note_array.NOTE_DTYPE`).
    estimate: note table.
    published_reference: what the published_ scores are counted in, where `reference` is not as published: a Slakh
      track's with raw programs, see `slakh_layout.read_published_notes`.
    mt3_suite: add the rest of MT3's scores, all without drums: frame_*, onset_velocity_*, onset_offset_velocity_* (half
      a second for 3,000 notes) and the sweep, e.g. onset_f1_at_0.1s and onset_offset_f1_at_0.1s.

  Raises:
    ValueError: a table cannot be scored, or two metrics have a number of the same name.
  """
  piece = Piece(reference, estimate, reference if published_reference is None else published_reference)
  result: dict[str, float] = {}
  for function in [*_FUNCTIONS, *([note_scores.mt3_suite_metrics] if mt3_suite else [])]:
    numbers = function(piece)
    if twice := result.keys() & numbers.keys():
      raise ValueError(f'two metrics have numbers called {", ".join(sorted(twice))}')
    result |= numbers
  return result


register(
  note_scores.onset_metrics,
  Score('onset_f1', 'Onset F1', 'right pitch, begun within 50 ms', column='onset F1'),
)
register(
  note_scores.no_drums_metrics,
  Score(
    'onset_no_drums_f1',
    'Onset F1, no drums',
    'the same of pitched notes',
    column='onset F1, no drums',
    shown_in=('comparison',),
  ),
  Score(
    'onset_offset_no_drums_f1',
    'Onset + offset F1, no drums',
    'and ended in time',
    column='onset+offset F1, no drums',
    shown_in=('comparison',),
  ),
)
register(
  note_scores.onset_program_metrics,
  Score(
    'onset_program_f1',
    'Onset + program F1',
    'and on an instrument of the right family',
    column='onset+program F1',
  ),
  Score('onset_program_f1_full', 'Onset + program F1, full', 'and with the right program', shown_in=('log',)),
)
register(
  note_scores.mt3_program_metrics,
  Score('onset_offset_program_f1', 'Onset + offset + program F1', 'all of it', shown_in=('log',)),
)
register(
  note_scores.leakage_metrics,
  Score(
    'leakage_ratio',
    'Leakage ratio',
    'detected / reference instruments; 1 is right',
    better='near_one',
    column='leakage ratio',
  ),
  Score(
    'log_leakage_ratio',
    '|log leakage ratio|',
    'how far from right, either way; 0 is right',
    better='lower',
    shown_in=('comparison', 'log'),
  ),
)
register(
  note_scores.leaked_note_metrics,
  Score(
    'leaked_note_ratio',
    'Leaked notes',
    'share of notes right but for their instrument; 0 is right',
    better='lower',
    column='leaked notes',
    shown_in=('comparison', 'log'),
  ),
)
register(
  note_scores.track_switch_metrics,
  Score(
    'track_switches_per_minute',
    'Track switches per minute',
    'a line goes over to another instrument; 0 is right',
    better='lower',
    column='switches per minute',
    shown_in=('comparison', 'log'),
  ),
)
register(
  note_scores.instrument_detection_metrics,
  Score('instrument_detection_f1', 'Instrument F1', 'which instruments play', column='instrument F1'),
)
register(
  note_scores.published_instrument_metrics,
  Score(
    'published_leakage_ratio',
    'Leakage ratio, as published',
    'raw programs, drums among them',
    better='near_one',
    shown_in=('log',),
  ),
  Score(
    'published_instrument_detection_f1',
    'Instrument F1, as published',
    'raw programs, drums among them',
    shown_in=('log',),
  ),
)
