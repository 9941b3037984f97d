"""The token vocabulary of MT3 and MR-MT3: event types, regular ids and model ids.

A model id is a regular id of the codec plus `SPECIAL_TOKENS` (padding, end of sequence, unknown). After them there are
`NUM_EXTRA_IDS` unused ids. Embedding tables are rounded up to a multiple of 128 (as in MT3).

`GenericTokenVocabulary` and `vocabulary_from_codec` import seqio when they are first used.
"""

import dataclasses
import math
import sys
from collections.abc import Callable

import numpy as np

from mrmt3.event_codec import Codec, EventRange
from mrmt3.special_tokens import DECODED_EOS_ID, DECODED_INVALID_ID, EOS_ID, SPECIAL_TOKENS, UNK_ID
from mrmt3.utils.tensors import is_tensor

DEFAULT_STEPS_PER_SECOND = 100
DEFAULT_MAX_SHIFT_SECONDS = 10
DEFAULT_NUM_VELOCITY_BINS = 127

NUM_EXTRA_IDS = 100

MIN_PITCH, MAX_PITCH = 0, 127
MIN_PROGRAM, MAX_PROGRAM = 0, 127
MAX_VELOCITY = 127
PROGRAMS_PER_MIDI_CLASS = 8

_EMBEDDINGS_MULTIPLE = 128


@dataclasses.dataclass(frozen=True)
class VocabularyConfig:
  """Vocabulary config.

  Attributes:
    steps_per_second: time resolution of the tokens.
    max_shift_seconds: longest time shift of one token, s.
    num_velocity_bins: number of velocity bins, without 0, which means note-off. The multi-instrument models have 1.
  """

  steps_per_second: int = DEFAULT_STEPS_PER_SECOND
  max_shift_seconds: int = DEFAULT_MAX_SHIFT_SECONDS
  num_velocity_bins: int = DEFAULT_NUM_VELOCITY_BINS

  @property
  def abbrev_str(self) -> str:
    """Abbreviation of the differences from the defaults, for task names (as in MT3): 'vb1' for one velocity bin."""
    parts = []
    if self.steps_per_second != DEFAULT_STEPS_PER_SECOND:
      parts.append(f'ss{self.steps_per_second}')
    if self.max_shift_seconds != DEFAULT_MAX_SHIFT_SECONDS:
      parts.append(f'ms{self.max_shift_seconds}')
    if self.num_velocity_bins != DEFAULT_NUM_VELOCITY_BINS:
      parts.append(f'vb{self.num_velocity_bins}')
    return ''.join(parts)


def build_codec(vocab_config: VocabularyConfig) -> Codec:
  """Return the codec with the event types shift, pitch, velocity, tie, program and drum.

  Raises:
    ValueError: the longest shift is below one step, or the number of velocity bins is out of range.
  """
  config, bins = vocab_config, vocab_config.num_velocity_bins
  max_shift_steps = round(config.steps_per_second * config.max_shift_seconds)
  if config.steps_per_second <= 0 or max_shift_steps < 1 or not 1 <= bins <= MAX_VELOCITY:
    raise ValueError(f'{config}: the longest shift must be at least one step, and num_velocity_bins 1..{MAX_VELOCITY}')
  return Codec(
    max_shift_steps,
    config.steps_per_second,
    [
      EventRange('pitch', MIN_PITCH, MAX_PITCH),
      EventRange('velocity', 0, bins),
      EventRange('tie', 0, 0),
      EventRange('program', MIN_PROGRAM, MAX_PROGRAM),
      EventRange('drum', MIN_PITCH, MAX_PITCH),
    ],
  )


def num_embeddings(vocabulary) -> int:
  """Return the number of rows of an embedding table: all ids, rounded up to a multiple of 128.

  `vocabulary` is a seqio vocabulary, as in MT3, or a `Codec` or `VocabularyConfig`.
  """
  if isinstance(vocabulary, VocabularyConfig):
    vocabulary = build_codec(vocabulary)
  if isinstance(vocabulary, Codec):
    num_ids = SPECIAL_TOKENS + vocabulary.num_classes + NUM_EXTRA_IDS
  else:
    num_ids = vocabulary.vocab_size
  return _EMBEDDINGS_MULTIPLE * math.ceil(num_ids / _EMBEDDINGS_MULTIPLE)


def token_types(codec: Codec) -> dict[str, tuple[int, int]]:
  """Return {token type: (first, last) model id} for time, pitch, velocity, program, drum, tie and eos."""
  ids = {'time': codec.event_type_range('shift')}
  ids |= {name: codec.event_type_range(name) for name in ('pitch', 'velocity', 'program', 'drum', 'tie')}
  shifted = {name: (first + SPECIAL_TOKENS, last + SPECIAL_TOKENS) for name, (first, last) in ids.items()}
  return {**shifted, 'eos': (EOS_ID, EOS_ID)}


