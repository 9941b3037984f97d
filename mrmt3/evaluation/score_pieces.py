"""Transcribing and scoring a set of pieces, to be taken up again where it was stopped."""

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.evaluation import metric_registry, predictions, summary
from mrmt3.evaluation.references import Estimate, Reference
from mrmt3.utils import files
from mrmt3.utils.fingerprints import files_fingerprint
from mrmt3.utils.journal import Journal

SCORES_NAME = 'scores-{}.jsonl'
PREDICTIONS_NAME = 'predictions-{}.jsonl'
_VERSION = 2  # of the scores; older lines are not used again


def transcribe(
  references: Mapping[str, Reference],
  checkpoint: str,
  name: str,
  output: Path | None,
  memory: str,
  batch_size: int | None,
) -> dict[str, Estimate]:
  """Transcribes the audio of the references with a checkpoint, and returns the transcriptions.

  A piece whose audio cannot be read fails, which is written down; the others go on. With `output`, notes are kept there in
  predictions-<name>.jsonl, and pieces that are there are not transcribed again while their audio (and, where the memory holds the
  truth, their reference) is the same.

  Raises:
    UserError: none of the references has audio; the checkpoint or a reference cannot be read; the file is that of another checkpoint.
  """
  import shutil
  import tempfile

  from mrmt3.evaluation.piece_transcriber import PieceTranscriber

  if not any(reference.audio for reference in references.values()):
    raise UserError('--checkpoint: there is no audio beside the references (song.mid with song.wav, or Slakh tracks)')
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

  def pieces():
    for piece, reference in todo.items():
      notes = _tables(reference)[0]  # what cannot be scored ends the run before it is transcribed
      yield piece, functools.partial(_audio_of, reference, sample_rate), notes if memory == 'truth' else None

  def record(piece, notes, problem):
    writer.add(piece, notes, made_of[piece], problem)

  try:
    bar = {'desc': 'transcribe', 'unit': 'piece', 'disable': not sys.stderr.isatty()}
    transcribe_pieces(transcriber.transcribe, pieces(), record, total=len(todo), **bar)
    writer.close()
    readers = predictions.read(path)
  finally:
    writer.close()
    if output is None:
      shutil.rmtree(folder, ignore_errors=True)
  return {piece: Estimate(readers[piece], path) for piece in references}


def transcribe_pieces(
  transcribe: Callable[[Iterable[tuple]], Iterable[tuple]],
  pieces: Iterable[tuple[str, Callable[[], np.ndarray], np.ndarray | None]],
  record: Callable[[str, np.ndarray | None, str], None],
  **progress,
) -> None:
  """Transcribes pieces and records each one when it is done; those whose audio cannot be read are recorded at the end.

  Args:
    transcribe: takes (name, samples, reference or None) of the pieces, yields (name, note table, anything else) of each; see
      `piece_transcriber.PieceTranscriber.transcribe`.
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
    raise UserError('there is no audio beside the reference')
  return reference.audio(sample_rate)


def _tables(reference):
  """Returns a reference's notes, and those that published scores are counted in where these are others, else None."""
  return reference.read(), reference.read_published and reference.read_published()


def score(
  name: str,
  references: Mapping[str, Reference],
  estimates: Mapping[str, Estimate | None],
  output: Path | None,
  mt3_suite: bool = False,
  workers: int = 0,
) -> summary.Summary:
  """Scores a system's transcriptions, several at a time.

  With `output`, each piece's result is kept in scores-<name>.jsonl, and used again as long as the piece's files and the
  transcription are the same.

  Raises:
    UserError: a reference cannot be read, or a table cannot be scored.
  """
  from tqdm import tqdm

  from mrmt3.utils.parallel import parallel_if_long

  path = output and files.make_folder(output) / SCORES_NAME.format(_file_name(name))
  keys = {piece: _key(reference, estimates.get(piece), mt3_suite) for piece, reference in references.items()}
  journal, results = None, {}
  if path:
    journal = Journal(path, item=lambda line: line['result']['piece'], fingerprint=lambda line: line['key'])
    results = _known(journal, keys)
    journal.retain(results)
  todo = [piece for piece in references if piece not in results]
  jobs = [(piece, references[piece], estimates[piece] and estimates[piece].read) for piece in todo]
  new = parallel_if_long(functools.partial(_score, mt3_suite=mt3_suite), jobs, workers or os.cpu_count() or 1)
  with journal or contextlib.nullcontext():
    for result in tqdm(
      new, total=len(jobs), desc=f'score {name}', unit='piece', leave=False, disable=not sys.stderr.isatty()
    ):
      results[result.name] = result
      if journal:
        journal.add({'key': keys[result.name], 'result': result.to_dict()})
  return summary.Summary([results[piece] for piece in references])


def _score(job, mt3_suite):
  """Reads and scores one piece, in whatever process."""
  name, reference, read_estimate = job
  estimate, problem = None, ''
  if read_estimate is not None:
    try:
      estimate = read_estimate()
    except UserError as error:
      problem = str(error)
  try:
    notes, published = _tables(reference)
    return summary.score_piece(
      name, notes, estimate, published_reference=published, problem=problem, mt3_suite=mt3_suite
    )
  except ValueError as error:
    raise UserError(f'cannot score {error}') from error


def _key(reference: Reference, estimate: Estimate | None, mt3_suite: bool) -> str:
  """Returns what a result depends on: of files names, sizes and times, of saved predictions the notes."""
  if estimate is None:
    said = ''
  elif '.jsonl' in estimate.file.name:
    import hashlib

    said = hashlib.sha1(repr(estimate.read.args).encode()).hexdigest()
  else:
    said = files_fingerprint([estimate.file], estimate.file.parent)
  return json.dumps([_VERSION, mt3_suite, reference.state, said])


def _known(journal: Journal, keys: Mapping[str, str]) -> dict[str, summary.PieceResult]:
  """Return the results that are there for these keys; broken ones and those that lack a score are left out."""
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
