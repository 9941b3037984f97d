"""Transcription and scoring of a set of pieces; an interrupted run can be resumed."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrmt3.errors import UserError
from mrmt3.evaluation import metric_registry, predictions, summary
from mrmt3.evaluation.references import Estimate, Reference
from mrmt3.metrics_utils import validate_notes
from mrmt3.utils import files
from mrmt3.utils.fingerprints import files_fingerprint
from mrmt3.utils.journal import Journal
from mrmt3.utils.warning_lines import collected_warnings

SCORES_NAME = 'scores-{}.jsonl'
PREDICTIONS_NAME = 'predictions-{}.jsonl'
_VERSION = 3  # of the scores and of the reading of notes; lines of other versions are ignored


def transcribe(
  references: Mapping[str, Reference],
  checkpoint: str,
  name: str,
  output: Path | None,
  memory: str,
  batch_size: int | None,
) -> dict[str, Estimate]:
  """Transcribe the audio of the references with a checkpoint, and return the transcriptions.

  A piece whose audio cannot be read is recorded as failed; the others are transcribed. Pieces whose reference cannot
  be read are skipped: `score` names them.

  Args:
    references: references by name.
    checkpoint: a checkpoint folder.
    name: name of the system, for the file of predictions.
    output: folder for predictions-<name>.jsonl; None keeps no file. A piece in the file is not transcribed again while
      its audio (for memory 'truth', also its reference) is unchanged.
    memory: see `piece_model.PieceEncoderDecoderModel`.
    batch_size: see `piece_transcriber.PieceTranscriber`.

  Raises:
    UserError: no reference has audio, the checkpoint or all references cannot be read, or the file is of another
      checkpoint.
  """
  import shutil
  import tempfile

  from mrmt3.evaluation.piece_transcriber import PieceTranscriber

  if not any(reference.audio for reference in references.values()):
    raise UserError(
      '--checkpoint: the references have no audio; put it next to them (song.mid and song.wav), or give Slakh tracks'
    )
  transcriber = PieceTranscriber(checkpoint, memory, batch_size)
  sample_rate = transcriber.spec.spectrogram.sample_rate
  folder = output or Path(tempfile.mkdtemp(prefix='mrmt3-evaluate-'))
  path = folder / PREDICTIONS_NAME.format(_file_name(name))
  weights = transcriber.folder.stat().st_mtime_ns
  writer = predictions.Writer(
    path, {'checkpoint': str(transcriber.folder.resolve()), 'changed': weights, 'memory': memory}
  )
  made_of = {piece: [one.audio_state, one.state if memory == 'truth' else ''] for piece, one in references.items()}
  todo = {piece: reference for piece, reference in references.items() if writer.done.get(piece) != made_of[piece]}

  unreadable = {}

  def pieces():
    for piece, reference in todo.items():
      try:
        notes = _tables(reference)[0]  # transcribing takes much longer than reading the reference
      except UserError as error:
        unreadable[piece] = str(error)
        continue
      yield piece, functools.partial(_audio_of, reference, sample_rate), notes if memory == 'truth' else None

  def record(piece, notes, problem):
    writer.add(piece, notes, made_of[piece], problem)

  try:
    bar = {'desc': 'transcribe', 'unit': 'piece', 'disable': not sys.stderr.isatty()}
    transcribe_pieces(transcriber.transcribe, pieces(), record, total=len(todo), **bar)
    writer.close()
    if len(unreadable) == len(references):
      raise UserError(_none_readable(unreadable))
    readers = predictions.read(path)
  finally:
    writer.close()
    if output is None:
      shutil.rmtree(folder, ignore_errors=True)
  return {piece: Estimate(readers[piece], path) for piece in references if piece not in unreadable}


def transcribe_pieces(
  transcribe: Callable[[Iterable[tuple]], Iterable[tuple]],
  pieces: Iterable[tuple[str, Callable[[], np.ndarray], np.ndarray | None]],
  record: Callable[[str, np.ndarray | None, str], None],
  **progress,
) -> None:
  """Transcribe pieces and record each one when it is done; those whose audio cannot be read are recorded at the end.

  Args:
    transcribe: takes (name, samples, reference or None) of the pieces, yields (name, note table, anything else) of
      each; see `piece_transcriber.PieceTranscriber.transcribe`.
    pieces: (name, function that reads the samples or raises UserError, reference or None) of each.
    record: called with (name, note table, '') or with (name, None, why the audio cannot be read).
    **progress: arguments of the progress bar (tqdm).
  """
  from tqdm import tqdm

  failed = {}

  def readable():
    for name, read, notes in pieces:
      try:
        samples = read()
      except UserError as error:
        failed[name] = str(error)
        continue
      yield name, samples, notes

  for name, notes, *_ in tqdm(transcribe(readable()), **progress):
    record(name, notes, '')
  for name, problem in failed.items():
    record(name, None, problem)


def _audio_of(reference, sample_rate):
  if reference.audio is None:
    raise UserError('there is no audio next to the reference')
  return reference.audio(sample_rate)


def _none_readable(unreadable):
  first = next(iter(unreadable.values()))
  return f'none of the {len(unreadable)} references can be read; the first: {first}' if len(unreadable) > 1 else first


def _tables(reference):
  """Return (a reference's notes, its notes for the published scores or None if these are the same)."""
  return reference.read(), reference.read_published and reference.read_published()


def score(
  name: str,
  references: Mapping[str, Reference],
  estimates: Mapping[str, Estimate | None],
  output: Path | None,
  mt3_suite: bool = False,
  workers: int = 0,
) -> summary.Summary:
  """Score a system's transcriptions in several processes.

  A piece whose reference cannot be read is left out of the scores and listed in the summary.

  Args:
    name: name of the system.
    references: references by name.
    estimates: transcription, or None, of each reference.
    output: folder for scores-<name>.jsonl; None keeps no file. A result in the file is reused while the piece's files
      and the transcription are unchanged.
    mt3_suite: see `metric_registry.evaluate_piece`.
    workers: number of processes; 0 is one per CPU core.

  Raises:
    UserError: no reference can be read, or a table cannot be scored.
  """
  from tqdm import tqdm

  from mrmt3.utils.parallel import parallel_if_long

  path = output and files.make_folder(output) / SCORES_NAME.format(_file_name(name))
  keys = {piece: _key(reference, estimates.get(piece), mt3_suite) for piece, reference in references.items()}
  journal, results, unreadable = None, {}, {}
  if path:
    journal = Journal(path, item=lambda line: line['result']['piece'], fingerprint=lambda line: line['key'])
    results = _known(journal, keys)
    journal.retain(results)
  todo = [piece for piece in references if piece not in results]
  jobs = [(piece, references[piece], (estimate := estimates.get(piece)) and estimate.read) for piece in todo]
  new = parallel_if_long(functools.partial(_score, mt3_suite=mt3_suite), jobs, workers or os.cpu_count() or 1)
  with journal or contextlib.nullcontext():
    for result in tqdm(
      new, total=len(jobs), desc=f'score {name}', unit='piece', leave=False, disable=not sys.stderr.isatty()
    ):
      if isinstance(result, _Unreadable):
        unreadable[result.name] = result.problem
        continue
      results[result.name] = result
      if journal:
        journal.add({'key': keys[result.name], 'result': result.to_dict()})
  if not results:
    raise UserError(_none_readable(unreadable))
  return summary.Summary([results[piece] for piece in references if piece in results], unreadable)


class _Unreadable(NamedTuple):
  """A piece whose reference cannot be read, and why."""

  name: str
  problem: str


def _score(job, mt3_suite):
  """Read and score one piece; runs in a worker process."""
  name, reference, read_estimate = job
  with collected_warnings() as odd_files:
    try:
      notes, published = _tables(reference)
      validate_notes(notes, 'the reference')
    except (UserError, ValueError) as error:
      return _Unreadable(name, str(error))
    estimate, problem = None, ''
    if read_estimate is not None:
      try:
        estimate = read_estimate()
        validate_notes(estimate, 'the transcription')
      except (UserError, ValueError) as error:
        estimate, problem = None, str(error)
  try:
    result = summary.score_piece(
      name, notes, estimate, published_reference=published, problem=problem, mt3_suite=mt3_suite
    )
  except ValueError as error:
    raise UserError(f'cannot score {error}') from error
  return dataclasses.replace(result, odd_files=[str(one) for one in odd_files])


def _key(reference: Reference, estimate: Estimate | None, mt3_suite: bool) -> str:
  """Return a key of everything that a result depends on: fingerprints of files, or a hash of saved predictions."""
  if estimate is None:
    estimate_state = ''
  elif '.jsonl' in estimate.file.name:
    import hashlib

    estimate_state = hashlib.sha1(repr(estimate.read.args).encode()).hexdigest()
  else:
    estimate_state = files_fingerprint([estimate.file], estimate.file.parent)
  return json.dumps([_VERSION, mt3_suite, reference.state, estimate_state])


def _known(journal: Journal, keys: Mapping[str, str]) -> dict[str, summary.PieceResult]:
  """Return {piece: result} of the recorded results with these keys; skips broken lines and those that lack a score."""
  results = {}
  for piece, key in keys.items():
    line = journal.find(piece, key)
    with contextlib.suppress(ValueError, KeyError, TypeError):
      if line is not None:
        result = summary.PieceResult.from_dict(line['result'])
        if metric_registry.SCORES.keys() <= result.scores.keys():
          results[piece] = result
  return results


def _file_name(name: str) -> str:
  return re.sub(r'[^\w.-]+', '_', name)
