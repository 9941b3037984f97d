"""Runs the jobs of `mrmt3 transcribe`: transcribes audio, writes output files and reports progress."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping

import numpy as np

from mrmt3.audio import files as audio_files
from mrmt3.audio import levels
from mrmt3.audio.level import SILENT
from mrmt3.errors import UserError
from mrmt3.inference import batched_pieces, beside, outputs
from mrmt3.inference.instrument_merging import merge_small_instruments
from mrmt3.inference.jobs import Job
from mrmt3.inference.resume import SegmentJournal, fingerprint, journal_path
from mrmt3.inference.transcription import Transcription
from mrmt3.notes import export
from mrmt3.notes.instruments import instruments_of, map_to_slakh_classes
from mrmt3.score.analysis import Analysis
from mrmt3.score.clean import clean
from mrmt3.score.live import LiveTempo
from mrmt3.score.options import NO_TEMPO, ScoreOptions
from mrmt3.utils import console, warning_lines


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of a run; see the options of `mrmt3 transcribe`.

  `beside`: outputs are next to the audio. `writers` has, by kind, what writes outputs of upper layers.
  """

  tracks: str = 'program'
  merge_below: float | None = None
  instruments: str | None = None
  batch: int = 1
  hop: int | None = None
  resume: bool = False
  quiet: bool = False
  progress: str = 'bar'
  score: ScoreOptions = dataclasses.field(default_factory=ScoreOptions)
  clean: bool = False
  beside: bool = False
  writers: Mapping[str, outputs.Writer] = dataclasses.field(default_factory=dict)


class Reporter:
  """Progress on stderr: a bar with the remaining time, JSON lines, or errors only."""

  def __init__(self, settings: Settings, jobs: list[Job]):
    """Read the durations in the audio files' headers, if progress is shown."""
    self._json = settings.progress == 'json'
    self._quiet, self._bar = settings.quiet, None
    self._done, self._begin = {}, time.perf_counter()
    shown = not settings.quiet and (self._json or sys.stderr.isatty())
    lengths = {id(job): audio_files.promised_seconds(job.audio) for job in jobs} if shown else {}
    self._lengths = {key: seconds for key, seconds in lengths.items() if seconds}
    if shown and jobs and not self._json:
      from tqdm import tqdm

      self._bar = tqdm(total=round(sum(self._lengths.values())) or None, unit='s', leave=False)

  def update(self, job: Job, seconds: float) -> None:
    """Report that `seconds` of a file's audio have been decoded."""
    self._done[id(job)] = seconds
    if self._quiet:
      return
    done = sum(self._done.values())
    if self._bar is not None:
      self._bar.set_description(console.printable(job.audio.name), refresh=False)
      self._bar.update(round(done) - self._bar.n)
    if self._json:
      took = time.perf_counter() - self._begin
      total = sum(self._lengths.values())
      left = took / done * max(0.0, total - done) if done and total else None
      self._write(event='progress', audio=str(job.audio), seconds=seconds, of=self._lengths.get(id(job)), left=left)

  def finished(self, job: Job, line: str, **facts) -> None:
    """Report that a file is finished."""
    if self._quiet:
      return
    if self._json:
      self._write(event='done', audio=str(job.audio), midi=str(job.midi), **facts)
    else:
      self._line(line)

  def failed(self, job: Job, error: UserError) -> None:
    """Report that a file could not be transcribed."""
    if self._json:
      self._write(event='error', audio=str(job.audio), error=str(error))
    else:
      self._line(f'mrmt3: error: {error}')

  def warn(self, text: str) -> None:
    """Report something odd about an input."""
    if self._quiet:
      return
    if self._json:
      self._write(event='warning', warning=text)
    else:
      self._line(f'mrmt3: warning: {text}')

  def all_finished(self, failed: int, total: int) -> None:
    """Report how many of all files failed."""
    if self._quiet or not failed:
      return
    if self._json:
      self._write(event='finished', files=total, failed=failed)
    else:
      self._line(f'{total - failed} of {total} files transcribed')

  def close(self) -> None:
    """Remove the bar."""
    if self._bar is not None:
      self._bar.close()

  def _line(self, text):
    if self._bar is not None:
      self._bar.clear()
    print(console.printable(text), file=sys.stderr, flush=True)

  def _write(self, **fields):
    fields = {name: round(value, 3) if isinstance(value, float) else value for name, value in fields.items()}
    self._line(json.dumps(fields))


