"""What a checkpoint has to know besides its weights: network, front end, vocabulary and segment sizes."""

import dataclasses
import json

from mrmt3.errors import UserError
from mrmt3.framewise import harmonic_stacking
from mrmt3.network import T5Config
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.tokens.batched_parsing import token_ids
from mrmt3.vocabularies import VocabularyConfig, build_codec, num_embeddings, token_types

PRIOR_LAYOUTS = ('targets', 'start_token')

_PARTS = {'network': T5Config, 'spectrogram': SpectrogramConfig, 'vocabulary': VocabularyConfig}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
  """A model without its weights. Raises UserError for parts that do not fit each other.

  Attributes:
    network: sizes and kind of the network.
    spectrogram: the front end.
    vocabulary: the tokens.
    segment_frames: frames of a segment, the network's input length.
    targets_length: most tokens of a segment, EOS included, and the length prior tokens are padded to.
    prior_layout: how the model's own output becomes prior tokens: 'targets' as in training ([t1, ..., EOS, 0, ...]), or
      'start_token' with the start token in front ([0, t1, ..., EOS, 0, ...]), as MR-MT3's published inference.
    ties: whether a segment's tokens begin with a tie section, what sounds on from before; not in MT3's piano model.
  """

  network: T5Config
  spectrogram: SpectrogramConfig = dataclasses.field(default_factory=SpectrogramConfig)
  vocabulary: VocabularyConfig = dataclasses.field(default_factory=lambda: VocabularyConfig(num_velocity_bins=1))
  segment_frames: int = 256
  targets_length: int = 1024
  prior_layout: str = 'targets'
  ties: bool = True

  def __post_init__(self):
    for name, part in _PARTS.items():
      if not isinstance(getattr(self, name), part):
        raise UserError(f'model: {name} is {getattr(self, name)!r}; it must be a {part.__name__}')
    for name in ('segment_frames', 'targets_length'):
      value = getattr(self, name)
      if not isinstance(value, int) or isinstance(value, bool) or value < 2:
        raise UserError(f'model: {name} is {value!r}; it must be a whole number of at least 2')
    if self.prior_layout not in PRIOR_LAYOUTS:
      raise UserError(f'model: prior_layout is {self.prior_layout!r}; it must be one of {", ".join(PRIOR_LAYOUTS)}')
    if self.network.memory_length and not self.ties:
      raise UserError('model: a network with a memory needs ties, an empty prior segment being a tie and the end')
    try:
      codec = build_codec(self.vocabulary)
      needed = num_embeddings(codec)
    except (TypeError, ValueError) as error:
      raise UserError(f'model: {error}') from error
    if self.network.vocab_size < needed:
      raise UserError(f'model: network.vocab_size is {self.network.vocab_size}; the vocabulary needs {needed}')
    kinds = token_types(codec)
    for name in ('running_status', 'event_ends'):
      for pair in getattr(self.network, name):
        if pair not in kinds.values():
          raise UserError(
            f'model: network.{name} has {pair}, which is no kind of token; those of the vocabulary are {kinds}'
          )
    if self.network.copied_tokens:
      self._check_copying(codec)
    heard = (self.spectrogram.mel_lo_hz, self.spectrogram.mel_hi_hz)
    if self.network.front == harmonic_stacking.HARMONIC and (*heard, self.spectrogram.scaling) != (
      *harmonic_stacking.MEL_RANGE,
      'none',
    ):
      raise UserError(
        'model: the front {!r} reads log-mels of {} to {} Hz that are not scaled; these are of {} to {} Hz, scaling {!r}'.format(
          harmonic_stacking.HARMONIC, *harmonic_stacking.MEL_RANGE, *heard, self.spectrogram.scaling
        )
      )
    if self.network.memory_length > self.targets_length:
      raise UserError(
        f'model: network.memory_length is {self.network.memory_length}; the prior tokens are only '
        f'targets_length = {self.targets_length} long'
      )

  def _check_copying(self, codec):
    """Raises UserError where the network cannot copy proposals, given the vocabulary's codec."""
    wanted = tuple(token_ids(codec))
    if self.network.copied_tokens != wanted:
      raise UserError(f'model: network.copied_tokens are {self.network.copied_tokens}; the vocabulary has {wanted}')
    if not self.ties:
      raise UserError('model: network.copied_tokens need ties, in which what goes on from the segment before is said')
    rate = self.spectrogram.frame_rate / self.network.front_time_stride
    if rate != self.vocabulary.steps_per_second:
      raise UserError(
        f'model: network.copied_tokens need a state for every step; there are {float(rate):g} states a second and '
        f'{self.vocabulary.steps_per_second} steps'
      )

  def to_json(self) -> str:
    """Returns the specification as JSON text that `from_json` reads back exactly."""
    return json.dumps(dataclasses.asdict(self), indent=2) + '\n'

  @classmethod
  def from_json(cls, text: str) -> 'ModelSpec':
    """Reads what `to_json` wrote; fields that are left out take their defaults. Raises UserError for anything else."""
    try:
      values = json.loads(text)
    except ValueError as error:
      raise UserError(f'model: not JSON ({error})') from error
    values = _known_fields(cls, values, 'model')
    for name, part in _PARTS.items():
      if name in values:
        values[name] = part(**_known_fields(part, values[name], name))
    return cls(**values)


def _known_fields(cls, values, where: str) -> dict:
  """Returns a copy of `values` if they are a JSON object that `cls` can be built of, else raises UserError."""
  if not isinstance(values, dict):
    raise UserError(f'model: {where} is {values!r}; it must be a JSON object')
  fields = {field.name: field for field in dataclasses.fields(cls)}
  for name in values.keys() - fields.keys():
    raise UserError(f'model: {where} has an unknown field {name!r}; was it written by a newer version of mrmt3?')
  for name, field in fields.items():
    if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise UserError(f'model: {where} has no field {name!r}')
    default = field.default
    if name in values and isinstance(default, (bool, int, float, str)) and not _same_kind(values[name], default):
      raise UserError(f'model: {where}.{name} is {values[name]!r}; it must be a {type(default).__name__}')
  return dict(values)


def _same_kind(value, default) -> bool:
  if isinstance(default, float):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  return type(value) is type(default)
