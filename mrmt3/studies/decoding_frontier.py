"""Trade-off between onset F1 and instrument F1 of one checkpoint, controlled by a threshold on instruments.

Each piece is transcribed twice: first without restriction, then only with the instruments that had at least a given
share of the notes. A higher threshold removes more wrong instruments, and also more right ones.
"""

import numpy as np

from mrmt3.inference import transcription
from mrmt3.inference.instrument_filter import InstrumentChoice
from mrmt3.studies import probe_decoding, report
from mrmt3.studies.memory_conditions import AS_USED
from mrmt3.studies.rows import Row, Table
from mrmt3.studies.scores import HEADLINE, SCORES, scores_of

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


def measure(transcriber, params, pieces, results):
  """Return (tables, figures, remarks) of a network on pieces; see `probe_study.run`."""
  del params
  free = {}

  def unrestricted():
    if not free:
      free.update(probe_decoding.transcribe(transcriber, pieces, AS_USED))
    return free

  rows = []
  for share in SHARES:
    scores = results.get(
      f'share {share:g}',
      lambda share=share: scores_of(transcriber, pieces, _restricted(transcriber, pieces, unrestricted(), share)),
      scores=list(SCORES),
    )
    name = f'{share:.0%} of the notes' if share else 'all instruments'
    rows.append(Row(name, scores, rows[0].name if rows else None))
  note = 'The second transcription excludes instruments with a lower share of the notes of the first, unrestricted one.'
  table = Table('allowed instruments', SCORES, rows, tuple(SCORES), note)
  points = [(row.name, row.mean('onset_f1'), row.mean('instrument_detection_f1')) for row in rows]
  return (
    [table],
    [
      report.frontier({'checkpoint': points}, 'from all instruments to the most frequent ones'),
      report.strips(table, HEADLINE),
    ],
    [],
  )


def frequent(notes: np.ndarray, share: float) -> InstrumentChoice:
  """Return the instruments with at least a share of the notes in a note array, and always the most frequent one."""
  instruments, counts = np.unique(np.where(notes['is_drum'], -1, notes['program']), return_counts=True)
  kept = instruments[(counts >= share * counts.sum()) | (counts == counts.max(initial=0))]
  return InstrumentChoice(frozenset(int(program) for program in kept if program >= 0), bool((kept == -1).any()))


def _restricted(transcriber, pieces, free, share):
  """Return each piece's tokens, transcribed with frequent instruments only; `free` are the unrestricted tokens."""
  predicted = {}
  for piece in pieces:
    notes, _ = transcription.decode_segments(free[piece.name], transcriber.spec)
    choice = frequent(notes, share)
    if not len(notes) or len(choice.keep(notes)) == len(notes):
      predicted[piece.name] = free[piece.name]
      continue
    allowed = choice.allowed_tokens(transcriber.codec, transcriber.spec.network.vocab_size)
    predicted |= probe_decoding.transcribe(transcriber, [piece], AS_USED, allowed=allowed)
  return predicted