def run_jobs(transcriber, jobs: list[Job], settings: Settings) -> int:
  """Run all jobs and return how many failed; the UserError of a single job is raised, unless progress is JSON."""
  reporter = Reporter(settings, jobs)
  with warning_lines.passed_to(reporter.warn):
    try:
      failed = _run_all(transcriber, jobs, settings, reporter)
    finally:
      reporter.close()
  reporter.all_finished(failed, len(jobs))
  return failed


def _run_all(transcriber, jobs, settings, reporter):
  failed = 0
  journals, begun = {}, {}
  model = ''
  if settings.resume:
    options = {'hop': settings.hop, 'instruments': settings.instruments}
    model = fingerprint((transcriber.params, transcriber.weights), transcriber.spec, options)

  def fail(job: Job, error: Exception) -> None:
    nonlocal failed
    if isinstance(error, ModuleNotFoundError) or (len(jobs) == 1 and settings.progress != 'json'):
      raise error
    reporter.failed(job, error)
    failed += 1

  def samples_of(job):
    job.check_names()  # here, so that the error is this job's alone
    yield from audio_files.audio_blocks(job.audio, transcriber.sample_rate)

  def pieces() -> Iterator[batched_pieces.Piece]:
    for job in jobs:
      if settings.resume and is_finished(job) and (not settings.beside or beside.is_own(job)):
        reporter.finished(job, f'{job.midi}: exists already', notes=None)
        continue
      begun[id(job)] = time.perf_counter()
      known = ()
      if settings.resume:
        try:
          journals[id(job)] = SegmentJournal(job.midi, job.audio, model)
        except UserError as error:
          fail(job, error)
          continue
        known = journals[id(job)].known
      yield batched_pieces.Piece(samples_of(job), job, known)

  def watched():
    for update in transcriber.run(
      pieces(), batch=min(settings.batch, max(1, len(jobs))), hop=settings.hop, instruments=settings.instruments
    ):
      job = update.piece.key
      if update.error is None:
        reporter.update(job, update.seconds)
        if settings.resume:
          journals[id(job)].add(update.segments)
      yield update

  try:
    for piece, result in batched_pieces.collect(watched()):
      job, error = piece.key, None
      try:
        if isinstance(result, Exception):
          raise result
        result = finish(result, settings)
        analysis = write_outputs(job, result, settings.score, settings.writers)
        if settings.resume and settings.beside:
          beside.record(job)
        took = time.perf_counter() - begun[id(job)]
        facts = {'notes': len(result.notes), 'seconds': result.seconds, 'took': took}
        odd = {name: value for name in ('is_silent', 'left_out') if (value := getattr(result, name))}
        reporter.finished(job, summary(job, result, took, analysis), **facts, **odd)
      except (UserError, ModuleNotFoundError) as caught:
        error = caught
      except Exception as caught:  # report the file and continue with the others
        message = ' '.join(str(caught).split())[:200]
        error = UserError(f'{job.audio}: {type(caught).__name__}: {message}')
        error.__cause__ = caught
      if settings.resume:
        journals[id(job)].close(done=error is None)
      if error is not None:
        fail(job, error)
  finally:
    for journal in journals.values():  # of files that are not finished
      journal.close(done=False)
  return failed


def is_finished(job: Job) -> bool:
  """Return whether a job's outputs exist, are not older than its audio, and have no journal of an unfinished run."""
  try:
    since = job.audio.stat().st_mtime_ns
    files = [file.stat().st_mtime_ns for file in job.files()]
  except OSError:
    return False
  return min(files) >= since and '-' not in job.outputs.values() and not journal_path(job.midi).exists()


