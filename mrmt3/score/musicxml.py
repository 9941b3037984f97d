"""Sheets as MusicXML 4.0, with what readers do not work out themselves: accidentals, beams, ties and triplets."""

import xml.etree.ElementTree as ET

import numpy as np

from mrmt3.score import dynamics, percussion
from mrmt3.score.metres import beat_quarters
from mrmt3.score.notation import Part, Sheet
from mrmt3.score.quantize import UNITS
from mrmt3.score.rhythm import Metre, Symbol, beams, symbols, triplet_beats
from mrmt3.score.spelling import STEPS, spell
from mrmt3.score.voices import MAX_VOICES
from mrmt3.version import __version__

_HEADER = (
  '<?xml version="1.0" encoding="UTF-8"?>\n'
  '<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" '
  '"http://www.musicxml.org/dtds/partwise.dtd">\n'
)
_ACCIDENTALS = {-2: 'flat-flat', -1: 'flat', 0: 'natural', 1: 'sharp', 2: 'double-sharp'}
_OCTAVE_LOWER = frozenset([*range(24, 40), 43])  # guitars and basses sound an octave lower than written
_TEMPO_CHANGE = 0.2  # relative; smaller changes are not written
_CHANNELS = 16
_DRUM_CHANNEL = 10


def musicxml(sheet: Sheet) -> str:
  """Return a sheet as MusicXML text. All parts are at concert pitch."""
  root = ET.Element('score-partwise', version='4.0')
  if sheet.title:
    _child(_child(root, 'work'), 'work-title', sheet.title)
  encoding = _child(_child(root, 'identification'), 'encoding')
  _child(encoding, 'software', f'mrmt3 {__version__}')
  for element in ('accidental', 'beam'):
    ET.SubElement(encoding, 'supports', element=element, type='yes')
  part_list = _child(root, 'part-list')
  for number, part in enumerate(sheet.parts):
    _score_part(part_list, part, number)
  for number, part in enumerate(sheet.parts):
    _PartWriter(sheet, part, number).write(ET.SubElement(root, 'part', id=_part_id(number)))
  ET.indent(root, ' ')
  return _HEADER + ET.tostring(root, encoding='unicode') + '\n'


def _child(parent, tag, text=None, **attributes):
  element = ET.SubElement(parent, tag, {key.replace('_', '-'): str(value) for key, value in attributes.items()})
  if text is not None:
    element.text = str(text)
  return element


def _part_id(number):
  return f'P{number + 1}'


def _score_part(part_list, part, number):
  own = _child(part_list, 'score-part', id=_part_id(number))
  _child(own, 'part-name', part.name)
  channel = number % (_CHANNELS - 1) + 1
  channel += channel >= _DRUM_CHANNEL
  if part.is_drum:
    # Common sounds first: music21 reads the first one only, and does not know the rare ones.
    pitches = sorted(np.unique(part.table['pitch']).tolist(), key=lambda pitch: (pitch not in percussion.PLACES, pitch))
    for pitch in pitches:
      instrument = _child(own, 'score-instrument', id=_drum_id(number, pitch))
      _child(instrument, 'instrument-name', percussion.name(pitch))
    for pitch in pitches:
      midi = _child(own, 'midi-instrument', id=_drum_id(number, pitch))
      _child(midi, 'midi-channel', _DRUM_CHANNEL)
      _child(midi, 'midi-program', 1)
      _child(midi, 'midi-unpitched', pitch + 1)
    return
  instrument = _child(own, 'score-instrument', id=f'{_part_id(number)}-I1')
  _child(instrument, 'instrument-name', part.name)
  midi = _child(own, 'midi-instrument', id=f'{_part_id(number)}-I1')
  _child(midi, 'midi-channel', channel)
  _child(midi, 'midi-program', part.program + 1)


def _drum_id(number, pitch):
  return f'{_part_id(number)}-I{pitch + 1}'


