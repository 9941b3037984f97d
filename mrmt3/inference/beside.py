"""Outputs next to their audio: what is in the way, and what an earlier run has written.

`song.mid` next to `song.wav` may be anybody's work, such as the labels of a data set, so it is replaced only
with --force, or if an earlier run with --resume has written it.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.inference.jobs import Job
from mrmt3.inference.resume import hidden_path
from mrmt3.utils.files import atomic_path

_SUFFIX = 'written'


def check_free(jobs: Sequence[Job], resume: bool) -> None:
  """Raise UserError if an output exists, unless `resume` and it is an earlier run's."""
  outputs = [file for job in jobs for file in job.files()]
  there = [file for job in jobs if not (resume and is_own(job)) for file in job.files() if os.path.lexists(file)]
  if not there:
    return
  if len(outputs) == 1:
    raise UserError(f'{there[0]} exists already; name another file with -o, or replace it with --force')
  raise UserError(
    f'{len(there)} of {len(outputs)} outputs exist already, such as {there[0]}; name a folder with -o, or replace them '
    'with --force'
  )


def record(job: Job) -> None:
  """Note what a job has written, in a hidden file next to its MIDI file; UserError if that cannot be written."""
  digests = {os.fsdecode(file.name): _digest(file) for file in job.files()}
  with atomic_path(hidden_path(job.midi, _SUFFIX)) as temporary:
    temporary.write_text(json.dumps(digests) + '\n', encoding='utf-8', errors='surrogateescape')


def is_own(job: Job) -> bool:
  """Return whether all outputs of a job that exist are as an earlier run with --resume has written them."""
  try:
    text = hidden_path(job.midi, _SUFFIX).read_text(encoding='utf-8', errors='surrogateescape')
    digests = json.loads(text)
  except (OSError, ValueError):
    return False
  if not isinstance(digests, dict):
    return False
  return all(digests.get(file.name) == _digest(file) for file in job.files() if os.path.lexists(file))


def _digest(file: Path) -> str | None:
  try:
    return hashlib.sha256(file.read_bytes()).hexdigest()
  except OSError:
    return None
