"""Selection of instruments by name, and restriction of the decoder and its notes to them.

A selection is a comma-separated list of General MIDI families (piano, guitar, bass, strings, ...), Slakh classes
(Electric Bass, Clean Electric Guitar, ...), General MIDI instruments (Trumpet), programs (56), ranges of programs
(56-63), and drums. Case, spaces and hyphens are ignored.
"""

import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from mrmt3.errors import UserError
from mrmt3.event_codec import Codec
from mrmt3.notes.instruments import CLASS_PROGRAMS, SLAKH_CLASSES, class_index, slakh_class_program
from mrmt3.special_tokens import SPECIAL_TOKENS

# General MIDI's families of eight programs, under common names.
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


def _normalized(name):
  return re.sub(r'[\s_-]+', ' ', name).strip().lower()


@dataclasses.dataclass(frozen=True)
class InstrumentChoice:
  """The allowed instruments.

  Attributes:
    programs: allowed programs of pitched instruments.
    drums: whether drums are allowed.
    classes: programs of Slakh classes that stand for allowed programs. Models emit only the programs of classes, such
      as 73 for the Ocarina's 79.
  """

  programs: frozenset[int]
  drums: bool
  classes: frozenset[int] = frozenset()

  @classmethod
  def parse(cls, names: str | Iterable[str]) -> 'InstrumentChoice':
    """Parse a comma-separated string or an iterable of names; UserError for an unknown name, or for none."""
    names = names.split(',') if isinstance(names, str) else names
    programs, classes, drums, found = set(), set(), False, False
    for name in filter(None, map(_normalized, names)):
      found = True
      if name in DRUM_NAMES:
        drums = True
      else:
        named = set(_programs(name))
        programs |= named
        if named.isdisjoint(CLASS_PROGRAMS.tolist()):
          classes |= set(map(slakh_class_program, named))
    if not found:
      raise UserError('instruments: no name is given; give some, such as piano,bass,drums')
    return cls(frozenset(programs), drums, frozenset(classes - programs))

  def allowed_tokens(self, codec: Codec, vocab_size: int) -> np.ndarray:
    """Return bool `[vocab_size]`: the allowed token ids; all ids that are not a program, drum or pitch are allowed."""
    allowed = np.ones(vocab_size, bool)
    first, last = codec.event_type_range('program')
    allowed[first + SPECIAL_TOKENS : last + SPECIAL_TOKENS + 1] = np.isin(
      np.arange(last - first + 1), list(self.programs)
    )
    for event_type, is_allowed in (('drum', self.drums), ('pitch', bool(self.programs))):
      first, last = codec.event_type_range(event_type)
      allowed[first + SPECIAL_TOKENS : last + SPECIAL_TOKENS + 1] = is_allowed
    return allowed

  def allowed_programs(self, codec: Codec, vocab_size: int) -> np.ndarray | None:
    """Return bool `[vocab_size]`: all ids but those of forbidden programs; None if no program at all is allowed.

    The programs of `classes` are allowed too; `fit` replaces them by those that were asked for.
    """
    if not self.programs:
      return None
    programs = self.programs | self.classes
    allowed = np.ones(vocab_size, bool)
    first, last = codec.event_type_range('program')
    allowed[first + SPECIAL_TOKENS : last + SPECIAL_TOKENS + 1] = np.isin(np.arange(last - first + 1), list(programs))
    return allowed

  def fit(self, notes: np.ndarray) -> np.ndarray:
    """Return the notes of a note table that can be played by the allowed instruments, with allowed programs.

    Drum notes are left out if no drums are allowed, pitched notes if nothing else is. A pitched note of a forbidden
    program gets an allowed program of its Slakh class, or else the first allowed one.
    """
    notes = notes[np.where(notes['is_drum'], self.drums, bool(self.programs))].copy()
    programs = np.array(sorted(self.programs))
    for program in np.unique(notes['program'][~notes['is_drum']]):
      if program not in self.programs:
        alike = programs[class_index(programs) == class_index(program)]
        notes['program'][~notes['is_drum'] & (notes['program'] == program)] = (alike if len(alike) else programs)[0]
    return notes

  def keep(self, notes: np.ndarray) -> np.ndarray:
    """Return the allowed notes of a note table; notes before the first program token have program 0 (piano)."""
    pitched = np.isin(notes['program'], list(self.programs)) & ~notes['is_drum']
    return notes[pitched | (notes['is_drum'] & self.drums)]


def _programs(name: str) -> Iterable[int]:
  """Return the programs of a normalized name."""
  number = re.fullmatch(r'(\d+)(?: (\d+))?', name)
  if number:
    first, last = int(number[1]), int(number[2] or number[1])
    if first <= last <= 127:
      return range(first, last + 1)
    raise UserError(f'instruments: {name} is not a program or range; programs are 0 .. 127')
  if name in FAMILIES:
    return FAMILIES[name]
  for title, program in SLAKH_CLASSES.items():
    if _normalized(title) == name:
      return [p for p in range(128) if slakh_class_program(p) == program]
  import pretty_midi

  for program in range(128):
    if _normalized(pretty_midi.program_to_instrument_name(program)) == name:
      return [program]
  raise UserError(
    f'instruments: {name!r} is unknown; use {", ".join(FAMILIES)} or drums, a Slakh class, or a program 0 .. 127'
  )
