"""The thread that decodes: one model, a fair queue, and a few jobs at a time, a step of each in turn."""

import logging
import threading
import time
from collections.abc import Iterator

import numpy as np

from mrmt3.audio import files as audio_files
from mrmt3.errors import UserError, first_line, system_error
from mrmt3.inference import batched_pieces
from mrmt3.utils import warning_lines
from mrmt3.web import jobs
from mrmt3.web.fair_queue import FairQueue
from mrmt3.web.metrics import Metrics
from mrmt3.web.settings import Settings
from mrmt3.web.store import Store

_LOG = logging.getLogger(__name__)
STOP_SECONDS = 3.0


class QueueFull(UserError):
  """The queue has no room for another job."""


class Worker:
  """Decodes jobs in a thread of its own, and keeps the finished ones."""

  def __init__(self, transcriber, store: Store, settings: Settings, metrics: Metrics):
    """Load the finished jobs of the store.

    Args:
      transcriber: the model, see `inference.transcriber.Transcriber`.
      store: the folder of the jobs.
      settings: limits.
      metrics: counters.
    """
    self._transcriber, self._store, self._settings, self._metrics = transcriber, store, settings, metrics
    self._queue, self._active = FairQueue(), []
    self._jobs = {job.id: job for job in store.load()}
    self._changed = threading.Condition()
    self._is_stopping = False
    self._thread = threading.Thread(target=self._run, name='transcribe', daemon=True)

  def start(self) -> None:
    """Begin to decode."""
    self._thread.start()

  def stop(self, seconds: float = STOP_SECONDS) -> None:
    """End the thread after the step it is at, and wait for it that long: nothing can interrupt a compilation."""
    with self._changed:
      self._is_stopping = True
      self._changed.notify_all()
    if self._thread.is_alive():
      self._thread.join(seconds)

  @property
  def is_alive(self) -> bool:
    """Whether jobs are being decoded or could be."""
    return self._thread.is_alive()

  def check_room(self, arriving: int = 0) -> None:
    """Raise QueueFull if no further job can wait; `arriving` is how many are being uploaded."""
    with self._changed:
      self._check_room(arriving)

  def _check_room(self, arriving=0):
    waiting = len(self._queue) + arriving
    if waiting >= self._settings.max_queue:
      raise QueueFull(f'{waiting} jobs are waiting, the most that may; try again later')

  def submit(self, job: jobs.Job) -> None:
    """Append a job to the queue; QueueFull if there is no room."""
    with self._changed:
      self._check_room()
      self._jobs[job.id] = job
      self._queue.add(*job.client, job)
      self._changed.notify_all()

  def get(self, job_id: str) -> jobs.Job | None:
    """Return a job by its id."""
    return self._jobs.get(job_id)

  def all(self) -> list[jobs.Job]:
    """Return all jobs, oldest first."""
    with self._changed:
      return list(self._jobs.values())

  def position(self, job: jobs.Job) -> int | None:
    """Return a job's place in the queue, from 1; None if it is not waiting."""
    return self.positions().get(job.id)

  def positions(self) -> dict[str, int]:
    """Return the place in the queue of each waiting job by its id."""
    with self._changed:
      return {job.id: place for place, job in enumerate(self._queue.order(), 1)}

  def cancel(self, job: jobs.Job) -> None:
    """Cancel a job that is not finished; remove one that is."""
    with self._changed:
      if job.is_finished:
        self._jobs.pop(job.id, None)
        self._store.remove(job)
        return
      job.is_cancelled = True
      was_waiting = self._queue.remove(job)
    if was_waiting:
      self._end(job, jobs.CANCELLED)

  def _run(self):
    while True:
      with self._changed:
        while not self._is_stopping and not self._active and not len(self._queue):
          self._changed.wait()
        if self._is_stopping:
          return
        begun = []
        while len(self._active) < self._settings.max_jobs and (job := self._queue.take()) is not None:
          self._active.append((job, self._updates(job)))
          begun.append(job)
      for job in begun:
        job.start()
      for active in list(self._active):
        if self._is_stopping:
          break
        if not self._step(*active):
          self._active.remove(active)

  def _step(self, job: jobs.Job, updates: Iterator[batched_pieces.Update]) -> bool:
    """Decode the next segments of a job; returns whether there are more."""
    if job.is_cancelled:
      updates.close()
      self._end(job, jobs.CANCELLED)
      return False
    begin, before = time.perf_counter(), job.done_seconds
    try:
      with warning_lines.in_this_thread(job.warn):
        update = next(updates)
      if update.error is not None:
        raise update.error
    except UserError as error:
      self._end(job, jobs.FAILED, str(error))
      return False
    except Exception as error:
      _LOG.exception('job %s failed', job.id)
      self._end(job, jobs.FAILED, system_error(error) or f'{type(error).__name__}: {first_line(error)}')
      return False
    finally:
      self._metrics.count('decode_seconds_total', time.perf_counter() - begin)
    self._metrics.count('audio_seconds_total', max(0.0, update.seconds - before))
    job.add(update.notes, update.seconds)
    job.facts['is_silent'] = update.is_silent
    job.facts['left_out'] = job.facts.get('left_out', 0) + update.left_out
    if update.stats is None:
      return True
    job.seconds = update.seconds
    self._end(job, jobs.DONE)
    return False

  def _updates(self, job) -> Iterator[batched_pieces.Update]:
    piece = batched_pieces.Piece(self._samples(job), job)
    yield from self._transcriber.run(
      [piece], hop=1, instruments=job.options.instruments, has_memory=job.options.memory != 'none'
    )

  def _samples(self, job) -> Iterator[np.ndarray]:
    """Yield the job's audio; UserError if it is longer than its header says and than is allowed."""
    rate, count = self._transcriber.sample_rate, 0
    for block in audio_files.audio_blocks(job.audio, rate):
      count += len(block)
      check_length(count / rate, self._settings)
      yield block

  def _end(self, job, state, error=None):
    facts = job.facts
    job.finished = time.time()
    if state == jobs.DONE:
      try:
        self._store.save(job)
      except UserError as failed:
        _LOG.error('%s', failed)
        job.warn('the transcription could not be kept on disk')
    job.finish(state, error, **facts)
    self._metrics.count('jobs_total', state=state)
    with self._changed:
      finished = [other for other in self._jobs.values() if other.is_finished]
      for old in finished[: max(0, len(finished) - self._settings.keep)]:
        del self._jobs[old.id]
        self._store.remove(old)
    if state != jobs.DONE:
      self._store.remove(job)


def check_length(seconds: float, settings: Settings) -> None:
  """Raise UserError if a recording is too long."""
  if seconds > settings.max_seconds:
    raise UserError(f'the recording is longer than {settings.max_minutes:g} minutes; send a part of it')
