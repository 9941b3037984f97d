"""What has been decoded of a file so far, kept beside the output, so that an interrupted run can go on."""

import hashlib
import json
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError

VERSION = 1


def fingerprint(params, spec, options: dict) -> str:
  """Returns a text that differs where other tokens may come out: of another model or with other options."""
  import jax

  digest = hashlib.sha256((spec.to_json() + json.dumps(options, sort_keys=True)).encode())
  for leaf in jax.tree.leaves(params):
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()


class Journal:
  """The tokens of a file's segments: a header line and then a line a segment, JSON, in a hidden file beside the output.

  Attributes:
    path: of the hidden file.
    known: tokens of the segments that an earlier run has decoded, int32 `[n]` each.
  """

  def __init__(self, output: Path, audio: Path, model: str):
    """Reads what is known; what belongs to other audio or another model is not used."""
    self.path = journal_path(output)
    self._header, self._begun = None, False
    try:
      state = audio.stat()
      self._header = {'version': VERSION, 'audio': [state.st_size, state.st_mtime_ns], 'model': model}
      lines = self.path.read_bytes().split(b'\n')[:-1]  # the last line is empty, or not whole
    except OSError:
      lines = []
    self.known = ()
    if lines and _parsed(lines[0]) == self._header:
      rows = [_parsed(line) for line in lines[1:]]
      bad = next((place for place, row in enumerate(rows) if not isinstance(row, list)), len(rows))
      self.known = tuple(np.array(row, np.int32) for row in rows[:bad])

  def add(self, segments) -> None:
    """Writes down further segments. UserError if that is not possible."""
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      # The first segments are the known ones, so what an earlier run wrote is written anew.
      with open(self.path, 'a' if self._begun else 'w', encoding='ascii') as file:
        if not self._begun:
          file.write(json.dumps(self._header) + '\n')
        file.writelines(json.dumps(segment.tokens.tolist()) + '\n' for segment in segments)
      self._begun = True
    except OSError as error:
      raise UserError(f'cannot write {self.path}: {error.strerror}') from error

  def close(self, done: bool) -> None:
    """Ends the work on the file; what is written is kept unless the output is there."""
    if done:
      self.path.unlink(missing_ok=True)


def journal_path(output: Path) -> Path:
  """Returns where the journal of an output lies."""
  return output.with_name(f'.{output.name}.resume')


def _parsed(line):
  try:
    return json.loads(line)
  except ValueError:
    return None
