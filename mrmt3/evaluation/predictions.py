"""Predictions of many pieces in one JSONL file, one line per piece, by `mrmt3 evaluate --checkpoint` or `mrmt3 infer`.

`mrmt3 evaluate` writes a header line with the checkpoint, then {"piece", "notes": rows as `note_array.as_rows`,
"made_of": fingerprint of the audio, "problem"}. `mrmt3 infer` writes {"inputs": {"piece" or "targets_pretokenized"},
"prediction": regular ids of each segment}; decoding these ids needs the model's spec.
"""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.note_array import as_notes, as_rows
from mrmt3.utils.journal import Journal

HEADER = 'mrmt3_predictions'


def read(path: Path, model: Path | None = None) -> dict[str, Callable[[], np.ndarray]]:
  """Return {piece: function that returns its note table, or raises UserError if the piece failed}.

  Args:
    path: the file.
    model: the checkpoint that made it; needed for what `mrmt3 infer` wrote.

  Raises:
    UserError: it is another file, or the checkpoint is missing.
  """
  found, spec = {}, None
  for number, line in _lines(path):
    if HEADER in line:
      continue
    try:
      if 'notes' in line:
        found[line['piece']] = functools.partial(_notes, line['notes'], line.get('problem', ''))
      else:
        inputs = line['inputs']
        name = inputs.get('piece') or inputs['targets_pretokenized']
        spec = spec or _spec_of(path, model)
        found[name] = functools.partial(_decode, line['prediction'], spec)
    except (KeyError, TypeError) as error:
      raise UserError(f'{path}, line {number}: not a saved prediction of mrmt3 evaluate or infer') from error
  if not found:
    raise UserError(f'{path} holds no predictions')
  return found


def _lines(path):
  """Yield (number, object) of the lines of a JSONL file; an incomplete last line is skipped."""
  try:
    text = path.read_text()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'cannot read {path}: {getattr(error, "strerror", None) or "not text"}') from error
  for number, line in enumerate(text.splitlines(keepends=True), 1):
    try:
      yield number, json.loads(line)
    except ValueError as error:
      if line.endswith('\n'):
        raise UserError(f'{path}, line {number}: not JSON') from error


def _notes(rows, problem):
  if problem:
    raise UserError(problem)
  return as_notes(rows)


def _spec_of(path, model):
  if model is None:
    raise UserError(f'{path} holds tokens; add --model DIR, the checkpoint that made them')
  from mrmt3.checkpoints import orbax as orbax_checkpoints

  return orbax_checkpoints.read_spec(model)


def _decode(segments, spec):
  from mrmt3 import vocabularies
  from mrmt3.inference import transcription

  return transcription.decode_segments([vocabularies.encode_decoded_ids(ids) for ids in segments], spec)[0]


class Writer:
  """Adds pieces to a file of predictions, each whole or not at all; goes on where a run that was stopped has left off.

  Attributes:
    done: {piece: what it was made of} of those that are there and did not fail.
  """

  def __init__(self, path: Path, made_by: Mapping):
    """Open or make the file; UserError if it holds predictions that something else made (`made_by`, JSON)."""
    self._journal = Journal(
      path,
      settings={HEADER: 1, **made_by},
      item=lambda line: line['piece'],
      keep=lambda line: (line.get('made_of'), line['problem']),
      mismatch=f'{path} has predictions of another checkpoint or other settings; remove it, or give another --output',
    )
    self.done = {name: made_of for name, (made_of, problem) in self._journal.records.items() if not problem}
    self._journal.retain(self.done)

  def add(self, name: str, notes: np.ndarray | None, made_of: list[str], problem: str = '') -> None:
    """Write a piece's notes, or why there are none; a later line overrides an earlier one. UserError if that fails."""
    rows = [] if notes is None else as_rows(notes).tolist()
    self._journal.add({'piece': name, 'notes': rows, 'made_of': made_of, 'problem': problem})

  def close(self) -> None:
    """Close the file."""
    self._journal.close()