def finish(result: Transcription, settings: Settings) -> Transcription:
  """Apply the track and merging settings to a transcription's notes."""
  notes = result.notes
  if settings.clean:
    notes = clean(notes, np.array([segment.start for segment in result.segments]))
  if settings.tracks == 'class':
    notes = map_to_slakh_classes(notes)
  if settings.merge_below is not None:
    notes = merge_small_instruments(notes, settings.merge_below)
  return dataclasses.replace(result, notes=notes)


def write_outputs(
  job: Job, result: Transcription, score: ScoreOptions, writers: Mapping[str, outputs.Writer] | None = None
) -> Analysis | None:
  """Write all files of a job, each atomically; UserError if one cannot be written.

  Returns the musical time of the piece, if the settings or outputs ask for it.
  """
  return outputs.write({'midi': job.midi, **job.outputs}, result, score, job.audio, writers)


def remarks(is_silent: bool, left_out: int) -> list[str]:
  """Return what is odd about a transcription, see `Transcription`."""
  found = []
  if is_silent:
    found.append(f'the audio is silent: no part of it is louder than {SILENT:g} dBFS')
  if left_out:
    found.append(f'{left_out} notes left out, which no instrument of --instruments can play')
  return found


def summary(job: Job, result: Transcription, took: float, analysis: Analysis | None = None) -> str:
  """Describe a transcription in one line: output file, duration, time, bars, and segments that were cut off."""
  count = len(instruments_of(result.notes))
  line = (
    f'{job.midi}: {console.counted(len(result.notes), "note")}, {console.counted(count, "instrument")}; '
    f'{result.seconds:.1f} s of audio in {took:.1f} s'
  )
  line = '; '.join([line, *([analysis.summary()] if analysis else []), *remarks(result.is_silent, result.left_out)])
  overflowed = result.stats.segments_without_eos
  return line + (f'; {overflowed} of {len(result.segments)} segments were cut off' if overflowed else '')


def run_pipe(
  transcriber, job: Job | None, settings: Settings, rate: int | None, channels: int, sample_format: str
) -> None:
  """Transcribe audio from stdin; each segment's notes are written to stdout as JSON lines when it is decoded.

  With a job, its files are written at the end. Raises UserError.
  """
  from mrmt3.audio import stdin_stream

  begin = time.perf_counter()
  descriptor = sys.stdin.fileno()
  rate, blocks = stdin_stream.open_sound(lambda count: os.read(descriptor, count), rate, channels, sample_format)
  mono = levels.watched(stdin_stream.mono_blocks(blocks, rate), stdin_stream.NAME)
  piece = batched_pieces.Piece(audio_files.resampled(mono, rate, transcriber.sample_rate), job)

  live = LiveTempo(settings.score.tempo) if settings.score.tempo != NO_TEMPO else None

  def watched():
    for update in transcriber.run([piece], hop=settings.hop or 1, instruments=settings.instruments):
      if update.error is not None:
        raise update.error
      for record in export.note_records(update.notes):
        print(json.dumps(record))
      if (
        live is not None
        and (record := live.add(update.notes, update.seconds, is_last=update.stats is not None)) is not None
      ):
        print(json.dumps({'event': 'score', **record}))
      sys.stdout.flush()
      yield update

  if job is None:
    left_out, is_silent = 0, False
    for update in watched():
      left_out, is_silent = left_out + update.left_out, update.is_silent
    if not settings.quiet:
      for remark in remarks(is_silent, left_out):
        print(f'-: {remark}', file=sys.stderr, flush=True)
    return
  ((_, result),) = batched_pieces.collect(watched())
  result = finish(result, settings)
  analysis = write_outputs(job, result, settings.score, settings.writers)
  took = time.perf_counter() - begin
  Reporter(settings, []).finished(
    job, summary(job, result, took, analysis), notes=len(result.notes), seconds=result.seconds, took=took
  )