class _PartWriter:
  """Writes the bars of one part."""

  def __init__(self, sheet: Sheet, part: Part, number: int):
    self._sheet, self._part, self._number = sheet, part, number
    key = sheet.key
    self._sharps, self._is_minor = (key.sharps, key.is_minor) if key is not None and not part.is_drum else (0, False)
    self._marks = {} if part.is_drum else dynamics.marks(part.table, sheet.bars)
    self._places = percussion.places(np.unique(part.table['pitch']).tolist()) if part.is_drum else {}
    self._tempo = None

  def write(self, element) -> None:
    """Add the measures to the part's element."""
    bars = self._sheet.bars
    signature = None
    for index, bar in enumerate(bars):
      is_pickup = index == 0 and self._sheet.has_pickup
      number = index if self._sheet.has_pickup else index + 1
      measure = _child(element, 'measure', number=number, **({'implicit': 'yes'} if is_pickup else {}))
      shown = (bars[1].numerator, bars[1].denominator) if is_pickup else (bar.numerator, bar.denominator)
      if index == 0 or shown != signature:
        self._attributes(measure, shown, is_first=index == 0)
        signature = shown
      if self._number == 0:
        self._tempo_mark(measure, bar)
      if index in self._marks:
        kind = _child(_child(measure, 'direction', placement='below'), 'direction-type')
        _child(_child(kind, 'dynamics'), self._marks[index])
      self._bar(measure, bar, is_pickup, shown)
      if index == len(bars) - 1:
        _child(_child(measure, 'barline', location='right'), 'bar-style', 'light-heavy')

  def _attributes(self, measure, signature, is_first):
    attributes = _child(measure, 'attributes')
    staves = len(self._part.staves)
    if is_first:
      _child(attributes, 'divisions', UNITS)
      if not self._part.is_drum:
        key = _child(attributes, 'key')
        _child(key, 'fifths', self._sharps)
        if self._sheet.key is not None:
          _child(key, 'mode', 'minor' if self._is_minor else 'major')
    time = _child(attributes, 'time')
    _child(time, 'beats', signature[0])
    _child(time, 'beat-type', signature[1])
    if not is_first:
      return
    if staves > 1:
      _child(attributes, 'staves', staves)
    for number in range(staves):
      clef = _child(attributes, 'clef', **({'number': number + 1} if staves > 1 else {}))
      sign, line, octave = self._clef(number)
      _child(clef, 'sign', sign)
      if line:
        _child(clef, 'line', line)
      if octave:
        _child(clef, 'clef-octave-change', octave)

  def _clef(self, staff):
    """Return (sign, line, octaves that it moves the notes)."""
    if self._part.is_drum:
      return 'percussion', 2, 0
    if len(self._part.staves) > 1:
      return ('G', 2, 0) if staff == 0 else ('F', 4, 0)
    octave = -1 if self._part.program in _OCTAVE_LOWER else 0
    middle = float(np.median(self._part.table['pitch'])) - 12 * octave
    if self._part.program == 41:
      return 'C', 3, 0
    return ('G', 2, octave) if middle >= 58 else ('F', 4, octave)

  def _tempo_mark(self, measure, bar):
    tempo = self._sheet.tempo
    begin, end = tempo.to_seconds([bar.start, bar.start + bar.length])
    quarters_per_minute = 60.0 * bar.length / (end - begin)
    if self._tempo is not None and abs(quarters_per_minute / self._tempo - 1) < _TEMPO_CHANGE:
      return
    if self._tempo is None:
      direction = _child(measure, 'direction', placement='above')
      metronome = _child(_child(direction, 'direction-type'), 'metronome')
      _child(metronome, 'beat-unit', 'quarter')
      if tempo.beat_quarters == 1.5:
        _child(metronome, 'beat-unit-dot')
      _child(metronome, 'per-minute', round(tempo.beats_per_minute))
      _child(direction, 'sound', tempo=f'{quarters_per_minute:.2f}')
    else:
      _child(measure, 'sound', tempo=f'{quarters_per_minute:.2f}')
    self._tempo = quarters_per_minute

  def _bar(self, measure, bar, is_pickup, signature):
    begin = round(bar.start * UNITS)
    length = round(bar.length * UNITS)
    whole = 4 * UNITS * signature[0] // signature[1]
    beat = round(beat_quarters(signature[1] if signature[0] % 3 == 0 else 4) * UNITS)
    metre = Metre(length, beat, whole - length if is_pickup else 0)
    written = 0
    for staff, voices in enumerate(self._part.staves):
      accidentals = _Accidentals(self._sharps)
      lines = [self._clipped(voice, begin, length) for voice in voices]
      lines = [line for line in lines if line] or [[]]
      for number, line in enumerate(lines):
        if written:
          _child(_child(measure, 'backup'), 'duration', written)
        voice = staff * MAX_VOICES + number + 1
        written = self._voice(measure, line, metre, voice, staff, accidentals, fill=number == 0)

  @staticmethod
  def _clipped(voice, begin, length):
    """Return (start, end, chord, whether it continues from before, whether it goes on) within a bar."""
    found = []
    for chord in voice:
      if chord.start < begin + length and chord.end > begin:
        start, end = max(chord.start - begin, 0), min(chord.end - begin, length)
        found.append((start, end, chord, chord.start < begin, chord.end > begin + length))
    return found

  def _voice(self, measure, line, metre, voice, staff, accidentals, fill):
    """Write a voice; returns the units written."""
    if not line:
      note = _child(measure, 'note')
      _child(note, 'rest', **({'measure': 'yes'} if metre.offset == 0 else {}))
      _child(note, 'duration', metre.length)
      self._tail(note, voice, None, staff)
      return metre.length
    thirds = triplet_beats([edge for start, end, *_ in line for edge in (start, end)], metre.offset)
    spans, at = [], 0
    for start, end, chord, before, after in line:
      if start > at:
        spans += [(symbol, None, False, False) for symbol in symbols(at, start, metre, thirds, True)]
      own = symbols(start, end, metre, thirds, False)
      spans += [
        (symbol, chord, before or number > 0, after or number + 1 < len(own)) for number, symbol in enumerate(own)
      ]
      at = end
    if at < metre.length:
      spans += [(symbol, None, False, False) for symbol in symbols(at, metre.length, metre, thirds, True)]
    names = beams([(symbol, chord is None) for symbol, chord, _, _ in spans], metre)
    triplets = _triplet_ends([symbol for symbol, *_ in spans], metre.offset)
    reached = 0
    for (symbol, chord, tied, ties), beam, triplet in zip(spans, names, triplets, strict=True):
      if chord is None:
        is_outside = not fill and not symbol.in_triplet and (symbol.end <= line[0][0] or symbol.start >= line[-1][1])
        if is_outside and symbol.start >= line[-1][1]:
          break
        if is_outside:
          _child(_child(measure, 'forward'), 'duration', symbol.length)
        else:
          note = _child(measure, 'note')
          _child(note, 'rest')
          _child(note, 'duration', symbol.length)
          self._tail(note, voice, symbol, staff, triplet=triplet)
      else:
        self._chord(measure, symbol, chord, tied, ties, voice, staff, beam, triplet, accidentals)
      reached = symbol.end
    return reached

  def _chord(self, measure, symbol, chord, tied, ties, voice, staff, beam, triplet, accidentals):
    for number, pitch in enumerate(sorted(set(chord.pitches))):
      note = _child(measure, 'note')
      if number:
        _child(note, 'chord')
      head, accidental, instrument = None, None, None
      if self._part.is_drum:
        step, octave, head = self._places[pitch]
        unpitched = _child(note, 'unpitched')
        _child(unpitched, 'display-step', step)
        _child(unpitched, 'display-octave', octave)
        instrument = _drum_id(self._number, pitch)
      else:
        step, alteration, octave = spell(pitch, self._sharps, self._is_minor)
        element = _child(note, 'pitch')
        _child(element, 'step', step)
        if alteration:
          _child(element, 'alter', alteration)
        _child(element, 'octave', octave)
        accidental = accidentals.shown(step, octave, alteration, symbol.start, tied)
      _child(note, 'duration', symbol.length)
      if tied:
        _child(note, 'tie', type='stop')
      if ties:
        _child(note, 'tie', type='start')
      if instrument:
        _child(note, 'instrument', id=instrument)
      self._tail(
        note,
        voice,
        symbol,
        staff,
        accidental=accidental,
        head=head,
        beam=beam if not number else [],
        tied=tied,
        ties=ties,
        triplet=triplet if not number else None,
      )

  def _tail(
    self, note, voice, symbol, staff, accidental=None, head=None, beam=(), tied=False, ties=False, triplet=None
  ):
    """Add what follows a note's duration, in the order that the format asks for."""
    _child(note, 'voice', voice)
    if symbol is not None:
      _child(note, 'type', symbol.type)
      for _ in range(symbol.dots):
        _child(note, 'dot')
    if accidental is not None:
      _child(note, 'accidental', _ACCIDENTALS[accidental])
    if symbol is not None and symbol.in_triplet:
      modification = _child(note, 'time-modification')
      _child(modification, 'actual-notes', 3)
      _child(modification, 'normal-notes', 2)
    if head and head != 'normal':
      _child(note, 'notehead', head)
    if len(self._part.staves) > 1:
      _child(note, 'staff', staff + 1)
    for level, name in enumerate(beam):
      _child(note, 'beam', name, number=level + 1)
    if tied or ties or triplet:
      notations = _child(note, 'notations')
      if tied:
        _child(notations, 'tied', type='stop')
      if ties:
        _child(notations, 'tied', type='start')
      for kind in triplet or ():
        _child(notations, 'tuplet', type=kind, **({'bracket': 'yes'} if kind == 'start' and not beam else {}))


