"""ModelSpec as JSON, the model.json of every checkpoint.

Files that were written before networks had kinds are read too: their fields tell which network it is.
"""

import dataclasses
import json

from mrmt3 import model_registry
from mrmt3.config import PARTS, ModelSpec
from mrmt3.decoding.options import DecodingConfig
from mrmt3.errors import UserError, first_line
from mrmt3.utils import strict_json

_KIND = 'kind'
# Old names of fields, where a field has only been renamed.
_RENAMED = {
  'memory_softmax': 'memory_attention',
  'front_time_stride': 'time_stride',
  'state_positions': 'output_positions',
  'proposals': 'num_candidates',
  'copy_threshold': 'emission_threshold',
  'instrument_memory': 'instrument_prior',
}
_MEMORY_ATTENTION = {'shared': 'joint', 'own': 'decoupled'}
# Fields of the old flat configuration, with the defaults that mean plain MR-MT3.
_BEYOND_MR_MT3 = {
  'front': 'linear',
  'time_stride': 1,
  'output_positions': False,
  'num_candidates': 0,
  'running_status': [],
  'event_ends': [],
}
_ONLY_FRAMEWISE = ('copied_tokens', 'emission_threshold', 'instrument_prior')
# Fields of the decoder and its memory, which a network without one had all the same.
_NOT_FRAMEWISE = (
  'front',
  'num_decoder_layers',
  'logits_via_embedding',
  'memory_length',
  'memory_layers',
  'memory_segments',
  'memory_attention',
  'decoder_padding_masks',
  'running_status',
  'event_ends',
  'copied_tokens',
)
# The old flat configuration, in its order.
_FLAT_DEFAULTS = {
  'dtype': 'float32',
  'emb_dim': 512,
  'num_heads': 6,
  'num_encoder_layers': 8,
  'num_decoder_layers': 8,
  'head_dim': 64,
  'mlp_dim': 1024,
  'mlp_activations': ('gelu', 'linear'),
  'dropout_rate': 0.1,
  'logits_via_embedding': False,
  'positions': 'mt3',
  'memory_length': 0,
  'memory_layers': 1,
  'memory_segments': 1,
  'memory_softmax': 'shared',
  'initializers': 'mt3',
  'dropout_masks': 'mt3',
  'decoder_padding_masks': True,
  'front': 'linear',
  'front_channels': (12, 48, 32, 64),
  'front_time_stride': 1,
  'state_positions': False,
  'proposals': 0,
  'running_status': (),
  'event_ends': (),
  'say_once': False,
  'copied_tokens': (),
  'copy_threshold': 0.0,
  'instrument_memory': 0.0,
}
_FLAT_KINDS = ('mr_mt3', 'framewise', 'hybrid')
_RENAMED_BACK = {new: old for old, new in _RENAMED.items()}


def to_json(spec: ModelSpec) -> str:
  """Return a specification as JSON text that `from_json` reads back exactly."""
  values = dataclasses.asdict(spec)
  values['network'] = {_KIND: spec.network.kind, **values['network']}
  return json.dumps(values, indent=2) + '\n'


def fingerprint_text(spec: ModelSpec) -> str:
  """Return a text that identifies a specification, the same from version to version.

  Journals and results are claimed by digests of it, so it is the flat JSON that the first versions wrote, where a
  specification could be written so.
  """
  flat = _flat_network(spec)
  if flat is None:
    return to_json(spec)
  values = {name: value for name, value in dataclasses.asdict(spec).items() if name != 'decoding'}
  if later := _later_decoding(spec.decoding):
    values['decoding'] = later
  return json.dumps({**values, 'network': flat}, indent=2) + '\n'


def fingerprint_repr(spec: ModelSpec) -> str:
  """Return a text like `fingerprint_text` in the form of the first versions' `repr`; task names are digests of it."""
  flat = _flat_network(spec)
  if flat is None:
    return repr(spec)
  network = ', '.join(f'{name}={value!r}' for name, value in flat.items())
  rest = [field.name for field in dataclasses.fields(spec) if field.name not in ('network', 'decoding')]
  return f'ModelSpec(network=T5Config({network}), {", ".join(f"{name}={getattr(spec, name)!r}" for name in rest)})'


def _later_decoding(decoding: DecodingConfig) -> dict:
  """Return the decoding options that the first versions did not have, where they are not the defaults."""
  fields = dataclasses.asdict(decoding)
  return {
    field.name: fields[field.name]
    for field in dataclasses.fields(decoding)
    if field.name != 'no_repeated_events' and fields[field.name] != field.default
  }


