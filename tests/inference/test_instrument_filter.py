"""The choice of instruments: which tokens are allowed, and which programs notes get."""

import numpy as np

from mrmt3.inference.instrument_filter import InstrumentChoice
from mrmt3.notes.note_array import as_notes
from mrmt3.special_tokens import SPECIAL_TOKENS
from mrmt3.vocabularies import VocabularyConfig, build_codec

CODEC = build_codec(VocabularyConfig(num_velocity_bins=1))
NOTES = as_notes(
  [(0.0, 1.0, 60, 100, 73, False), (0.5, 0.6, 38, 100, 0, True), (1.0, 2.0, 62, 100, 0, False)],
)


def programs_of(names):
  """Return the programs whose tokens are allowed."""
  allowed = InstrumentChoice.parse(names).allowed_programs(CODEC, 1536)
  first, last = CODEC.event_type_range('program')
  others = np.delete(allowed, np.arange(first, last + 1) + SPECIAL_TOKENS)
  assert others.all()
  return np.flatnonzero(allowed[first + SPECIAL_TOKENS : last + SPECIAL_TOKENS + 1]).tolist()


def test_a_program_that_models_do_not_emit_allows_its_classs():
  assert programs_of('ocarina') == [73, 79]
  assert programs_of('trumpet,drums') == [56]
  assert programs_of('pipe') == list(range(72, 80))  # not the Clarinet's 71, to whose class the piccolo belongs
  assert InstrumentChoice.parse('drums').allowed_programs(CODEC, 1536) is None


def test_pitched_notes_get_an_allowed_program_and_what_cannot_be_played_is_left_out():
  fitted = InstrumentChoice.parse('ocarina,cello').fit(NOTES)
  assert fitted['program'].tolist() == [79, 42] and fitted['pitch'].tolist() == [60, 62]
  fitted = InstrumentChoice.parse('drums').fit(NOTES)
  assert fitted['pitch'].tolist() == [38] and fitted['is_drum'].all()
  fitted = InstrumentChoice.parse('piano,drums').fit(NOTES)
  assert fitted['program'].tolist() == [0, 0, 0] and len(fitted) == 3
  assert NOTES['program'].tolist() == [73, 0, 0]  # the argument is left as it is
