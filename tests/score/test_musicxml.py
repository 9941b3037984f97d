"""MusicXML: every quantised note is found again by music21, and what musicians read is in its place."""

import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.notes.note_array import as_notes
from mrmt3.score import notation, percussion, quantize
from mrmt3.score.analysis import Analysis
from mrmt3.score.beats import Beats
from mrmt3.score.key import Key
from mrmt3.score.musicxml import musicxml
from mrmt3.score.tempo_map import TempoMap

music21 = pytest.importorskip('music21')


def analysis_of(numerator=4, denominator=4, beats=40, first_downbeat=1, key=None, seconds=0.5, jump=None):
  """Return a steady beat whose beat number `first_downbeat` is a downbeat, as is number `jump`."""
  per_bar = numerator if denominator == 4 else numerator // 3
  times = 0.5 + seconds * np.arange(beats)
  places = (np.arange(beats) - first_downbeat) % per_bar
  if jump is not None:
    places[jump:] = np.arange(beats - jump) % per_bar
  found = Beats(times, places, numerator, denominator, 1.0)
  return Analysis(found, TempoMap.from_beats(found), key)


def sheet_of(rows, analysis, grid=None):
  """Lay out rows of (onset and offset in quarters from the first downbeat, pitch, program, is_drum)."""
  rows = [
    (*analysis.tempo.to_seconds([start, end]), pitch, 80, program, is_drum)
    for start, end, pitch, program, is_drum in rows
  ]
  return notation.make_sheet(as_notes(rows), analysis, grid or quantize.Grid())


def notes_read_by_music21(sheet):
  """Return the sorted (part, start, end, pitch) that music21 reads, in units from the first downbeat, ties joined."""
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    warnings.filterwarnings('ignore', message='.* does not map to a valid instrument')  # rare drums
    score = music21.converter.parse(musicxml(sheet), format='musicxml')
  first = round(sheet.bars[0].start * quantize.UNITS)
  found = []
  for number, (stream, part) in enumerate(zip(score.parts, _staves(sheet), strict=True)):
    del number
    places = percussion.places(np.unique(part.table['pitch']).tolist()) if part.is_drum else {}
    by_place = {f'{step}{octave}': pitch for pitch, (step, octave, _) in places.items()}
    rows = []
    for element in stream.flatten().notes:
      for note in element.notes if hasattr(element, 'notes') else [element]:
        pitch = by_place[note.displayName] if part.is_drum else note.pitch.midi
        start = round(float(element.offset) * quantize.UNITS) + first
        end = start + round(float(element.quarterLength) * quantize.UNITS)
        rows.append([start, end, pitch, note.tie.type if note.tie else None])
    found += [(part.program, part.is_drum, *row) for row in _joined(rows)]
  return sorted(found)


def _staves(sheet):
  return [part for part in sheet.parts for _ in part.staves]


def _joined(rows):
  rows.sort(key=lambda row: (row[0], row[2]))
  done = []
  for row in rows:
    if row[3] in ('stop', 'continue'):
      before = next(one for one in done if one[2] == row[2] and one[1] == row[0] and one[3] in ('start', 'continue'))
      before[1], before[3] = row[1], 'continue' if row[3] == 'continue' else None
    else:
      done.append(row)
  return [tuple(row[:3]) for row in done]


def written(sheet):
  """Return the sorted (program, is_drum, start, end, pitch) of a sheet."""
  names = ('program', 'is_drum', 'start', 'end', 'pitch')
  return sorted(zip(*(sheet.notes()[name].tolist() for name in names), strict=True))


