"""The order probe: a network's loss if the events of one time step are written in another order.

The events are simultaneous, so their order is arbitrary. An order-invariant network gives all orders the same
probability and the same loss. A network trained on one order has a higher loss for others.
"""

import numpy as np

from mrmt3 import vocabularies
from mrmt3.inference import memory
from mrmt3.plots import charts
from mrmt3.studies import report, teacher_forcing
from mrmt3.studies.memory_conditions import AS_USED, remembered
from mrmt3.studies.rows import Row, Table
from mrmt3.tokens.shuffling import Shuffle

ORDERS = 4
WRITTEN = 'as written'
WAYS = {
  WRITTEN: (False, False),
  're-ordered': (True, False),
  're-ordered in the memory': (False, True),
  're-ordered in both': (True, True),
}
_SCORES = {
  'loss': 'nats per token',
  'segment_loss': 'nats per segment',
  'spread': 'spread over orders, nats per segment',
}


def measure(transcriber, params, pieces, results):
  """Return (tables, figures, remarks) of a network on pieces; see `probe_study.run`."""
  found = {
    way: results.get(way, lambda which=which: _measure(transcriber, params, pieces, *which))
    for way, which in WAYS.items()
  }
  kinds = list(vocabularies.token_types(transcriber.codec))
  rows = []
  for way, costs in found.items():
    scores = {name: {score: cost[score] for score in _SCORES} for name, cost in costs.items()}
    rows.append(Row(way, scores, None if way == WRITTEN else WRITTEN, _by_type(costs, kinds)))
  note = (
    f'Teacher forcing; mean over {ORDERS} random orders, permuted like token shuffling in training (note-offs among '
    'note-offs, note-ons among note-ons). The spread is the standard deviation over orders. By type: nats per token.'
  )
  table = Table('events of one time step', _SCORES, rows, ('segment_loss',), note)
  top = max(max(row.values('loss')) for row in rows)
  # The chart shows values within 0..1.
  shown = {row.name: [(name, scores['loss'] / top) for name, scores in sorted(row.pieces.items())] for row in rows}
  figure = report.Figure(
    'Loss by order of events',
    charts.strips(shown, 'Loss by order'),
    f'dots are pieces, ticks are means; 1.0 is {top:.3f} nats per token',
  )
  remarks = []
  if not transcriber.spec.network.has_decoder:
    remarks.append(
      'The network has no decoder: its note candidates come in the written order, so no other order can be likely.'
    )
  return [table], [figure], remarks


def _by_type(costs, kinds):
  """Return {type: nats per token over all tokens of the type}, as text."""
  cells = {}
  for kind in kinds:
    entries = [cost['types'][kind] for cost in costs.values() if kind in cost['types']]
    if entries:
      cells[kind] = f'{sum(nats for nats, _ in entries) / sum(count for _, count in entries):.3f}'
  return cells


def _measure(transcriber, params, pieces, targets_too, memory_too):
  """Return {piece: loss, segment_loss, spread, types: {type: [nats, tokens]}}."""
  spec, result = transcriber.spec, {}
  types = vocabularies.token_types(transcriber.codec)
  for number, piece in enumerate(pieces):
    sums, counts, by_type = [], 0, {}
    for order in range(ORDERS if targets_too or memory_too else 1):
      # All rows use the same orders, so that they differ in nothing else.
      rng = np.random.default_rng((number, order))
      shuffled = piece.shuffled(spec, Shuffle(), rng) if targets_too or memory_too else piece.targets
      prior = shuffled if memory_too else piece.targets
      held = memory.joined(
        [remembered(transcriber, AS_USED, list(prior), segment, rng) for segment in range(len(piece.mel))]
      )
      targets = shuffled if targets_too else piece.targets
      loss, _ = teacher_forcing.score(params, spec, piece.mel, held, targets)
      sums.append(np.where(targets > 0, loss, 0).sum(axis=1))
      counts += int((targets > 0).sum())
      for kind, (first, last) in types.items():
        of_type = (targets >= first) & (targets <= last)
        if of_type.any():
          nats, tokens = by_type.get(kind, (0.0, 0))
          by_type[kind] = [nats + float(loss[of_type].sum()), tokens + int(of_type.sum())]
    sums = np.stack(sums)
    result[piece.name] = {
      'loss': float(sums.sum() / counts),
      'segment_loss': float(sums.mean()),
      'spread': float(sums.std(axis=0).mean()),
      'types': by_type,
    }
  return result
