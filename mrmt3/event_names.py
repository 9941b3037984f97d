"""How proposals begin: with the embeddings of the tokens that say the same, so that a decoder can copy from the first step on."""

import jax.numpy as jnp
import numpy as np

from mrmt3.config import ModelSpec
from mrmt3.event_codec import Event
from mrmt3.instruments import SLAKH_CLASSES
from mrmt3.note_reader import NUM_PITCHES
from mrmt3.transformer_blocks import position_frequencies
from mrmt3.vocabularies import SPECIAL_TOKENS, build_codec


def give_names(params: dict, spec: ModelSpec) -> dict:
  """Returns fresh parameters of a network with proposals, in which proposals and tokens have the same names.

  A time shift's embedding is what `NoteReader` adds to a proposal of that time; a kind's name is the sum of its pitch's (or
  drum's) and its velocity's (0 for what ends, the loudest for what begins), a class's that of its program. Training goes on from
  there; nothing ties them.
  """
  codec, reader = build_codec(spec.vocabulary), params['note_reader']
  table = params['decoder']['token_embedder']['embedding']

  def ids(event, values):
    return np.array([codec.encode_event(Event(event, int(value))) for value in values]) + SPECIAL_TOKENS

  steps = np.arange(codec.max_shift_steps + 1)
  frames = steps / codec.steps_per_second * float(spec.spectrogram.frame_rate)
  angles = (frames / spec.network.front_time_stride)[:, None] * position_frequencies(spec.network.emb_dim, spec.network.positions)
  places = jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), jnp.float32)
  table = table.at[ids('shift', steps)].set(places @ reader['time']['kernel'])

  low, high = codec.event_type_range('pitch')
  known = np.clip(np.arange(NUM_PITCHES), codec.decode_event_index(low).value, codec.decode_event_index(high).value)
  pitches, drums = table[ids('pitch', known)], table[ids('drum', np.arange(NUM_PITCHES))]
  soft, loud = (codec.decode_event_index(index).value for index in codec.event_type_range('velocity'))
  ends, begins = (table[ids('velocity', [value])] for value in (soft, loud))
  kinds = jnp.concatenate([pitches + begins, drums + begins, pitches + ends])
  classes = table[ids('program', sorted(SLAKH_CLASSES.values()))]
  decoder = {**params['decoder'], 'token_embedder': {**params['decoder']['token_embedder'], 'embedding': table}}
  return {
    **params, 'decoder': decoder, 'note_reader': {**reader, 'name_of_kind': kinds, 'name_of_class': classes}
  }  # fmt: skip