def _flat_network(spec: ModelSpec) -> dict | None:
  """Return a network in the flat configuration of the first versions, None if they had no such model."""
  decoding = dataclasses.replace(spec.decoding, no_repeated_events=False)
  if spec.network.kind not in _FLAT_KINDS or decoding != DecodingConfig():
    return None
  network = {_RENAMED_BACK.get(field.name, field.name): field.name for field in dataclasses.fields(spec.network)}
  network = {old: getattr(spec.network, new) for old, new in network.items()}
  if not network.keys() <= {*_FLAT_DEFAULTS, 'vocab_size', 'event_state', 'last_event'}:
    return None
  ids, flat = spec.token_ids, {**_FLAT_DEFAULTS, **network}
  if 'memory_softmax' in network:
    flat['memory_softmax'] = {new: old for old, new in _MEMORY_ATTENTION.items()}[network['memory_softmax']]
  if flat.pop('event_state', False):
    flat['running_status'] = ids.state
  if flat.pop('last_event', False):
    flat['event_ends'] = ids.event_ends
  if spec.network.kind == 'framewise':
    flat |= {'front': 'harmonic', 'copied_tokens': tuple(ids)}
  flat['say_once'] = spec.decoding.no_repeated_events
  return {name: flat[name] for name in ('vocab_size', *_FLAT_DEFAULTS)}


def from_json(text: str) -> ModelSpec:
  """Read what `to_json` wrote, now or before; fields that are left out take their defaults.

  Raises:
    UserError: for anything else.
  """
  try:
    values = strict_json.loads(text)
  except ValueError as error:
    raise UserError(f'model: not JSON, or broken ({first_line(error)})') from error
  try:
    return _build(values)
  except (TypeError, ValueError, ArithmeticError, RecursionError) as error:  # a value that no check expects
    raise UserError(f'model: a value is of the wrong kind ({first_line(error)})') from error


def _build(values) -> ModelSpec:
  if isinstance(values, dict) and isinstance(values.get('network'), dict) and _KIND not in values['network']:
    values = _with_kind(values)
  values = _known_fields(ModelSpec, values, 'model')
  for name, part in PARTS.items():
    if name not in values:
      continue
    fields = values[name]
    if name == 'network':
      fields = dict(fields) if isinstance(fields, dict) else fields
      part = model_registry.network_class(fields.pop(_KIND)) if isinstance(fields, dict) else part
    values[name] = part(**_known_fields(part, fields, name))
  return ModelSpec(**values)


def _with_kind(values: dict) -> dict:
  """Return the values of an old file in today's form."""
  network = values['network']
  for before, now in _RENAMED.items():
    if before in network and now in network:
      raise UserError(f'model: network has both {before!r} and {now!r}, an old and a new name of one field')
  old = {_RENAMED.get(name, name): value for name, value in network.items()}
  if 'memory_attention' in old:
    attention = old['memory_attention']
    old['memory_attention'] = _MEMORY_ATTENTION.get(attention, attention) if isinstance(attention, str) else attention
  values = {**values, 'decoding': dataclasses.asdict(DecodingConfig(bool(old.pop('say_once', False))))}
  beyond = {name: old.get(name, default) for name, default in _BEYOND_MR_MT3.items()}
  if old.get('copied_tokens'):
    # The old defaults, where a field is left out.
    network = {'time_stride': 1, 'output_positions': False, 'emission_threshold': 0.0, 'instrument_prior': 0.0, **old}
    network = {name: value for name, value in network.items() if name not in _NOT_FRAMEWISE}
    kind = 'framewise'
  elif beyond != _BEYOND_MR_MT3:
    network = {name: value for name, value in (old | beyond).items() if name not in _ONLY_FRAMEWISE}
    network['event_state'] = bool(network.pop('running_status'))
    network['last_event'] = bool(network.pop('event_ends'))
    kind = 'hybrid'
  else:
    dropped = (*_BEYOND_MR_MT3, 'front_channels', *_ONLY_FRAMEWISE)
    network = {name: value for name, value in old.items() if name not in dropped}
    kind = 'mr_mt3'
  return {**values, 'network': {_KIND: kind, **network}}


def _known_fields(cls, values, where: str) -> dict:
  """Return a copy of `values` if they are a JSON object that `cls` can be built of, else raise UserError."""
  if not isinstance(values, dict):
    raise UserError(f'model: {where} is {values!r:.80}; it must be a JSON object')
  fields = {field.name: field for field in dataclasses.fields(cls)}
  for name in values.keys() - fields.keys():
    raise UserError(f'model: {where} has an unknown field {name!r:.80}; was it written by a newer version of mrmt3?')
  for name, field in fields.items():
    if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise UserError(f'model: {where} has no field {name!r}')
    default = field.default
    if name in values and isinstance(default, (bool, int, float, str)) and not _same_kind(values[name], default):
      raise UserError(f'model: {where}.{name} is {values[name]!r:.80}; it must be a {type(default).__name__}')
  return dict(values)


def _same_kind(value, default) -> bool:
  if isinstance(default, float):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  return type(value) is type(default)
