"""The memory probe: what a network says, and what the truth costs it, with other things in its memory; and how much of its
cross-attention lies on the memory's states, by the type of the token that is said, where these share a softmax with the sound's."""

import numpy as np

from mrmt3 import vocabularies
from mrmt3.errors import UserError
from mrmt3.inference import memory
from mrmt3.inference.batched_pieces import until_eos
from mrmt3.plots import charts
from mrmt3.studies import probe_decoding, probe_study, report, teacher_forcing
from mrmt3.studies.memory_conditions import AS_USED, CONDITIONS, remembered
from mrmt3.studies.rows import Row, Table
from mrmt3.studies.run import HEADLINE, SCORES

_TRAINING = "the prior segment's truth"
_SHOWN = (AS_USED.name, '3 segments back', '20 % mistakes', "another piece's", 'empty')  # as many as there are colours


def measure(transcriber, params, pieces, results):
  """Returns (tables, figures, remarks) of a network on pieces; see `probes.run`. UserError if it remembers nothing."""
  network = transcriber.spec.network
  if not network.remembers:
    raise UserError('memory-probe: the checkpoint has no memory (L_agg = 0); name another')
  conditions = [condition for condition in CONDITIONS if len(pieces) > 1 or not condition.of_another]
  remarks = [] if len(pieces) > 1 else ["Of one piece there is no other piece's memory."]
  said = results.get('said', lambda: _said(transcriber, pieces))
  as_used = {
    name: [transcriber.padded(np.array(tokens, np.int32)) for tokens in segments] for name, segments in said.items()
  }
  decoded = Table(
    'what is said',
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
    "Greedy decoding, segment after segment. The first row's memory is what the network itself said of the segment before.",
  )
  asked = [condition for condition in conditions if not condition.truth]
  costs = {
    c.name: results.get(f'truth with {c.name}', lambda c=c: _cost(transcriber, params, pieces, c)) for c in asked
  }
  types = [
    kind for kind in vocabularies.token_types(transcriber.codec) if _pooled(costs[AS_USED.name], kind) is not None
  ]
  losses = Table(
    'what the truth costs',
    {'loss': 'nats a token'},
    [_loss_row(c, costs[c.name], types) for c in asked],
    ('loss',),
    'Teacher forcing, the memory taken from the true prior segment, as in training. By type: all tokens of that type.',
  )
  by_type = {kind: {c.name: _pooled(costs[c.name], kind) for c in asked} for kind in types}
  tables = [decoded, losses]
  figures = [report.strips(decoded, HEADLINE), _loss_figure(by_type, [c.name for c in asked if c.name in _SHOWN])]
  if not network.memory_length:
    remarks.append(
      'The network copies what it proposes: it has no decoder, and so no cross-attention. Its chances are without the threshold.'
    )
    return tables, figures, remarks
  if network.states_apart:
    remarks.append(
      'The memory has a softmax of its own: whether it is read is told by what the truth costs with another memory, not by a share of the attention.'
    )
    return tables, figures, remarks
  attention, shares = _attention(costs[AS_USED.name], types, transcriber)
  title = 'Share of cross-attention on the memory'
  figures.insert(1, report.Figure(title, charts.bars(shares, title), 'mean over layers, heads and tokens'))
  return [*tables, attention], figures, remarks


def _said(transcriber, pieces):
  said = probe_decoding.transcribe(transcriber, pieces, AS_USED)
  return {name: [until_eos(tokens).tolist() for tokens in segments] for name, segments in said.items()}


def _decode(transcriber, pieces, condition, as_used):
  said = as_used if condition is AS_USED else probe_decoding.transcribe(transcriber, pieces, condition, as_used)
  return probe_study.scores_of(transcriber, pieces, said)


def _cost(transcriber, params, pieces, condition):
  """Returns {piece: {'loss': nats a token, 'types': {type: [nats, tokens, share of attention on the memory a layer]}}}."""
  result, rng = {}, np.random.default_rng(0)
  for number, piece in enumerate(pieces):
    source = pieces[(number + 1) % len(pieces)].targets if condition.of_another else piece.targets
    source = [source[index % len(source)] for index in range(len(piece.mel))]
    held = memory.joined(
      [remembered(transcriber, condition, source, segment, rng) for segment in range(len(piece.mel))]
    )
    loss, share = teacher_forcing.score(params, transcriber.spec, piece.mel, held, piece.targets)
    # The first segment has no prior one, whatever the condition: it says nothing of the memory.
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
  """Returns nats a token over all tokens of a type, None where there are none."""
  found = [piece['types'][kind] for piece in costs.values() if kind in piece['types']]
  return sum(entry[0] for entry in found) / sum(entry[1] for entry in found) if found else None


def _loss_row(condition, costs, types):
  name, against = (_TRAINING, None) if condition is AS_USED else (condition.name, _TRAINING)
  pieces = {piece: {'loss': cost['loss']} for piece, cost in costs.items()}
  return Row(name, pieces, against, {kind: f'{_pooled(costs, kind):.3f}' for kind in types})


def _attention(costs, types, transcriber):
  """Returns the table of attention on the memory, and {type: [share]} for a chart."""
  network = transcriber.spec.network
  memory = network.memory_length * network.memory_segments
  states = network.num_states(transcriber.spec.segment_frames) + network.proposals
  rows, shares = [], {}
  for kind in types:
    found = {name: piece['types'][kind] for name, piece in costs.items() if kind in piece['types']}
    pieces = {name: {'share': float(np.mean(entry[2]))} for name, entry in found.items()}
    layers = np.average([entry[2] for entry in found.values()], axis=0, weights=[entry[1] for entry in found.values()])
    rows.append(Row(kind, pieces, cells={f'layer {index}': f'{share:.3f}' for index, share in enumerate(layers)}))
    shares[kind] = [float(layers.mean())]
  note = (
    f"While a true token of that type is said. If all {states + memory} states got the same, the memory's {memory} would get "
    f'{memory / (states + memory):.3f}.'
  )
  return Table('share of cross-attention on the memory', {'share': 'share'}, rows, note=note), shares


def _loss_figure(by_type, names):
  top = max(max(values.values()) for values in by_type.values())
  top = float(np.ceil(10 * top) / 10)
  # Names of conditions are too long for an axis: the types are the axis, a curve is a condition.
  systems = {name: {kind: values[name] for kind, values in by_type.items()} for name in names}
  chart = charts.curves(systems, list(by_type), 'type of token', 'nats a token', top)
  return report.Figure(
    'What the truth costs, by type of token',
    chart,
    'nats a token; lower is better',
    tuple(_TRAINING if name == AS_USED.name else name for name in names),
  )
