"""Note tables as files for other programs."""

import csv

import pytest

from mrmt3.notes import export, note_array


def test_csv(tmp_path):
  export.write_csv(note_array.as_notes([(0.5, 1, 60, 100, 33, 0), (1, 2, 38, 90, 0, 1)]), tmp_path / 'x.csv')
  rows = list(csv.DictReader((tmp_path / 'x.csv').open()))
  assert [(row['onset'], row['pitch'], row['is_drum'], row['instrument']) for row in rows] == [
    ('0.5', '60', '0', 'Electric Bass'),
    ('1.0', '38', '1', 'Drums'),
  ]


@pytest.mark.parametrize('text', ['=1+1', '+1', '-1', '@x', '\t=1', '\r=1', ' =1', '＝1'])
def test_no_cell_is_a_formula(text, monkeypatch, tmp_path):
  assert export.spreadsheet_text(text) == f"'{text}"
  monkeypatch.setattr(export, 'instrument_name', lambda *_: text)
  export.write_csv(note_array.as_notes([(0, 1, 60, 100, 0, 0)]), tmp_path / 'x.csv')
  assert f",'{text}" in (tmp_path / 'x.csv').read_bytes().decode()


@pytest.mark.parametrize('text', ['Acoustic Piano', 'a-b', ''])
def test_other_cells_stay(text):
  assert export.spreadsheet_text(text) == text
