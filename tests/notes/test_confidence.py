"""Confidences of notes and instruments: carried where they are known, and nowhere else."""

import csv
import dataclasses
import json

import mido
import numpy as np
import pytest

from mrmt3.inference.transcription import Transcription
from mrmt3.note_sequences import DecodingStats
from mrmt3.notes import export, midi
from mrmt3.notes.note_array import LABEL_DTYPE, NOTE_DTYPE, Note, as_notes, as_rows, from_tuples, labels_of

ROWS = [(0.0, 0.5, 60, 100, 0, 0), (0.25, 1.0, 40, 80, 33, 0), (0.5, 0.6, 36, 120, 0, 1)]
NOTES = as_notes(ROWS)
SURE = as_notes([(*row, confidence) for row, confidence in zip(ROWS, (0.9, 0.0, 0.25), strict=True)])
RESULT = Transcription(NOTES, DecodingStats(segments=1), [], 1.0)


def test_labels_have_none():
  assert NOTES.dtype == NOTE_DTYPE and not NOTES['confidence'].any()
  assert labels_of(SURE).dtype == LABEL_DTYPE
  assert np.array_equal(as_notes(labels_of(SURE)), NOTES)
  assert np.array_equal(as_notes(as_rows(SURE)), NOTES)
  assert np.array_equal(from_tuples(labels_of(SURE).tolist()), NOTES)
  assert as_notes(SURE) is SURE and len(as_notes([])) == 0
  assert Note(*NOTES[0].tolist()[:6]) == Note._make(NOTES[0].tolist())


def test_json_and_csv_have_them_where_they_are_known(tmp_path):
  records = export.note_records(SURE)
  assert [record.get('confidence') for record in records] == [0.9, None, 0.25]
  assert 'confidence' not in export.note_records(NOTES)[0]
  for notes, values in ((SURE, ['0.9', '', '0.25']), (NOTES, None)):
    export.write_csv(notes, tmp_path / 'notes.csv')
    rows = list(csv.DictReader((tmp_path / 'notes.csv').open()))
    assert [row['onset'] for row in rows] == ['0.0', '0.25', '0.5']
    assert [row['confidence'] for row in rows] == values if values else 'confidence' not in rows[0]


def test_instruments_have_theirs_in_json_and_midi(tmp_path):
  sure = dataclasses.replace(RESULT, notes=SURE, instrument_confidence={(33, False): 0.625, (0, True): 1.0})
  for result, named, texts in (
    (sure, {'Electric Bass': 0.625, 'Drums': 1.0}, [[], [], ['confidence 0.62'], ['confidence 1.00']]),
    (RESULT, None, [[]] * 4),
  ):
    result.save(tmp_path / 'song.json')
    assert json.loads((tmp_path / 'song.json').read_text()).get('instrument_confidence') == named
    result.save(tmp_path / 'song.mid')
    tracks = mido.MidiFile(tmp_path / 'song.mid').tracks
    assert [[event.text for event in track if event.type == 'text'] for track in tracks] == texts
    assert result.midi() == (tmp_path / 'song.mid').read_bytes()
    assert np.array_equal(midi.read_midi(tmp_path / 'song.mid'), NOTES)


@pytest.mark.parametrize('rows', [[(0, 1, 60, 100, 0)], [(0, 1, 60, 100, 0, 0, 0.5, 1)]])
def test_rows_of_other_lengths_are_errors(rows):
  with pytest.raises(ValueError):
    as_notes(rows)