class _Accidentals:
  """Which accidentals a staff shows in a bar."""

  def __init__(self, sharps: int):
    self._signature = {step: 0 for step in STEPS}
    for step in STEPS[:sharps] if sharps > 0 else STEPS[::-1][:-sharps] if sharps < 0 else '':
      self._signature[step] = 1 if sharps > 0 else -1
    self._seen: dict[tuple[str, int], list[tuple[int, int]]] = {}

  def shown(self, step: str, octave: int, alteration: int, start: int, tied: bool) -> int | None:
    """Return the alteration to show on a note, or None. Voices are written one after another, so by position."""
    seen = self._seen.setdefault((step, octave), [])
    before = [(place, value) for place, value in seen if place < start]
    valid = max(before)[1] if before else self._signature[step]
    same = [value for place, value in seen if place == start]
    if tied:
      return None
    seen.append((start, alteration))
    if same and same[-1] == alteration:
      return None
    return alteration if alteration != valid else None


def _triplet_ends(row: list[Symbol], offset: int):
  """Return for each symbol the ends of triplet brackets that it has: a tuple of 'start' and 'stop'."""
  beat_of = [(symbol.start + offset) // UNITS if symbol.in_triplet else None for symbol in row]
  found = []
  for index, beat in enumerate(beat_of):
    ends = []
    if beat is not None:
      if index == 0 or beat_of[index - 1] != beat:
        ends.append('start')
      if index + 1 == len(row) or beat_of[index + 1] != beat:
        ends.append('stop')
    found.append(tuple(ends))
  return found
