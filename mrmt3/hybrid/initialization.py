"""Start values of the hybrid network: its decoder looks up the note candidates at its current time and emits them."""

import jax.numpy as jnp
import numpy as np

from mrmt3.config import ModelSpec
from mrmt3.event_codec import Event
from mrmt3.hybrid.candidate_frames import time_code, time_frequencies
from mrmt3.notes.instruments import SLAKH_CLASSES
from mrmt3.special_tokens import SPECIAL_TOKENS
from mrmt3.tokens.batched_parsing import NUM_PITCHES
from mrmt3.vocabularies import build_codec

_AHEAD = (0.0, 2.0, 5.0)  # encoder frames that the decoder's layers look ahead
_AFTER = 2.0  # what comes after the last event weighs more than that event itself


def init_from_token_embeddings(params: dict, spec: ModelSpec) -> dict:
  """Return fresh parameters in which note candidates and tokens have the same embeddings.

  A time shift's embedding is what `CandidateNoteHeads` adds to a candidate of that time. A kind's is the sum of its
  pitch's (or drum's) and its velocity's (0 for offsets, the highest for onsets), a class's that of its program.
  Cross-attention starts near the identity, so that it sees frames with embeddings in common and passes them on to the
  logits. The first layer looks at candidates at the decoder's current time and, with `last_event`, after its last
  event; the next ones look ahead. Training changes all of this freely.
  """
  codec, heads = build_codec(spec.vocabulary), params['note_reader']
  table = params['decoder']['token_embedder']['embedding']

  def ids(event, values):
    return np.array([codec.encode_event(Event(event, int(value))) for value in values]) + SPECIAL_TOKENS

  steps = np.arange(codec.max_shift_steps + 1)
  frames = steps / codec.steps_per_second * float(spec.spectrogram.frame_rate)
  codes = time_code(frames / spec.network.time_stride, spec.network.emb_dim)
  table = table.at[ids('shift', steps)].set(codes @ heads['time']['kernel'])

  low, high = codec.event_type_range('pitch')
  known = np.clip(np.arange(NUM_PITCHES), codec.decode_event_index(low).value, codec.decode_event_index(high).value)
  pitches, drums = table[ids('pitch', known)], table[ids('drum', np.arange(NUM_PITCHES))]
  lowest, highest = (codec.decode_event_index(index).value for index in codec.event_type_range('velocity'))
  ends, begins = (table[ids('velocity', [value])] for value in (lowest, highest))
  kinds = jnp.concatenate([pitches + begins, drums + begins, pitches + ends])
  classes = table[ids('program', sorted(SLAKH_CLASSES.values()))]
  decoder = {**params['decoder'], 'token_embedder': {**params['decoder']['token_embedder'], 'embedding': table}}
  if spec.network.last_event:
    decoder['event_map'] = _AFTER * heads['before']['kernel']
  for index in range(spec.network.num_decoder_layers):
    layer = decoder[f'layers_{index}']
    ahead = _AHEAD[min(index, len(_AHEAD) - 1)]
    decoder[f'layers_{index}'] = {
      **layer,
      'encoder_decoder_attention': _looking_up(
        layer['encoder_decoder_attention'], _later(heads['time']['kernel'], ahead)
      ),
      'self_attention': _softened(layer['self_attention'], 'out'),
      'mlp': _softened(layer['mlp'], 'wo'),
    }
  return {**params, 'decoder': decoder, 'note_reader': {**heads, 'name_of_kind': kinds, 'name_of_class': classes}}


def _later(time_kernel, frames: float):
  """Return the map `[emb, emb]` from the embedding of each time to that of the time `frames` later."""
  angles = time_frequencies(len(time_kernel)) * frames
  sine, cosine = jnp.diag(jnp.sin(angles)), jnp.diag(jnp.cos(angles))
  # (sin a, cos a) becomes (sin(a + b), cos(a + b)).
  turn = jnp.block([[cosine, -sine], [sine, cosine]])
  return jnp.linalg.inv(time_kernel) @ turn @ time_kernel


def _looking_up(attention: dict, query_map) -> dict:
  """Return an attention's parameters with maps added, which the scaled-down random start does not drown.

  Queries are mapped by `query_map`, `[emb, emb]`; keys and values stay what they are.
  """
  parts = {}
  for name, (known, random) in {'query': (0.7, 1.0), 'key': (0.5, 0.1), 'value': (0.8, 0.2), 'out': (0.8, 0.2)}.items():
    kernel = attention[name]['kernel']
    start = query_map if name == 'query' else jnp.eye(len(query_map))
    rows, columns = (min(a, b) for a, b in zip(kernel.shape, start.shape, strict=True))
    parts[name] = {'kernel': (random * kernel).at[:rows, :columns].add(known * start[:rows, :columns])}
  return parts


def _softened(part: dict, name: str) -> dict:
  """Return parameters in which the map back to the residual stream starts smaller."""
  return {**part, name: {'kernel': 0.3 * part[name]['kernel']}}
