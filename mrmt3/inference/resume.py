"""Journal of a file's decoded segments, kept next to the output, from which an interrupted run resumes."""

import fcntl
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from mrmt3.checkpoints.spec_json import fingerprint_text
from mrmt3.errors import UserError
from mrmt3.utils import file_names, files, journal
from mrmt3.utils.fingerprints import weights_fingerprint

VERSION = 1


def fingerprint(params, spec, options: dict) -> str:
  """Return a text that differs where other tokens may come out: of another model or with other options."""
  return weights_fingerprint(params, fingerprint_text(spec) + json.dumps(options, sort_keys=True))


class SegmentJournal:
  """The tokens of a file's segments: a `journal.Journal` in a hidden file next to the output, one list per segment.

  The file is locked until `close`, since lines of two runs with different models would be mixed up.

  Attributes:
    path: of the hidden file.
    known: tokens of the segments that an earlier run has decoded, int32 `[n]` each.
  """

  def __init__(self, output: Path, audio: Path, model: str):
    """Read what is known; what belongs to other audio or another model is not used.

    Raises:
      UserError: the file cannot be read or written, or another run has locked it.
    """
    self.path = journal_path(output)
    self._lock = _locked(self.path, output)
    try:
      state = audio.stat()
      audio_state = [state.st_size, state.st_mtime_ns]
    except OSError:
      audio_state = None
    self._journal = journal.Journal(self.path, settings={'version': VERSION, 'audio': audio_state, 'model': model})
    rows = list(self._journal.records.values())
    bad = next((place for place, row in enumerate(rows) if not isinstance(row, list)), len(rows))
    if bad < len(rows):
      self._journal.retain(range(bad))  # replaces the file
      self._lock.close()
      self._lock = _locked(self.path, output)
    self.known = tuple(np.array(row, np.int32) for row in rows[:bad])
    self._count = 0  # segments that were passed to `add`

  def add(self, segments) -> None:
    """Record further segments; the first ones are those that are known already. UserError if that is not possible."""
    for segment in segments:
      if self._journal.find(self._count) is None:
        self._journal.add(segment.tokens.tolist())
      self._count += 1

  def close(self, done: bool) -> None:
    """End the work on the file, once; recorded segments are kept unless the output is there."""
    if self._lock.closed:
      return
    if done or not self._journal.records:
      self._journal.remove()
    self._journal.close()
    self._lock.close()


def _locked(path: Path, output: Path):
  """Open the hidden file, which is made if it is missing, and lock it as long as it is open."""
  try:
    file = open(files.make_folder(path.parent) / path.name, 'ab')  # noqa: SIM115
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror}') from error
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    raise UserError(f'{output}: another run is at work on it; wait for it, or name another output') from None
  except OSError:  # a file system without locks
    pass
  return file


def journal_path(output: Path) -> Path:
  """Return where the journal of an output lies."""
  return hidden_path(output, 'resume')


def hidden_path(output: Path, suffix: str) -> Path:
  """Return a hidden file next to an output, named after it: .song.mid.SUFFIX, or a digest of a very long name."""
  path = output.with_name(f'.{output.name}.{suffix}')
  if file_names.is_too_long(path):
    digest = hashlib.sha256(os.fsencode(output.name)).hexdigest()
    path = output.with_name(f'.{digest[:32]}.{suffix}')
  return path
