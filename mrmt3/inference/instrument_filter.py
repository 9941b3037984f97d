"""Choosing instruments by name, and keeping the decoder to them.

A choice is written as names with commas: families of General MIDI (piano, guitar, bass, strings, ...), Slakh classes
(Electric Bass, Clean Electric Guitar, ...), General MIDI instruments (Trumpet), programs (56), ranges of programs (56-63), and
drums. Upper and lower case, spaces and hyphens make no difference.
"""

import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from mrmt3.errors import UserError
from mrmt3.event_codec import Codec
from mrmt3.notes.instruments import SLAKH_CLASSES, slakh_class_program
from mrmt3.special_tokens import SPECIAL_TOKENS

# General MIDI's families of eight, under the names that people say.
FAMILIES = {
  'piano': range(0, 8),
  'chromatic percussion': range(8, 16),
  'organ': range(16, 24),
  'guitar': range(24, 32),
  'bass': range(32, 40),
  'strings': range(40, 52),
  'voice': range(52, 55),
  'ensemble': range(48, 56),
  'brass': range(56, 64),
  'reed': range(64, 72),
  'sax': range(64, 68),
  'pipe': range(72, 80),
  'synth lead': range(80, 88),
  'synth pad': range(88, 96),
  'synth': range(80, 104),
  'winds': range(56, 80),
}
DRUM_NAMES = ('drums', 'drum')


def _plain(name):
  return re.sub(r'[\s_-]+', ' ', name).strip().lower()


@dataclasses.dataclass(frozen=True)
class InstrumentChoice:
  """The instruments that may be heard.

  Attributes:
    programs: of the pitched ones.
    drums: whether drums may.
  """

  programs: frozenset[int]
  drums: bool

  @classmethod
  def parse(cls, names: str | Iterable[str]) -> 'InstrumentChoice':
    """Reads names, with commas between them or one by one. UserError for one that is not known, or for none."""
    names = names.split(',') if isinstance(names, str) else names
    programs, drums, found = set(), False, False
    for name in filter(None, map(_plain, names)):
      found = True
      if name in DRUM_NAMES:
        drums = True
      else:
        programs |= set(_programs(name))
    if not found:
      raise UserError('instruments: no name given; name some, such as piano,bass,drums')
    return cls(frozenset(programs), drums)

  def allowed_tokens(self, codec: Codec, vocab_size: int) -> np.ndarray:
    """Returns bool `[vocab_size]`: the model ids that may be said; all that are no program, drum or pitch may."""
    allowed = np.ones(vocab_size, bool)
    first, last = codec.event_type_range('program')
    allowed[first + SPECIAL_TOKENS : last + SPECIAL_TOKENS + 1] = np.isin(
      np.arange(last - first + 1), list(self.programs)
    )
    for event_type, is_allowed in (('drum', self.drums), ('pitch', bool(self.programs))):
      first, last = codec.event_type_range(event_type)
      allowed[first + SPECIAL_TOKENS : last + SPECIAL_TOKENS + 1] = is_allowed
    return allowed

  def keep(self, notes: np.ndarray) -> np.ndarray:
    """Returns the notes of a table that belong to the choice: before the first program token, a note is a piano's."""
    pitched = np.isin(notes['program'], list(self.programs)) & ~notes['is_drum']
    return notes[pitched | (notes['is_drum'] & self.drums)]


def _programs(name: str) -> Iterable[int]:
  """Returns the programs of a plain name."""
  number = re.fullmatch(r'(\d+)(?: (\d+))?', name)
  if number:
    first, last = int(number[1]), int(number[2] or number[1])
    if first <= last <= 127:
      return range(first, last + 1)
    raise UserError(f'instruments: {name} are no programs; they are 0 .. 127')
  if name in FAMILIES:
    return FAMILIES[name]
  for title, program in SLAKH_CLASSES.items():
    if _plain(title) == name:
      return [p for p in range(128) if slakh_class_program(p) == program]
  import pretty_midi

  for program in range(128):
    if _plain(pretty_midi.program_to_instrument_name(program)) == name:
      return [program]
  raise UserError(
    f'instruments: {name!r} is not known; name {", ".join(FAMILIES)} or drums, a Slakh class, or a program 0 .. 127'
  )
