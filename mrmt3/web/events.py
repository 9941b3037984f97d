"""News of a job as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from mrmt3.web import wire
from mrmt3.web.jobs import Job

KEEP_ALIVE_SECONDS = 15.0
_MAX_NOTES = 2000  # in one event


async def stream(job: Job, position: Callable[[], int | None], start: int = 0) -> AsyncIterator[str]:
  """Yield events until the job is finished.

  `state` has the job's record, `notes` the notes that are new, in the order of completion, and `end` the record at
  last. The id of an event is the number of notes so far: a client that connects again goes on behind it.

  Args:
    job: the job.
    position: returns its place in the queue.
    start: number of notes that the client has.
  """
  loop, changed = asyncio.get_running_loop(), asyncio.Event()

  def listener():
    try:
      loop.call_soon_threadsafe(changed.set)
    except RuntimeError:  # the server is ending
      job.unlisten(listener)

  job.listen(listener)
  try:
    sent = None
    while True:
      changed.clear()
      is_last = job.is_finished  # before the notes are read: none come after it
      notes, count = job.notes_from(start)
      for first in range(0, len(notes), _MAX_NOTES):
        part = notes[first : first + _MAX_NOTES]
        yield _event('notes', {'notes': wire.note_records(part)}, start + first + len(part))
      start = count
      record = job.record(position())
      if is_last:
        yield _event('end', record, count)
        return
      if record != sent:
        yield _event('state', record, count)
        sent = record
      try:
        await asyncio.wait_for(changed.wait(), 1.0 if record['position'] else KEEP_ALIVE_SECONDS)
      except TimeoutError:
        if record['position'] is None:
          yield ': still there\n\n'
  finally:
    job.unlisten(listener)


def _event(name: str, data: dict, number: int) -> str:
  return f'event: {name}\nid: {number}\ndata: {json.dumps(data)}\n\n'
