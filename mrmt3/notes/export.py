"""Export of note tables to JSON and CSV: the fields of `NOTE_DTYPE` and the instrument's name."""

import csv
import io
import os

import numpy as np

from mrmt3.notes.instruments import instrument_name
from mrmt3.notes.note_array import NOTE_DTYPE
from mrmt3.utils.files import atomic_path

FIELDS = NOTE_DTYPE.names
FORMULA_STARTS = tuple('=+-@\t\r\n＝＋－＠')


def note_records(notes: np.ndarray) -> list[dict]:
  """Convert a note table to dicts of plain numbers (times in s) with the instrument's name.

  `confidence` is there where it is known.
  """
  names = {}
  records = []
  for row in notes.tolist():
    record = dict(zip(FIELDS, row, strict=True))
    if record['confidence'] > 0:
      record['confidence'] = round(record['confidence'], 4)
    else:
      del record['confidence']
    instrument = record['program'], record['is_drum']
    if instrument not in names:
      names[instrument] = instrument_name(*instrument)
    records.append({**record, 'instrument': names[instrument]})
  return records


def spreadsheet_text(text: str) -> str:
  """Return a text that spreadsheets do not run as a formula: with a quote in front, as they write it themselves."""
  return f"'{text}" if text.lstrip(' ')[:1] in FORMULA_STARTS else text


def csv_text(notes: np.ndarray) -> str:
  """Return a note table as CSV with a header line.

  `is_drum` is 0 or 1. There is a column `confidence` if a note has one; it is empty where it is not known.
  """
  text = io.StringIO()
  is_known = bool(np.any(notes['confidence'] > 0))
  columns = [name for name in FIELDS if is_known or name != 'confidence']
  writer = csv.DictWriter(text, [*columns, 'instrument'], lineterminator='\n')
  writer.writeheader()
  for record in note_records(notes):
    writer.writerow({**record, 'is_drum': int(record['is_drum']), 'instrument': spreadsheet_text(record['instrument'])})
  return text.getvalue()


def write_csv(notes: np.ndarray, path: str | os.PathLike) -> None:
  """Write a note table as CSV, see `csv_text`. UserError if the file cannot be written."""
  with atomic_path(path) as temporary:
    temporary.write_text(csv_text(notes), encoding='utf-8')
