"""The memory probe: predictions and loss of a network with other contents in its memory.

With joint cross-attention it also measures the share of cross-attention on the memory, by token type.
"""

import numpy as np

from mrmt3 import vocabularies
from mrmt3.errors import UserError
from mrmt3.inference import memory
from mrmt3.inference.batched_pieces import until_eos
from mrmt3.plots import charts
from mrmt3.studies import probe_decoding, report, teacher_forcing
from mrmt3.studies.memory_conditions import AS_USED, CONDITIONS, remembered
from mrmt3.studies.rows import Row, Table
from mrmt3.studies.scores import HEADLINE, SCORES, scores_of

_TRAINING = 'true prior segment'
_SHOWN = (AS_USED.name, '3 segments back', '20 % mistakes', "another piece's", 'empty')  # one per colour


def measure(transcriber, params, pieces, results):
  """Return (tables, figures, remarks) of a network on pieces; see `probe_study.run`. UserError if it has no memory."""
  network = transcriber.spec.network
  if not network.uses_prior:
    raise UserError('memory-probe: the checkpoint has no memory (L_agg = 0); choose another --checkpoint')
  conditions = [condition for condition in CONDITIONS if len(pieces) > 1 or not condition.of_another]
  remarks = [] if len(pieces) > 1 else ["With one piece there is no other piece's memory."]
  # 'said' and 'truth with': the names that stored results have.
  predicted = results.get('said', lambda: _predict(transcriber, pieces))
  as_used = {
    name: [transcriber.padded(np.array(tokens, np.int32)) for tokens in segments]
    for name, segments in predicted.items()
  }
  decoded = Table(
    'predictions',
    SCORES,
    [
      Row(
        c.name,
        results.get(f'said with {c.name}', lambda c=c: _decode(transcriber, pieces, c, as_used), scores=list(SCORES)),
        None if c is AS_USED else AS_USED.name,
      )
      for c in conditions
    ],
    tuple(SCORES),
    "Greedy decoding, segment by segment. The first row's memory holds the network's prediction of the prior segment.",
  )
  asked = [condition for condition in conditions if not condition.truth]
  costs = {
    c.name: results.get(f'truth with {c.name}', lambda c=c: _cost(transcriber, params, pieces, c)) for c in asked
  }
  types = [
    kind for kind in vocabularies.token_types(transcriber.codec) if _pooled(costs[AS_USED.name], kind) is not None
  ]
  losses = Table(
    'loss of the true tokens',
    {'loss': 'nats per token'},
    [_loss_row(c, costs[c.name], types) for c in asked],
    ('loss',),
    'Teacher forcing with the true prior segment in the memory, as in training. By type: all tokens of that type.',
  )
  by_type = {kind: {c.name: _pooled(costs[c.name], kind) for c in asked} for kind in types}
  tables = [decoded, losses]
  figures = [report.strips(decoded, HEADLINE), _loss_figure(by_type, [c.name for c in asked if c.name in _SHOWN])]
  if not network.num_memory_frames:
    remarks.append(
      'The network has no decoder, and so no cross-attention. Its probabilities are without the threshold.'
    )
    return tables, figures, remarks
  if network.decoupled_frames:
    remarks.append(
      'The network has decoupled cross-attention, so the memory has no share of a joint softmax. Compare the losses '
      'with other memory contents to see whether the memory is used.'
    )
    return tables, figures, remarks
  attention, shares = _attention(costs[AS_USED.name], types, transcriber)
  title = 'Share of cross-attention on the memory'
  figures.insert(1, report.Figure(title, charts.bars(shares, title), 'mean over layers, heads and tokens'))
  return [*tables, attention], figures, remarks


def _predict(transcriber, pieces):
  predicted = probe_decoding.transcribe(transcriber, pieces, AS_USED)
  return {name: [until_eos(tokens).tolist() for tokens in segments] for name, segments in predicted.items()}


def _decode(transcriber, pieces, condition, as_used):
  predicted = as_used if condition is AS_USED else probe_decoding.transcribe(transcriber, pieces, condition, as_used)
  return scores_of(transcriber, pieces, predicted)


def _cost(transcriber, params, pieces, condition):
  """Return {piece: {'loss': nats per token, 'types': {type: [nats, tokens, attention on the memory per layer]}}}."""
  result, rng = {}, np.random.default_rng(0)
  for number, piece in enumerate(pieces):
    source = pieces[(number + 1) % len(pieces)].targets if condition.of_another else piece.targets
    source = [source[index % len(source)] for index in range(len(piece.mel))]
    held = memory.joined(
      [remembered(transcriber, condition, source, segment, rng) for segment in range(len(piece.mel))]
    )
    loss, share = teacher_forcing.score(params, transcriber.spec, piece.mel, held, piece.targets)
    # The first segment has no prior segment under any condition, so it is not counted.
    counted = piece.targets > 0
    counted[0] &= len(counted) == 1
    types = {}
    for kind, (first, last) in vocabularies.token_types(transcriber.codec).items():
      of_type = counted & (piece.targets >= first) & (piece.targets <= last)
      if of_type.any():
        types[kind] = [float(loss[of_type].sum()), int(of_type.sum()), share[:, of_type].mean(axis=1).tolist()]
    result[piece.name] = {'loss': float(loss[counted].mean()), 'types': types}
  return result


def _pooled(costs, kind):
  """Return nats per token over all tokens of a type, None if there are none."""
  found = [piece['types'][kind] for piece in costs.values() if kind in piece['types']]
  return sum(entry[0] for entry in found) / sum(entry[1] for entry in found) if found else None


def _loss_row(condition, costs, types):
  name, baseline = (_TRAINING, None) if condition is AS_USED else (condition.name, _TRAINING)
  pieces = {piece: {'loss': cost['loss']} for piece, cost in costs.items()}
  return Row(name, pieces, baseline, {kind: f'{_pooled(costs, kind):.3f}' for kind in types})


def _attention(costs, types, transcriber):
  """Return the table of attention on the memory, and {type: [share]} for a chart."""
  network = transcriber.spec.network
  memory = network.num_memory_frames
  frames = network.num_context_frames(transcriber.spec.segment_frames)
  rows, shares = [], {}
  for kind in types:
    found = {name: piece['types'][kind] for name, piece in costs.items() if kind in piece['types']}
    pieces = {name: {'share': float(np.mean(entry[2]))} for name, entry in found.items()}
    layers = np.average([entry[2] for entry in found.values()], axis=0, weights=[entry[1] for entry in found.values()])
    rows.append(Row(kind, pieces, cells={f'layer {index}': f'{share:.3f}' for index, share in enumerate(layers)}))
    shares[kind] = [float(layers.mean())]
  note = (
    f'At true tokens of that type. With uniform attention over all {frames + memory} frames, the {memory} of the '
    f'memory would get {memory / (frames + memory):.3f}.'
  )
  return Table('share of cross-attention on the memory', {'share': 'share'}, rows, note=note), shares


def _loss_figure(by_type, names):
  top = max(max(values.values()) for values in by_type.values())
  top = float(np.ceil(10 * top) / 10)
  # The names of conditions are too long for an axis, so types are on the axis and each condition is a curve.
  systems = {name: {kind: values[name] for kind, values in by_type.items()} for name in names}
  chart = charts.curves(systems, list(by_type), 'type of token', 'nats per token', top)
  return report.Figure(
    'Loss of the true tokens by type',
    chart,
    'nats per token; lower is better',
    tuple(_TRAINING if name == AS_USED.name else name for name in names),
  )