def num_velocity_bins_from_codec(codec: Codec) -> int:
  """Return the number of velocity bins, without 0."""
  first_id, last_id = codec.event_type_range('velocity')
  return last_id - first_id


def velocity_to_bin(velocity, num_velocity_bins: int):
  """Return the bin, 0..num_velocity_bins, of a MIDI velocity 0..127 (int or integer array); 0 stays 0."""
  return -(-num_velocity_bins * velocity // MAX_VELOCITY)


def bin_to_velocity(velocity_bin, num_velocity_bins: int):
  """Return the highest MIDI velocity of a bin (int or integer array)."""
  return MAX_VELOCITY * velocity_bin // num_velocity_bins


@dataclasses.dataclass(frozen=True)
class ProgramGranularity:
  """A granularity of programs, as two idempotent maps.

  Attributes:
    tokens_map_fn: (regular ids `[n]`, codec) -> regular ids `[<= n]`; arrays or tensors.
    program_map_fn: programs (int or integer array) -> programs.
  """

  tokens_map_fn: Callable[[np.ndarray, Codec], np.ndarray]
  program_map_fn: Callable


def drop_programs(tokens, codec: Codec):
  """Remove program events from regular ids (array or tensor)."""
  tokens = tokens if is_tensor(tokens) else np.asarray(tokens)
  first_id, last_id = codec.event_type_range('program')
  return tokens[(tokens < first_id) | (tokens > last_id)]


def programs_to_midi_classes(tokens, codec: Codec):
  """Replace each program in regular ids (array or tensor) by the first one of its MIDI class (8 programs)."""
  tokens = tokens if is_tensor(tokens) else np.asarray(tokens)
  where = sys.modules['tensorflow'].where if is_tensor(tokens) else np.where
  first_id, last_id = codec.event_type_range('program')
  is_program = (tokens >= first_id) & (tokens <= last_id)
  return where(is_program, first_id + _midi_class(tokens - first_id), tokens)


def _midi_class(program):
  return program // PROGRAMS_PER_MIDI_CLASS * PROGRAMS_PER_MIDI_CLASS


PROGRAM_GRANULARITIES = {
  'flat': ProgramGranularity(drop_programs, lambda program: program * 0),
  'midi_class': ProgramGranularity(programs_to_midi_classes, _midi_class),
  'full': ProgramGranularity(lambda tokens, codec: tokens, lambda program: program),
}


def encode_ids(regular_ids) -> np.ndarray:
  """Return the model ids of regular ids, int32 of the same shape."""
  return np.asarray(regular_ids, np.int32) + SPECIAL_TOKENS


def decode_ids(model_ids, codec: Codec) -> np.ndarray:
  """Return the regular ids of model ids, int32 of the same shape.

  Along the last axis, everything from the first end of sequence on becomes `DECODED_EOS_ID`. Before it, ids that are
  not regular (padding, unknown, extra and out of range) become `DECODED_INVALID_ID`.
  """
  model_ids = np.asarray(model_ids, np.int32)
  regular_ids = model_ids - SPECIAL_TOKENS
  known = (model_ids >= SPECIAL_TOKENS) & (regular_ids < codec.num_classes)
  ended = np.logical_or.accumulate(model_ids == EOS_ID, axis=-1)
  return np.where(ended, DECODED_EOS_ID, np.where(known, regular_ids, DECODED_INVALID_ID)).astype(np.int32)


def encode_decoded_ids(decoded_ids) -> np.ndarray:
  """Return the model ids of the result of `decode_ids`, int32 of the same shape; invalid ids become `UNK_ID`."""
  ids = np.asarray(decoded_ids, np.int32)
  return np.where(ids < 0, np.where(ids == DECODED_EOS_ID, EOS_ID, UNK_ID), encode_ids(ids)).astype(np.int32)


def vocabulary_from_codec(codec: Codec):
  """Return the seqio vocabulary of a codec, with `NUM_EXTRA_IDS` extra ids (as in MT3). Imports seqio."""
  from mrmt3.seqio_vocabulary import GenericTokenVocabulary

  return GenericTokenVocabulary(codec.num_classes, extra_ids=NUM_EXTRA_IDS)


def __getattr__(name: str):
  if name == 'GenericTokenVocabulary':
    from mrmt3.seqio_vocabulary import GenericTokenVocabulary

    return GenericTokenVocabulary
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