NOTES = st.lists(
  st.tuples(
    st.integers(-4, 100), st.integers(1, 24), st.integers(28, 96), st.sampled_from([0, 24, 40, 73]), st.booleans()
  ),
  min_size=1,
  max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(
  NOTES,
  st.sampled_from([(4, 4), (3, 4), (2, 4), (6, 8), (9, 8)]),
  st.integers(-5, 6),
  st.booleans(),
  st.sampled_from([3, 4, 6, 8]),
  st.sampled_from([None, 5, 8, 11]),
)
def test_music21_finds_all_notes_again(rows, metre, sharps, is_minor, steps, jump):
  tonic = (7 * sharps + 9 * is_minor) % 12
  analysis = analysis_of(*metre, beats=60, first_downbeat=1, key=Key(tonic, is_minor), jump=jump)
  notes = [
    (start / steps, (start + length) / steps, pitch, 0 if drum else program, drum)
    for start, length, pitch, program, drum in rows
  ]
  sheet = sheet_of(notes, analysis)
  quantized = quantize.quantize(
    as_notes([(*analysis.tempo.to_seconds([a, b]), pitch, 80, program, drum) for a, b, pitch, program, drum in notes]),
    analysis.tempo,
    quantize.Grid(),
  )
  assert sorted(zip(quantized['start'].tolist(), quantized['pitch'].tolist(), strict=True)) == sorted(
    (start, pitch) for _, _, start, _, pitch in written(sheet)
  )
  assert notes_read_by_music21(sheet) == written(sheet)
  for measure in ET.fromstring(musicxml(sheet).split('dtd">\n')[1]).iter('measure'):
    assert _length(measure) <= 4 * quantize.UNITS * metre[0] // metre[1]


def _length(measure):
  """Return how far the notes of a measure reach, in units."""
  at = reach = 0
  for element in measure:
    duration = int(element.findtext('duration') or 0)
    if element.tag == 'backup':
      at -= duration
      assert at >= 0
    elif element.tag in ('note', 'forward') and element.find('chord') is None:
      at += duration
      reach = max(reach, at)
  return reach


def test_pickup_key_and_tie_over_the_bar_line():
  analysis = analysis_of(3, 4, first_downbeat=1, key=Key(9, True))
  sheet = sheet_of([(-1, 0, 64, 40, False), (0, 2, 69, 40, False), (2, 4, 68, 40, False)], analysis)
  root = ET.fromstring(musicxml(sheet).split('dtd">\n')[1])
  first, second, third = root.iter('measure')
  assert first.get('implicit') == 'yes' and first.get('number') == '0' and second.get('number') == '1'
  assert root.findtext('.//fifths') == '0' and root.findtext('.//mode') == 'minor'
  assert (root.findtext('.//beats'), root.findtext('.//beat-type')) == ('3', '4')
  last = second.findall('note')[-1]
  assert last.find('tie').get('type') == 'start' and last.findtext('accidental') == 'sharp'
  tied = third.find('note')
  assert tied.find('tie').get('type') == 'stop' and tied.find('accidental') is None


def test_triplets_have_brackets_and_beams():
  sheet = sheet_of([(k / 3, (k + 1) / 3, 60 + k, 40, False) for k in range(3)] + [(1, 4, 60, 40, False)], analysis_of())
  notes = list(ET.fromstring(musicxml(sheet).split('dtd">\n')[1]).iter('note'))[:3]
  assert [note.findtext('type') for note in notes] == ['eighth'] * 3
  assert [note.findtext('time-modification/actual-notes') for note in notes] == ['3'] * 3
  assert [note.findtext('beam') for note in notes] == ['begin', 'continue', 'end']
  assert notes[0].find('notations/tuplet').get('type') == 'start'
  assert notes[2].find('notations/tuplet').get('type') == 'stop'


def test_a_piano_with_two_hands_has_two_staves():
  rows = [(beat, beat + 1, pitch, 0, False) for beat in range(4) for pitch in (40, 47, 72, 76)]
  sheet = sheet_of(rows, analysis_of())
  assert [len(staff) for staff in sheet.parts[0].staves] == [1, 1]
  notes = ET.fromstring(musicxml(sheet).split('dtd">\n')[1]).iter('note')
  assert {(note.findtext('staff'), note.findtext('pitch/octave')) for note in notes} == {('1', '5'), ('2', '2')}


def test_the_text_is_the_same_every_time():
  rows = [(beat / 2, beat / 2 + 0.5, 60 + beat % 5, beat % 2 * 40, False) for beat in range(16)]
  assert musicxml(sheet_of(rows, analysis_of())) == musicxml(sheet_of(rows, analysis_of()))
