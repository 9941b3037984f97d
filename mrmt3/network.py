"""The network: MT3's encoder-decoder over log-mel frames, with MR-MT3's memory of prior tokens.

Encoder output and memory are joined along time; the decoder's cross-attention sees both. Without memory
(`memory_length` 0) and with the fields of ours at their defaults this is exactly MT3. Parameter names are those of magenta's checkpoints; the memory's are
`memory_encoder/{projection, layers_N, memory_norm}`. The network does not know what a token means.

Modules are called as MT3's are; what is ours comes after MT3's arguments, by keyword. Where no mask is given, attention
takes a fast path that never writes one down.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3.errors import UserError
from mrmt3.framewise import harmonic_stacking, token_decoder
from mrmt3.framewise.note_heads import DRUMS, OFFSETS, ONSETS, FrameHead, FrameTargets, NoteReader, weighed_events
from mrmt3.layers import make_attention_mask
from mrmt3.nn import layers
from mrmt3.tokens import batched_parsing
from mrmt3.tokens.event_state import next_status, running_status

KINDS = ('mt3', 'mr_mt3')
MEMORY_SOFTMAXES = SHARED, OWN = 'shared', 'own'
TRAINING_ONLY = ('frame_head', 'note_reader')  # parameters that are left out where a model has no use for them
OPTIONAL_PARTS = ('decoder', 'memory_encoder', *TRAINING_ONLY)  # that not every network has

_SIZES = (
  'vocab_size',
  'emb_dim',
  'num_heads',
  'num_encoder_layers',
  'num_decoder_layers',
  'head_dim',
  'mlp_dim',
  'memory_length',
  'memory_layers',
  'memory_segments',
  'front_time_stride',
  'proposals',
)


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Everything that determines the network's parameters and arithmetic. Raises UserError for nonsense.

  Attributes:
    vocab_size: rows of the embedding table and width of the logits.
    dtype: dtype of the activations, kept as its name; parameters, softmax, norms' statistics and logits are float32.
    emb_dim: width of the residual stream.
    num_heads: attention heads.
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder.
    head_dim: width of a head.
    mlp_dim: hidden width of the MLPs.
    mlp_activations: activations whose product is the MLP's hidden layer; names in flax.linen, or 'linear'.
    dropout_rate: share of what is dropped in training.
    logits_via_embedding: the output layer is the embedding table (then logits are divided by sqrt(emb_dim)).
    positions: 'mt3' or 'mr_mt3', which position table the weights were trained with.
    memory_length: states of the memory the decoder sees (L_agg in the paper); 0 = no memory.
    memory_layers: layers of the memory encoder.
    memory_segments: prior segments that the memory holds, `memory_length` states of each (the paper: 1).
    memory_softmax: 'shared' (as the paper: cross-attention weighs the memory's states and the sound's by one softmax) or 'own' (each by
      a softmax of its own, and what is found in each is added). In small trainings of ours a shared one left the memory unread
      (docs/method.md). Without memory it changes nothing.
    initializers: 'mt3' or 'mr_mt3', how parameters start.
    dropout_masks: 'mt3' (one mask for all positions, but after the encoder's norm) or 'mr_mt3' (element-wise).
    front: 'linear' (as the papers: a state is a map of one frame) or 'harmonic', see `fronts`.
    front_channels: widths of the harmonic front, see `fronts.HarmonicFront`.
    front_time_stride: frames that the harmonic front makes one state of.
    state_positions: the position table is added to the encoder's output too (the papers: only to its input). Cross-attention then
      tells states apart by their time from the first step on, which a decoder that is trained for hours otherwise
      takes most of to find out.
    proposals: how many of the likeliest onsets and offsets the decoder sees as further states (`NoteReader`), or can be copied; the
      papers: 0.
    running_status: ranges of token ids, (first, last) each: every position of the decoder is told, besides its own token, the last
      token of each range up to there, such as the time, the velocity and the program that hold; the papers: (). A decoder
      otherwise has to learn to look them up before it can learn anything that depends on them.
    event_ends: ranges of token ids, (first, last) each, that complete an event, such as pitches and drums: every position is told,
      through a map, the running status at the last of them and that token itself, which is what the decoder has said last. With
      proposals, which are told what comes before them, it finds what comes next. The papers: ().
    say_once: with event_ends, whether decoding says no event twice: no token of event_ends under a running status (time, velocity, program)
      under which it has been said in the segment; so a drum can be, once the program has changed. Small networks decoded greedily repeat
      themselves (docs/method.md); the papers: False.
    copied_tokens: () as in the papers, or the ranges of token ids, (first, last), of times, velocities, programs, tie, pitches and drums:
      then there is no decoder; the proposals say what the next token is (`copying`), and what has been said so far says which notes go on
      and which instruments play. A state is then a step, programs stand for Slakh classes, there are ties, and events are written in
      `rounded_order` and not shuffled. memory_length is 0, since nobody would look at it; the decoder's sizes mean nothing.
    copy_threshold: with copied_tokens, what a proposal's chance must be for it to be said; 0: whatever is likeliest is said.
      For the best F1 that is below 1/2. Where targets are given, only `instrument_memory` looks at it.
    instrument_memory: with copied_tokens, how strongly the instruments of what has been said so far weigh what is heard of a
      note's class: as this power of their shares of the notes (`note_reader.weigh_classes`), 1 as Bayes would have it; 0: not at all.
    decoder_padding_masks: the decoder's padding tokens (0) see and are seen by nothing, as MT3 trains; False: causal
      mask only, as MR-MT3. They differ at padded positions only.
  """

  vocab_size: int
  dtype: Any = 'float32'
  emb_dim: int = 512
  num_heads: int = 6
  num_encoder_layers: int = 8
  num_decoder_layers: int = 8
  head_dim: int = 64
  mlp_dim: int = 1024
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  dropout_rate: float = 0.1
  logits_via_embedding: bool = False
  positions: str = 'mt3'
  memory_length: int = 0
  memory_layers: int = 1
  memory_segments: int = 1
  memory_softmax: str = SHARED
  initializers: str = 'mt3'
  dropout_masks: str = 'mt3'
  decoder_padding_masks: bool = True
  front: str = harmonic_stacking.LINEAR
  front_channels: tuple[int, int, int, int] = (12, 48, 32, 64)
  front_time_stride: int = 1
  state_positions: bool = False
  proposals: int = 0
  running_status: tuple[tuple[int, int], ...] = ()
  event_ends: tuple[tuple[int, int], ...] = ()
  say_once: bool = False
  copied_tokens: tuple[tuple[int, int], ...] = ()
  copy_threshold: float = 0.0
  instrument_memory: float = 0.0

  def __post_init__(self):
    try:
      object.__setattr__(self, 'dtype', jnp.dtype(self.dtype).name)
    except TypeError:
      raise UserError(f'network: dtype is {self.dtype!r}; use float32 or bfloat16') from None
    for name in _SIZES:
      value, least = getattr(self, name), 0 if name in ('memory_length', 'proposals') else 1
      if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f'network: {name} is {value!r}; it must be a whole number of at least {least}')
    for name in ('positions', 'initializers', 'dropout_masks'):
      if getattr(self, name) not in KINDS:
        raise UserError(f'network: {name} is {getattr(self, name)!r}; it must be one of {", ".join(KINDS)}')
    if self.memory_softmax not in MEMORY_SOFTMAXES:
      raise UserError(
        f'network: memory_softmax is {self.memory_softmax!r}; it must be one of {", ".join(MEMORY_SOFTMAXES)}'
      )
    if self.emb_dim % 2 or self.emb_dim < 4:
      raise UserError(f'network: emb_dim is {self.emb_dim}; positions need an even number of at least 4')
    if not 0 <= self.dropout_rate < 1:
      raise UserError(f'network: dropout_rate is {self.dropout_rate!r}; it must lie in 0 .. 1')
    names = self.mlp_activations
    known = isinstance(names, (list, tuple)) and all(name == 'linear' or hasattr(nn, str(name)) for name in names)
    if not known or not names:
      raise UserError(f'network: mlp_activations are {names!r}; give a list of names such as gelu, relu, linear')
    object.__setattr__(self, 'mlp_activations', tuple(names))
    if self.front not in harmonic_stacking.FRONTS:
      raise UserError(f'network: front is {self.front!r}; it must be one of {", ".join(harmonic_stacking.FRONTS)}')
    channels = self.front_channels
    whole = isinstance(channels, (list, tuple)) and all(isinstance(n, int) and n > 0 for n in channels)
    if self.front == harmonic_stacking.HARMONIC and (not whole or len(channels) != 4):
      raise UserError(f'network: front_channels are {channels!r}; give four whole numbers above 0')
    object.__setattr__(self, 'front_channels', tuple(channels) if isinstance(channels, list) else channels)
    for name in ('running_status', 'event_ends', 'copied_tokens'):
      try:
        ranges = tuple((int(first), int(last)) for first, last in getattr(self, name))
      except (TypeError, ValueError):
        ranges = ((1, 0),)
      if not all(0 < first <= last < self.vocab_size for first, last in ranges):
        raise UserError(f'network: {name} is {getattr(self, name)!r}; give pairs (first, last) of token ids')
      object.__setattr__(self, name, ranges)
    if self.event_ends and not self.running_status:
      raise UserError('network: event_ends are given, but no running_status that could be told of an event')
    if not isinstance(self.say_once, bool) or (self.say_once and not self.event_ends):
      raise UserError(
        f'network: say_once is {self.say_once!r}; it must be False, or True with event_ends, which say what an event is'
      )
    if self.copied_tokens:
      sizes = [last - first + 1 for first, last in self.copied_tokens]
      if sizes[1:] != [2, 128, 1, 128, 128] or not self.proposals:
        raise UserError(
          'network: copied_tokens are those of times, velocities (2), programs (128), tie (1), pitches (128) and drums (128), and need proposals'
        )
      if self.memory_length or self.memory_segments > 1:
        raise UserError(
          f'network: memory_length is {self.memory_length} and memory_segments {self.memory_segments}; with copied_tokens nothing looks at '
          'a memory of states: set them to 0 and 1'
        )
      if self.running_status or self.event_ends:
        raise UserError(
          'network: running_status and event_ends tell a decoder what it has said; with copied_tokens there is none'
        )
    if not isinstance(self.copy_threshold, (int, float)) or not (
      self.copy_threshold == 0 or 0.01 <= self.copy_threshold < 1
    ):
      raise UserError(f'network: copy_threshold is {self.copy_threshold!r}; it must be 0, or lie in 0.01 .. 1')
    strength = self.instrument_memory
    if not isinstance(strength, (int, float)) or not 0 <= strength <= 10:
      raise UserError(f'network: instrument_memory is {strength!r}; it must lie in 0 .. 10')
    for name in ('copy_threshold', 'instrument_memory'):
      if getattr(self, name) and not self.copied_tokens:
        raise UserError(f'network: {name} is given, but no copied_tokens')
    if self.front_time_stride > 1 and self.front == harmonic_stacking.LINEAR:
      raise UserError(
        f'network: front_time_stride is {self.front_time_stride}; that needs front {harmonic_stacking.HARMONIC!r}'
      )

  @property
  def remembers(self) -> bool:
    """Whether segments are listened to with what has been said of those before."""
    return self.memory_length > 0 or bool(self.copied_tokens)

  @property
  def states_apart(self) -> int:
    """How many of the states that the decoder looks at, the last ones, have a softmax of their own."""
    return self.memory_length * self.memory_segments if self.memory_softmax == OWN else 0

  def num_states(self, frames: int) -> int:
    """Returns how many states the encoder has for so many frames."""
    return -(-frames // self.front_time_stride)

  def replace(self, **changes) -> 'T5Config':
    """Returns a copy with some fields changed."""
    return dataclasses.replace(self, **changes)


def _attention(config: T5Config, apart: int = 0) -> layers.MultiHeadDotProductAttention:
  return layers.MultiHeadDotProductAttention(
    config.num_heads,
    config.head_dim,
    config.emb_dim,
    config.dropout_rate,
    config.dropout_masks == 'mt3',
    config.dtype,
    apart,
  )


def _mlp(config: T5Config) -> layers.MlpBlock:
  return layers.MlpBlock(
    config.mlp_dim,
    config.mlp_activations,
    config.dropout_rate,
    config.dropout_masks == 'mt3',
    config.initializers,
    config.dtype,
  )


def _dropout(config: T5Config) -> layers.Dropout:
  return layers.Dropout(config.dropout_rate, config.dropout_masks == 'mt3')


def _projection(config: T5Config, features: int, axes: tuple[str, str], dtype: Any) -> layers.Dense:
  return layers.Dense(features, axes, layers.PROJECTION_INITIALIZERS[config.initializers], dtype)


def _join_heads(x: jax.Array) -> jax.Array:
  # [b, h, t, d] -> [b h, t, d]: with one leading axis XLA updates the cache in place, with two it copies it.
  return x.reshape(-1, *x.shape[2:])


class EncoderLayer(nn.Module):
  """Self-attention and MLP, each normalised before and added after."""

  config: T5Config

  def setup(self):
    """Declares the parts."""
    cfg = self.config
    self.pre_attention_layer_norm = layers.LayerNorm(cfg.dtype)
    self.attention = _attention(cfg)
    self.pre_mlp_layer_norm = layers.LayerNorm(cfg.dtype)
    self.mlp = _mlp(cfg)
    self.dropout = _dropout(cfg)

  def __call__(
    self,
    inputs: jax.Array,
    encoder_mask: jax.Array | None = None,
    deterministic: bool = False,
    outputs: int | None = None,
  ) -> jax.Array:
    """Returns the first `outputs` rows (default all) of `[batch, length, emb]`; all rows serve as keys and values.

    `encoder_mask` says what is seen (> 0), `[batch, 1, outputs, length]`; None: everything.
    """
    x, enable_dropout = inputs, not deterministic
    context = self.pre_attention_layer_norm(x)
    y = self.attention(context[:, :outputs], context, enable_dropout, mask=encoder_mask)
    x = x[:, :outputs] + self.dropout(y, enable_dropout)
    y = self.mlp(self.pre_mlp_layer_norm(x), enable_dropout)
    return x + self.dropout(y, enable_dropout)


class DecoderLayer(nn.Module):
  """Self-attention, cross-attention and MLP, each normalised before and added after."""

  config: T5Config

  def setup(self):
    """Declares the parts."""
    cfg = self.config
    self.pre_self_attention_layer_norm = layers.LayerNorm(cfg.dtype)
    self.self_attention = _attention(cfg)
    self.pre_cross_attention_layer_norm = layers.LayerNorm(cfg.dtype)
    self.encoder_decoder_attention = _attention(cfg, cfg.states_apart)
    self.pre_mlp_layer_norm = layers.LayerNorm(cfg.dtype)
    self.mlp = _mlp(cfg)
    self.dropout = _dropout(cfg)

  def __call__(
    self,
    inputs: jax.Array,
    encoded: jax.Array,
    decoder_mask: jax.Array | None = None,
    encoder_decoder_mask: jax.Array | None = None,
    deterministic: bool = False,
    decode: bool = False,
    max_decode_length: int | None = None,
    real: jax.Array | None = None,
    causal: bool = False,
  ) -> jax.Array:
    """Returns `[batch, length, emb]`.

    Args:
      inputs: `[batch, length, emb]`.
      encoded: `[batch, states, emb]`.
      decoder_mask: what is seen (> 0), `[batch, 1, length, length]`, or None: everything.
      encoder_decoder_mask: what is seen of the states, `[batch, 1, length, states]`, or None: everything.
      deterministic: whether to leave dropout out.
      decode: whether to take a position at a time, see `Decoder`.
      max_decode_length: unused, as in MT3.
      real: bool `[batch, length]`: the others see and are seen by nothing; None: all are real.
      causal: whether position i sees positions 0..i only.
    """
    del max_decode_length
    if decode and self.has_variable('cache', 'cached_keys'):
      return self._cached_step(inputs, encoded)
    x, enable_dropout = inputs, not deterministic
    y = self.pre_self_attention_layer_norm(x)
    if decode:
      self._make_room(y)
    y = self.self_attention(y, y, enable_dropout, real=real, seen=real, causal=causal, mask=decoder_mask)
    x = x + self.dropout(y, enable_dropout)
    y = self.pre_cross_attention_layer_norm(x)
    y = self.encoder_decoder_attention(y, encoded, enable_dropout, real=real, mask=encoder_decoder_mask)
    x = x + self.dropout(y, enable_dropout)
    return x + self.dropout(self.mlp(self.pre_mlp_layer_norm(x), enable_dropout), enable_dropout)

  def _make_room(self, x):
    """Puts an empty cache for all positions of `x` `[batch, length, emb]` into the collection `cache`."""
    cfg = self.config
    room = jnp.zeros((x.shape[0], cfg.num_heads, x.shape[1], cfg.head_dim), cfg.dtype)
    for name, value in (('cached_keys', room), ('cached_values', room), ('cache_index', jnp.int32(0))):
      self.put_variable('cache', name, value)

  def _cached_step(self, x, encoded):
    """Does one position `[batch, 1, emb]` with the keys and values in the collection `cache`."""
    cached = {name: self.get_variable('cache', f'cached_{name}') for name in ('keys', 'values')}
    position, shape = self.get_variable('cache', 'cache_index'), cached['keys'].shape
    cross = self.encoder_decoder_attention.keys_values(encoded)
    cache = {f'self_{name}': _join_heads(array) for name, array in cached.items()}
    cache |= {f'cross_{name}': _join_heads(array) for name, array in zip(('keys', 'values'), cross, strict=True)}
    x, cache = self.step(x, position, cache)
    for name in ('keys', 'values'):
      self.put_variable('cache', f'cached_{name}', cache[f'self_{name}'].reshape(shape))
    self.put_variable('cache', 'cache_index', position + 1)
    return x

  def step(self, x: jax.Array, position: jax.Array, cache: dict) -> tuple[jax.Array, dict]:
    """Does one position `[batch, 1, emb]` without dropout; returns it and the cache with its key and value added."""
    y = self.pre_self_attention_layer_norm(x)
    key, value = map(_join_heads, self.self_attention.keys_values(y))
    keys = jax.lax.dynamic_update_slice_in_dim(cache['self_keys'], key, position, axis=1)
    values = jax.lax.dynamic_update_slice_in_dim(cache['self_values'], value, position, axis=1)
    x = x + self.self_attention.step(y, keys, values, position)
    y = self.pre_cross_attention_layer_norm(x)
    x = x + self.encoder_decoder_attention.step(y, cache['cross_keys'], cache['cross_values'])
    return x + self.mlp(self.pre_mlp_layer_norm(x), False), {**cache, 'self_keys': keys, 'self_values': values}


def _layers(kind, count: int, config: T5Config, remat: bool) -> list[nn.Module]:
  """Returns layers; with `remat` the backward pass computes anew what is inside of them."""
  if remat:
    kind = nn.remat(kind, static_argnums=STATIC_ARGUMENTS[kind])
  return [kind(config) for _ in range(count)]


def status_width(config: T5Config) -> int:
  """Returns how many numbers a position's running status has."""
  return len(config.running_status) * (2 if config.event_ends else 1) + (1 if config.event_ends else 0)


def named_status(status: jax.Array, table: jax.Array, scale: jax.Array, event_map: jax.Array | None) -> jax.Array:
  """Returns what is added to the embeddings of tokens, `[..., emb]`, for their running status `[..., n]`.

  Args:
    status: of `running_status`.
    table: the embedding table, `[vocab, emb]`.
    scale: `[n, emb]`, how much each of the numbers counts.
    event_map: `[emb, emb]`, maps what is said of the last event, or None, if nothing is.
  """
  named = jnp.where(status[..., None] > 0, table[status], 0) * scale
  if event_map is None:
    return named.sum(axis=-2)
  held = (len(scale) - 1) // 2
  return named[..., :held, :].sum(axis=-2) + jnp.dot(named[..., held:, :].sum(axis=-2), event_map)


# Which arguments of a call, counted from self, are no arrays.
STATIC_ARGUMENTS = {EncoderLayer: (3, 4), DecoderLayer: (5, 6, 7, 9)}


class Encoder(nn.Module):
  """Encodes log-mel frames."""

  config: T5Config
  remat: bool = False

  def setup(self):
    """Declares the parts."""
    cfg = self.config
    if cfg.front == harmonic_stacking.LINEAR:
      self.continuous_inputs_projection = _projection(cfg, cfg.emb_dim, ('vocab', 'embed'), cfg.dtype)
    else:
      self.harmonic_front = harmonic_stacking.HarmonicFront(
        cfg.emb_dim, cfg.front_channels, cfg.front_time_stride, cfg.dtype
      )
    self.layers = _layers(EncoderLayer, cfg.num_encoder_layers, cfg, self.remat)
    self.encoder_norm = layers.LayerNorm(cfg.dtype)
    self.input_dropout = _dropout(cfg)
    self.output_dropout = layers.Dropout(cfg.dropout_rate, shared=False)

  def __call__(
    self, encoder_input_tokens: jax.Array, encoder_mask: jax.Array | None = None, deterministic: bool = False
  ) -> jax.Array:
    """Returns `[batch, states, emb]` for frames `[batch, frames, mel]`; `encoder_mask` as `EncoderLayer`'s.

    There are as many states as frames, or fewer, as `T5Config.num_states` says.
    """
    return self.with_notes(encoder_input_tokens, encoder_mask, deterministic)[0]

  def with_notes(
    self, inputs: jax.Array, mask: jax.Array | None = None, deterministic: bool = False
  ) -> tuple[jax.Array, jax.Array | None]:
    """Returns what a call does, and what the front knows of single pitches (`fronts.HarmonicFront`), None if nothing."""
    cfg, enable_dropout = self.config, not deterministic
    if cfg.front == harmonic_stacking.LINEAR:
      x, notes = self.continuous_inputs_projection(inputs), None
    else:
      x, notes = self.harmonic_front(inputs)
    table = layers.sinusoidal_positions(x.shape[1], cfg.emb_dim, cfg.positions).astype(cfg.dtype)
    x = x + table
    x = self.input_dropout(x, enable_dropout)
    for layer in self.layers:
      x = layer(x, mask, deterministic, None)
    x = self.encoder_norm(x)
    return self.output_dropout(x + table if cfg.state_positions else x, enable_dropout), notes


class MemoryEncoder(nn.Module):
  """Encodes the embedded tokens of prior segments, each on its own; no masks, no dropout."""

  config: T5Config
  remat: bool = False

  def setup(self):
    """Declares the parts."""
    cfg = self.config
    self.projection = _projection(cfg, cfg.emb_dim, ('joined_kv', 'embed'), cfg.dtype)
    self.layers = _layers(EncoderLayer, cfg.memory_layers, cfg, self.remat)
    self.memory_norm = layers.LayerNorm(cfg.dtype)

  def __call__(self, embedded: jax.Array) -> jax.Array:
    """Returns `[batch, memory_segments * memory_length, emb]` for embedded prior tokens `[batch, prior, emb]`."""
    cfg = self.config
    batch, prior, _ = embedded.shape
    # Positions count on from one prior segment to the next, so that they can be told apart.
    table = layers.sinusoidal_positions(prior, cfg.emb_dim, cfg.positions)
    x = self.projection(embedded) + table.astype(cfg.dtype)
    x = x.reshape(batch * cfg.memory_segments, prior // cfg.memory_segments, cfg.emb_dim)
    for layer in self.layers[:-1]:
      x = layer(x, None, True, None)
    # Only these rows leave the memory, so only they are computed in its last layer.
    x = self.memory_norm(self.layers[-1](x, None, True, cfg.memory_length))
    return x.reshape(batch, cfg.memory_segments * cfg.memory_length, cfg.emb_dim)


class Decoder(nn.Module):
  """Predicts the next token from those before and the encoded states."""

  config: T5Config
  remat: bool = False

  def setup(self):
    """Declares the parts."""
    cfg = self.config
    self.token_embedder = layers.Embed(cfg.vocab_size, cfg.emb_dim, cfg.dtype)
    self.layers = _layers(DecoderLayer, cfg.num_decoder_layers, cfg, self.remat)
    self.decoder_norm = layers.LayerNorm(cfg.dtype)
    if not cfg.logits_via_embedding:
      self.logits_dense = _projection(cfg, cfg.vocab_size, ('embed', 'vocab'), jnp.float32)
    if cfg.running_status:
      self.status_scale = layers.partitioning.param_with_axes(
        'status_scale', nn.initializers.ones, (status_width(cfg), cfg.emb_dim), jnp.float32, axes=(None, 'embed')
      )
    if cfg.event_ends:
      self.event_map = layers.partitioning.param_with_axes(
        'event_map', nn.initializers.orthogonal(), (cfg.emb_dim, cfg.emb_dim), jnp.float32, axes=('joined_kv', 'embed')
      )
    self.dropout = _dropout(cfg)

  def embed(self, tokens: jax.Array) -> jax.Array:
    """Returns the embeddings of tokens `[batch, length]` as `[batch, length, emb]`."""
    return self.token_embedder(tokens)

  def _with_status(self, x, status):
    """Returns embedded tokens `[batch, length, emb]` with the running status `[batch, length, n]` added."""
    if status is None:
      return x
    event_map = self.event_map.astype(x.dtype) if self.config.event_ends else None
    return x + named_status(status, self.token_embedder.table(), self.status_scale.astype(x.dtype), event_map)

  def _logits(self, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    if self.config.logits_via_embedding:
      return self.token_embedder.attend(x) / np.sqrt(self.config.emb_dim)
    return self.logits_dense(x)

  def __call__(
    self,
    encoded: jax.Array,
    decoder_input_tokens: jax.Array,
    decoder_positions: jax.Array | None = None,
    decoder_mask: jax.Array | None = None,
    encoder_decoder_mask: jax.Array | None = None,
    deterministic: bool = False,
    decode: bool = False,
    max_decode_length: int | None = None,
    *,
    real: jax.Array | None = None,
    causal: bool = False,
  ) -> jax.Array:
    """Returns logits, float32 `[batch, length, vocab]`, for input tokens `[batch, length]` (targets shifted right).

    With `decode`, the first call makes room in the collection `cache` for as many positions as it is given; further ones
    take one position each. `decoder_positions` and `max_decode_length` are unused, as in MT3; the others are
    `DecoderLayer`'s.
    """
    del decoder_positions, max_decode_length
    tokens, enable_dropout = decoder_input_tokens, not deterministic
    cfg = self.config
    if decode:
      return self._cached(encoded, tokens, decoder_mask, encoder_decoder_mask, real, causal)
    table = layers.sinusoidal_positions(tokens.shape[1], cfg.emb_dim, cfg.positions)
    status = running_status(tokens, cfg.running_status, cfg.event_ends) if cfg.running_status else None
    x = self.dropout(self._with_status(self.embed(tokens), status) + table.astype(cfg.dtype), enable_dropout)
    for layer in self.layers:
      x = layer(x, encoded, decoder_mask, encoder_decoder_mask, deterministic, False, None, real, causal)
    return self._logits(self.dropout(self.decoder_norm(x), enable_dropout))

  def _cached(self, encoded, tokens, decoder_mask, encoder_decoder_mask, real, causal):
    """Returns the logits of a call with `decode`."""
    cfg = self.config
    first, length, rows, status = self.layers[0], tokens.shape[1], slice(None), None
    has_cache = first.has_variable('cache', 'cache_index')
    if has_cache:
      length = first.get_variable('cache', 'cached_keys').shape[2]
      rows = first.get_variable('cache', 'cache_index')[None]
    table = jnp.asarray(layers.sinusoidal_positions(length, cfg.emb_dim, cfg.positions), cfg.dtype)[rows]
    if cfg.running_status and has_cache:
      held = next_status(self.get_variable('cache', 'running_status'), tokens[:, 0], cfg.running_status, cfg.event_ends)
      self.put_variable('cache', 'running_status', held)
      status = held[:, None]
    elif cfg.running_status:
      self.put_variable('cache', 'running_status', jnp.zeros((len(tokens), status_width(cfg)), jnp.int32))
      status = running_status(tokens, cfg.running_status, cfg.event_ends)
    x = self._with_status(self.embed(tokens), status) + table
    for layer in self.layers:
      x = layer(x, encoded, decoder_mask, encoder_decoder_mask, True, True, None, real, causal)
    return self._logits(self.decoder_norm(x))


class Transformer(nn.Module):
  """Encoder, memory and decoder.

  Attributes:
    config: sizes.
    with_frame_head: whether the encoder's states tell the notes of every frame besides, in training (`FrameHead`). Its
      parameters, `frame_head`, are no part of a model (`TRAINING_ONLY`).
    remat: training keeps of each layer only what goes into it, and computes the rest again for the gradient.
  """

  config: T5Config
  with_frame_head: bool = False
  remat: bool = False

  def setup(self):
    """Declares the parts."""
    self.encoder = Encoder(self.config, self.remat)
    self.decoder = (
      token_decoder.CopyingDecoder(self.config) if self.config.copied_tokens else Decoder(self.config, self.remat)
    )
    if self.config.memory_length:
      self.memory_encoder = MemoryEncoder(self.config, self.remat)
    if self.with_frame_head or self.config.proposals:
      self.note_reader = NoteReader(self.config.emb_dim, not self.config.copied_tokens)
    if self.with_frame_head:
      self.frame_head = FrameHead()

  def encode(
    self,
    encoder_input_tokens: jax.Array,
    encoder_segment_ids: jax.Array | None = None,
    enable_dropout: bool = True,
    *,
    prior_tokens: jax.Array | None = None,
    heard: jax.Array | None = None,
    adjacent: jax.Array | None = None,
  ) -> jax.Array:
    """Encodes a segment and the memory.

    Args:
      encoder_input_tokens: float log-mel frames `[batch, frames, mel]`.
      encoder_segment_ids: `[batch, frames]`, which of the examples packed into a row a frame belongs to, or None; not with a
        memory.
      enable_dropout: whether to drop (needs the `dropout` random stream).
      prior_tokens: int model ids `[batch, prior]` of the prior segments, earliest first, each padded with 0 to the same
        length; required if the network has a memory, and then at least `memory_length` a segment. Required with `copied_tokens`
        too: what may go on and what has been heard is read from them. Else ignored.
      heard: int `[batch, NUM_CLASSES]`, for `instrument_memory`: how many notes of each class began in all segments before; None:
        in the prior segment.
      adjacent: bool `[batch]`, for `copied_tokens`: whether the prior segment is the one right before, so that what sounds at its end, and
        nothing else, may go on; None: it is.

    Returns:
      `[batch, states + proposals + memory_segments * memory_length, emb]`; with `copied_tokens` what can be copied,
      `[batch, MOST_TIES + proposals, copying.WIDTH]`, of `copying.as_rows`.
    """
    return self._encode(encoder_input_tokens, encoder_segment_ids, enable_dropout, prior_tokens, heard, adjacent)[0]

  def _encode(self, encoder_input_tokens, encoder_segment_ids, enable_dropout, prior_tokens, heard=None, adjacent=None):
    """Returns what `encode` does, the encoder's own states, and what its front knows of single pitches."""
    mask = None
    if encoder_segment_ids is not None:
      mask = make_attention_mask(encoder_segment_ids, encoder_segment_ids, jnp.equal)
    states, notes = self.encoder.with_notes(encoder_input_tokens, mask, not enable_dropout)
    if self.config.proposals and encoder_segment_ids is not None:
      raise ValueError('examples cannot be packed where each has proposals; leave encoder_segment_ids out')
    if self.config.copied_tokens:
      return self._to_copy(states, notes, prior_tokens, heard, adjacent), states, notes
    encoded = states
    if self.config.proposals:
      proposed = self.note_reader.as_states(
        states, self.note_reader.propose(states, self.config.proposals, notes), notes
      )
      encoded = jnp.concatenate([encoded, proposed.astype(encoded.dtype)], axis=1)
    return self._with_memory(encoded, encoder_segment_ids, prior_tokens), states, notes

  def _to_copy(self, states, notes, prior_tokens, heard, adjacent):
    """Returns what can be copied, ties and events, as rows."""
    config = self.config
    if prior_tokens is None:
      raise ValueError('a network with copied_tokens needs prior tokens, if only those of an empty segment')
    ids = batched_parsing.Tokens(*config.copied_tokens)
    events = self.note_reader.propose(states, config.proposals, notes)
    if config.instrument_memory:
      heard = batched_parsing.onset_counts(prior_tokens, ids) if heard is None else heard
      events = weighed_events(events, heard, config.instrument_memory, config.copy_threshold)
    ties = self.note_reader.ties(states, notes, batched_parsing.held(prior_tokens, ids), adjacent)
    return jnp.concatenate([token_decoder.as_rows(ties), token_decoder.as_rows(events)], axis=1)

  def _with_memory(self, encoded, encoder_segment_ids, prior_tokens):
    """Returns encoded states `[batch, states, emb]` followed by those of the memory, if there is one."""
    length = self.config.memory_length
    if not length:
      return encoded
    if encoder_segment_ids is not None:
      raise ValueError('examples cannot be packed where each has a memory; leave encoder_segment_ids out')
    segments = self.config.memory_segments
    if prior_tokens is None or prior_tokens.shape[1] < length * segments or prior_tokens.shape[1] % segments:
      raise ValueError(
        f'a network with a memory of {segments} x {length} states needs at least {length} prior tokens a segment'
      )
    return jnp.concatenate([encoded, self.memory_encoder(self.decoder.embed(prior_tokens))], axis=1)

  def decode(
    self,
    encoded: jax.Array,
    encoder_input_tokens: jax.Array | None,
    decoder_input_tokens: jax.Array,
    decoder_target_tokens: jax.Array | None = None,
    encoder_segment_ids: jax.Array | None = None,
    decoder_segment_ids: jax.Array | None = None,
    decoder_positions: jax.Array | None = None,
    enable_dropout: bool = True,
    decode: bool = False,
    max_decode_length: int | None = None,
  ) -> jax.Array:
    """Returns logits, float32 `[batch, length, vocab]`.

    Args:
      encoded: what `encode` returned.
      encoder_input_tokens: unused; MT3 takes the shape of a mask from it.
      decoder_input_tokens: int `[batch, length]`, the targets shifted right behind the start token 0.
      decoder_target_tokens: int `[batch, length]`, 0 is padding; None, or a config without `decoder_padding_masks`:
        causal mask only.
      encoder_segment_ids: as `encode`'s.
      decoder_segment_ids: `[batch, length]`, the same of the targets, or None.
      decoder_positions: unused, as in MT3.
      enable_dropout: whether to drop (needs the `dropout` random stream).
      decode: whether to take a position at a time, see `Decoder`.
      max_decode_length: unused, as in MT3.
    """
    del encoder_input_tokens, decoder_positions, max_decode_length
    if self.config.running_status and decoder_segment_ids is not None:
      raise ValueError('examples cannot be packed where each has a running status; leave decoder_segment_ids out')
    if decode and encoder_segment_ids is not None:
      raise ValueError('one position at a time cannot be packed: leave encoder_segment_ids out, or set decode to False')
    real = None
    if self.config.decoder_padding_masks and decoder_target_tokens is not None and not decode:
      real = decoder_target_tokens > 0
    own, cross = (
      None if decoder_segment_ids is None or ids is None else make_attention_mask(decoder_segment_ids, ids, jnp.equal)
      for ids in (decoder_segment_ids, encoder_segment_ids)
    )
    return self.decoder(
      encoded,
      decoder_input_tokens,
      decoder_mask=own,
      encoder_decoder_mask=cross,
      deterministic=not enable_dropout,
      decode=decode,
      real=real,
      causal=True,
    )

  def __call__(
    self,
    encoder_input_tokens: jax.Array,
    decoder_input_tokens: jax.Array,
    decoder_target_tokens: jax.Array,
    encoder_segment_ids: jax.Array | None = None,
    decoder_segment_ids: jax.Array | None = None,
    encoder_positions: jax.Array | None = None,
    decoder_positions: jax.Array | None = None,
    *,
    enable_dropout: bool = True,
    decode: bool = False,
    prior_tokens: jax.Array | None = None,
  ) -> jax.Array:
    """Returns logits, float32 `[batch, length, vocab]`; arguments as in `encode` and `decode`, positions are unused."""
    del encoder_positions
    encoded, states, notes = self._encode(encoder_input_tokens, encoder_segment_ids, enable_dropout, prior_tokens)
    if self.with_frame_head and self.is_initializing():
      self._frame_logits(states, notes, jnp.zeros_like(decoder_input_tokens), jnp.zeros_like(decoder_input_tokens))
    return self.decode(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      encoder_segment_ids,
      decoder_segment_ids,
      decoder_positions,
      enable_dropout,
      decode,
    )

  def encode_and_tell(
    self,
    encoder_input_tokens: jax.Array,
    event_states: jax.Array,
    event_kinds: jax.Array,
    enable_dropout: bool = True,
    *,
    prior_tokens: jax.Array | None = None,
  ) -> tuple[jax.Array, FrameTargets, jax.Array]:
    """Returns what `encode` does, logits of every frame's notes, and of the classes of events; see `frame_losses`.

    Args:
      encoder_input_tokens: as `encode`'s, like enable_dropout and prior_tokens.
      event_states: int `[batch, n]`, the state that an event lies in.
      event_kinds: int `[batch, n]`, which of `note_reader.KINDS` it is.
      enable_dropout: see encoder_input_tokens.
      prior_tokens: see encoder_input_tokens.

    Returns:
      Three parts, the last one `[batch, n, NUM_CLASSES]`.
    """
    encoded, states, notes = self._encode(encoder_input_tokens, None, enable_dropout, prior_tokens)
    return encoded, *self._frame_logits(states, notes, event_states, event_kinds)

  def _frame_logits(self, states, notes, event_states, event_kinds):
    events, sounding = self.note_reader(states, notes)
    classes = self.frame_head(states)
    event_classes = self.note_reader.class_of(self.note_reader.join(states, notes, event_states, event_kinds))
    return (
      FrameTargets(events[..., ONSETS], events[..., DRUMS], events[..., OFFSETS], sounding, classes),
      event_classes,
    )


def is_part(path: str, name: str) -> bool:
  """Returns whether the parameter at a path, such as 'encoder/layers_0/mlp/wo/kernel', is part of what `name` means: 'encoder/layers_0'."""
  return f'{path}/'.startswith(f'{name}/')


def without_training_only(params: dict, wanted) -> dict:
  """Returns the parameter tree without those `TRAINING_ONLY` parts that `wanted`, another tree, does not have."""
  return {name: part for name, part in params.items() if name in wanted or name not in TRAINING_ONLY}


def parameter_shapes(config: T5Config, num_mel_bins: int, with_frame_head: bool = False) -> dict:
  """Returns the parameter tree of the network with a `jax.ShapeDtypeStruct` for each array; computes nothing."""
  tokens = jax.ShapeDtypeStruct((1, max(1, config.memory_length * config.memory_segments)), jnp.int32)
  frames = jax.ShapeDtypeStruct((1, 1, num_mel_bins), jnp.float32)

  def init(frames, tokens):
    module = Transformer(config, with_frame_head)
    return module.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)['params']

  return jax.eval_shape(init, frames, tokens)
