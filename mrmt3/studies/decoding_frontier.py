"""Onset F1 against instrument F1 of one checkpoint, moved along by a knob of decoding.

Pieces are transcribed freely first; then again with those instruments only that had at least a share of the notes. The knob
is that share: the higher it is, the fewer instruments appear that do not play, and the more that play are forbidden.
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
  """Returns (tables, figures, remarks) of a network on pieces; see `probe_study.run`."""
  del params
  free = {}

  def said_freely():
    if not free:
      free.update(probe_decoding.transcribe(transcriber, pieces, AS_USED))
    return free

  rows = []
  for share in SHARES:
    scores = results.get(
      f'share {share:g}',
      lambda share=share: scores_of(transcriber, pieces, _said(transcriber, pieces, said_freely(), share)),
      scores=list(SCORES),
    )
    name = f'{share:.0%} of the notes' if share else 'all instruments'
    rows.append(Row(name, scores, rows[0].name if rows else None))
  note = 'Instruments that have fewer of the notes of a first, free transcription may not be heard in the second.'
  table = Table('instruments that may be heard', SCORES, rows, tuple(SCORES), note)
  points = [(row.name, row.mean('onset_f1'), row.mean('instrument_detection_f1')) for row in rows]
  return (
    [table],
    [
      report.frontier({'checkpoint': points}, 'from all instruments to the few most heard'),
      report.strips(table, HEADLINE),
    ],
    [],
  )


def frequent(notes: np.ndarray, share: float) -> InstrumentChoice:
  """Returns the instruments that have at least a share of the notes of a table, and always the most frequent one."""
  instruments, counts = np.unique(np.where(notes['is_drum'], -1, notes['program']), return_counts=True)
  kept = instruments[(counts >= share * counts.sum()) | (counts == counts.max(initial=0))]
  return InstrumentChoice(frozenset(int(program) for program in kept if program >= 0), bool((kept == -1).any()))


def _said(transcriber, pieces, free, share):
  said = {}
  for piece in pieces:
    notes, _ = transcription.decode_segments(free[piece.name], transcriber.spec)
    choice = frequent(notes, share)
    if not len(notes) or len(choice.keep(notes)) == len(notes):
      said[piece.name] = free[piece.name]
      continue
    allowed = choice.allowed_tokens(transcriber.codec, transcriber.spec.network.vocab_size)
    said |= probe_decoding.transcribe(transcriber, [piece], AS_USED, allowed=allowed)
  return said
