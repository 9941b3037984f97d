"""MT3's encoder-decoder over log-mel frames, with MR-MT3's memory of prior tokens.

The memory's encoder frames follow those of the segment along time, and the decoder's cross-attention sees both. Without
memory (`memory_length` 0) this is exactly MT3. Parameter names are those of magenta's checkpoints; the memory's are
`memory_encoder/{projection, layers_N, memory_norm}`. The network does not know what a token means.

Modules are called as MT3's are; our own arguments follow MT3's, by keyword. Where no mask is given, attention takes a
fast path that never writes one down.

Other models build on this one by subclassing: `Encoder.setup_inputs` and `embed_inputs` are hooks for the front end,
`Encoder.finish` for the output, `Decoder.embed_inputs` and `embed_cached` for the decoder's inputs, and `Transformer`
makes its parts in `make_encoder` and `make_decoder`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3.decoding.cached_decoder import CachedDecoder
from mrmt3.errors import UserError
from mrmt3.layers import make_attention_mask
from mrmt3.nn import layers
from mrmt3.nn.config_checks import check_activations, check_choice, check_dtype, check_rate, check_sizes
from mrmt3.nn.network_config import NetworkConfig

KINDS = ('mt3', 'mr_mt3')
MEMORY_ATTENTIONS = JOINT, DECOUPLED = 'joint', 'decoupled'

_SIZES = (
  'vocab_size',
  'emb_dim',
  'num_heads',
  'num_encoder_layers',
  'num_decoder_layers',
  'head_dim',
  'mlp_dim',
  'memory_layers',
  'memory_segments',
)


@dataclasses.dataclass(frozen=True)
class T5Config(NetworkConfig):
  """Everything that determines the network's parameters and arithmetic: MT3's fields, then MR-MT3's.

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
    dropout_rate: probability of dropping, in training.
    logits_via_embedding: use the embedding table as output layer (logits are then divided by sqrt(emb_dim)).
    positions: 'mt3' or 'mr_mt3', the position table that the weights were trained with.
    memory_length: encoder frames of the memory that the decoder sees (L_agg in the paper); 0 = no memory.
    memory_layers: layers of the memory encoder.
    memory_segments: prior segments that the memory holds, `memory_length` frames of each (1 in the paper).
    memory_attention: 'joint' (as in the paper: cross-attention weighs the memory's frames and the segment's in one
      softmax) or 'decoupled' (a softmax for each, and the two results are added). In small trainings the joint one left
      the memory unread (docs/method.md). Without memory it changes nothing.
    initializers: 'mt3' or 'mr_mt3', the distributions of fresh parameters.
    dropout_masks: 'mt3' (one mask for all positions, but after the encoder's norm) or 'mr_mt3' (element-wise).
    decoder_padding_masks: the decoder's padding tokens (0) see and are seen by nothing, as MT3 trains; False: causal
      mask only, as MR-MT3. They differ at padded positions only.

  Raises:
    UserError: a value is out of range; the message names the field.
  """

  kind: ClassVar[str] = 'mr_mt3'

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
  memory_attention: str = JOINT
  initializers: str = 'mt3'
  dropout_masks: str = 'mt3'
  decoder_padding_masks: bool = True

  def __post_init__(self):
    check_dtype(self)
    check_sizes(self, _SIZES)
    check_sizes(self, ('memory_length',), least=0)
    for name in ('positions', 'initializers', 'dropout_masks'):
      check_choice(self, name, KINDS)
    check_choice(self, 'memory_attention', MEMORY_ATTENTIONS)
    if self.emb_dim % 2 or self.emb_dim < 4:
      raise UserError(f'network: emb_dim is {self.emb_dim}; positions need an even number of at least 4')
    check_rate(self, 'dropout_rate')
    check_activations(self)

  def module(self, tokens=None, *, remat: bool = False) -> 'Transformer':
    """Return the network; see `NetworkConfig.module`."""
    return Transformer(self, remat)

  def step_decoder(self, tokens, max_length: int) -> CachedDecoder:
    """Return the cached decoder; see `NetworkConfig.step_decoder`."""
    return CachedDecoder(self, max_length)

  @property
  def uses_prior(self) -> bool:
    """Whether there is a memory."""
    return self.memory_length > 0

  @property
  def num_memory_frames(self) -> int:
    """How many memory frames follow the encoder frames."""
    return self.memory_length * self.memory_segments

  @property
  def num_prior_segments(self) -> int:
    """How many prior segments `prior_tokens` holds."""
    return self.memory_segments

  @property
  def min_prior_length(self) -> int:
    """The least number of prior tokens that the network takes."""
    return max(1, self.memory_length * self.memory_segments)

  @property
  def decoupled_frames(self) -> int:
    """How many of the encoder frames that the decoder sees, the last ones, have a softmax of their own."""
    return self.memory_length * self.memory_segments if self.memory_attention == DECOUPLED else 0

  def validate(self, spec) -> None:
    """Raise UserError if the memory is longer than the prior tokens."""
    if self.memory_length > spec.targets_length:
      raise UserError(
        f'model: network.memory_length is {self.memory_length}; the prior tokens are only '
        f'targets_length = {spec.targets_length} long'
      )

  def describe(self) -> str:
    """Return a line about sizes."""
    return (
      f'{self.num_encoder_layers} + {self.num_decoder_layers} layers, width {self.emb_dim}, {self.num_heads} heads of '
      f'{self.head_dim}; positions {self.positions}'
    )

  def describe_memory(self) -> str:
    """Return a few words about the memory."""
    if not self.memory_length:
      return 'no memory'
    return f'memory of {self.memory_length} frames, {self.memory_attention} attention'

  def check_format(self, path) -> None:
    """Raise UserError if the published format has no place for what the network does."""
    if self.kind != T5Config.kind:
      super().check_format(path)
    if self.decoupled_frames:
      raise UserError(
        f'{path}: the memory has an attention of its own (memory_attention), unlike the published one; '
        'use one of our own layouts'
      )

  def replace(self, **changes) -> 'T5Config':
    """Return a copy with some fields changed."""
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
    """Declare the parts."""
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
    """Return the first `outputs` rows (default all) of `[batch, length, emb]`; all rows serve as keys and values.

    `encoder_mask` `[batch, 1, outputs, length]` is > 0 where attention may look; None: everywhere.
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
    """Declare the parts."""
    cfg = self.config
    self.pre_self_attention_layer_norm = layers.LayerNorm(cfg.dtype)
    self.self_attention = _attention(cfg)
    self.pre_cross_attention_layer_norm = layers.LayerNorm(cfg.dtype)
    self.encoder_decoder_attention = _attention(cfg, cfg.decoupled_frames)
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
    """Return `[batch, length, emb]`.

    Args:
      inputs: `[batch, length, emb]`.
      encoded: `[batch, encoder frames, emb]`.
      decoder_mask: what is seen (> 0), `[batch, 1, length, length]`, or None: everything.
      encoder_decoder_mask: what is seen of the encoder frames, `[batch, 1, length, encoder frames]`, or None:
        everything.
      deterministic: whether to leave dropout out.
      decode: whether to compute one position at a time, see `Decoder`.
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
    """Put an empty cache for all positions of `x` `[batch, length, emb]` into the collection `cache`."""
    cfg = self.config
    room = jnp.zeros((x.shape[0], cfg.num_heads, x.shape[1], cfg.head_dim), cfg.dtype)
    for name, value in (('cached_keys', room), ('cached_values', room), ('cache_index', jnp.int32(0))):
      self.put_variable('cache', name, value)

  def _cached_step(self, x, encoded):
    """Compute one position `[batch, 1, emb]` with the keys and values in the collection `cache`."""
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
    """Compute one position `[batch, 1, emb]` without dropout; return it and the cache with its key and value added."""
    y = self.pre_self_attention_layer_norm(x)
    key, value = map(_join_heads, self.self_attention.keys_values(y))
    keys = jax.lax.dynamic_update_slice_in_dim(cache['self_keys'], key, position, axis=1)
    values = jax.lax.dynamic_update_slice_in_dim(cache['self_values'], value, position, axis=1)
    x = x + self.self_attention.step(y, keys, values, position)
    y = self.pre_cross_attention_layer_norm(x)
    x = x + self.encoder_decoder_attention.step(y, cache['cross_keys'], cache['cross_values'])
    return x + self.mlp(self.pre_mlp_layer_norm(x), False), {**cache, 'self_keys': keys, 'self_values': values}


def make_layers(kind, count: int, config: T5Config, remat: bool) -> list[nn.Module]:
  """Return layers; with `remat` the backward pass computes anew what is inside of them."""
  if remat:
    kind = nn.remat(kind, static_argnums=STATIC_ARGUMENTS[kind])
  return [kind(config) for _ in range(count)]


# Which arguments of a call, counted from self, are no arrays.
STATIC_ARGUMENTS = {EncoderLayer: (3, 4), DecoderLayer: (5, 6, 7, 9)}


class Encoder(nn.Module):
  """Encodes log-mel frames.

  Hooks for subclasses: `setup_inputs` declares the front end, `embed_inputs` applies it, `finish` changes the output.
  """

  config: T5Config
  remat: bool = False

  def setup(self):
    """Declare the parts."""
    cfg = self.config
    self.setup_inputs()
    self.layers = make_layers(EncoderLayer, cfg.num_encoder_layers, cfg, self.remat)
    self.encoder_norm = layers.LayerNorm(cfg.dtype)
    self.input_dropout = _dropout(cfg)
    self.output_dropout = layers.Dropout(cfg.dropout_rate, shared=False)

  def setup_inputs(self) -> None:
    """Declare the front end: one linear map of each frame."""
    cfg = self.config
    self.continuous_inputs_projection = _projection(cfg, cfg.emb_dim, ('vocab', 'embed'), cfg.dtype)

  def embed_inputs(self, frames: jax.Array) -> jax.Array:
    """Return the first hidden frames, `[batch, encoder frames, emb]`, of log-mel frames `[batch, frames, mel]`."""
    return self.continuous_inputs_projection(frames)

  def finish(self, x: jax.Array, positions: jax.Array) -> jax.Array:
    """Return the output for normalised frames `[batch, encoder frames, emb]` and the position table."""
    return x

  def __call__(
    self, encoder_input_tokens: jax.Array, encoder_mask: jax.Array | None = None, deterministic: bool = False
  ) -> jax.Array:
    """Encode log-mel frames `[batch, frames, mel]` as `[batch, encoder frames, emb]`; mask as in `EncoderLayer`."""
    return self.transform(self.embed_inputs(encoder_input_tokens), encoder_mask, deterministic)

  def transform(self, x: jax.Array, mask: jax.Array | None = None, deterministic: bool = False) -> jax.Array:
    """Apply positions, layers and norm to hidden frames `[batch, encoder frames, emb]`."""
    cfg, enable_dropout = self.config, not deterministic
    table = layers.sinusoidal_positions(x.shape[1], cfg.emb_dim, cfg.positions).astype(cfg.dtype)
    x = self.input_dropout(x + table, enable_dropout)
    for layer in self.layers:
      x = layer(x, mask, deterministic, None)
    return self.output_dropout(self.finish(self.encoder_norm(x), table), enable_dropout)


class MemoryEncoder(nn.Module):
  """Encodes the embedded tokens of prior segments, each on its own; no masks, no dropout."""

  config: T5Config
  remat: bool = False

  def setup(self):
    """Declare the parts."""
    cfg = self.config
    self.projection = _projection(cfg, cfg.emb_dim, ('joined_kv', 'embed'), cfg.dtype)
    self.layers = make_layers(EncoderLayer, cfg.memory_layers, cfg, self.remat)
    self.memory_norm = layers.LayerNorm(cfg.dtype)

  def __call__(self, embedded: jax.Array) -> jax.Array:
    """Return `[batch, memory_segments * memory_length, emb]` for embedded prior tokens `[batch, prior, emb]`."""
    cfg = self.config
    batch, prior, _ = embedded.shape
    # Positions count on from one prior segment to the next, so that the segments can be distinguished.
    table = layers.sinusoidal_positions(prior, cfg.emb_dim, cfg.positions)
    x = self.projection(embedded) + table.astype(cfg.dtype)
    x = x.reshape(batch * cfg.memory_segments, prior // cfg.memory_segments, cfg.emb_dim)
    for layer in self.layers[:-1]:
      x = layer(x, None, True, None)
    # Only these rows leave the memory, so only they are computed in its last layer.
    x = self.memory_norm(self.layers[-1](x, None, True, cfg.memory_length))
    return x.reshape(batch, cfg.memory_segments * cfg.memory_length, cfg.emb_dim)


class Decoder(nn.Module):
  """Predicts the next token from those before and the encoder frames."""

  config: T5Config
  remat: bool = False

  def setup(self):
    """Declare the parts."""
    cfg = self.config
    self.token_embedder = layers.Embed(cfg.vocab_size, cfg.emb_dim, cfg.dtype)
    self.layers = make_layers(DecoderLayer, cfg.num_decoder_layers, cfg, self.remat)
    self.decoder_norm = layers.LayerNorm(cfg.dtype)
    if not cfg.logits_via_embedding:
      self.logits_dense = _projection(cfg, cfg.vocab_size, ('embed', 'vocab'), jnp.float32)
    self.setup_inputs()
    self.dropout = _dropout(cfg)

  def embed(self, tokens: jax.Array) -> jax.Array:
    """Return the embeddings of tokens `[batch, length]` as `[batch, length, emb]`."""
    return self.token_embedder(tokens)

  def setup_inputs(self) -> None:
    """Declare what `embed_inputs` needs besides the embedding table; nothing here."""

  def embed_inputs(self, tokens: jax.Array) -> jax.Array:
    """Return what the layers start from, `[batch, length, emb]`, for whole sequences `[batch, length]`."""
    return self.embed(tokens)

  def embed_cached(self, tokens: jax.Array, has_cache: bool) -> jax.Array:
    """Return the same for a call with `decode`: the first one, without a cache, or a further position `[batch, 1]`."""
    return self.embed(tokens)

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
    """Return logits, float32 `[batch, length, vocab]`, for input tokens `[batch, length]` (targets shifted right).

    With `decode`, the first call makes room in the collection `cache` for as many positions as it is given; further
    ones take one position each. `decoder_positions` and `max_decode_length` are unused, as in MT3; the others are
    `DecoderLayer`'s.
    """
    del decoder_positions, max_decode_length
    tokens, enable_dropout = decoder_input_tokens, not deterministic
    cfg = self.config
    if decode:
      return self._cached(encoded, tokens, decoder_mask, encoder_decoder_mask, real, causal)
    table = layers.sinusoidal_positions(tokens.shape[1], cfg.emb_dim, cfg.positions)
    x = self.dropout(self.embed_inputs(tokens) + table.astype(cfg.dtype), enable_dropout)
    for layer in self.layers:
      x = layer(x, encoded, decoder_mask, encoder_decoder_mask, deterministic, False, None, real, causal)
    return self._logits(self.dropout(self.decoder_norm(x), enable_dropout))

  def _cached(self, encoded, tokens, decoder_mask, encoder_decoder_mask, real, causal):
    """Return the logits of a call with `decode`."""
    cfg = self.config
    first, length, rows = self.layers[0], tokens.shape[1], slice(None)
    has_cache = first.has_variable('cache', 'cache_index')
    if has_cache:
      length = first.get_variable('cache', 'cached_keys').shape[2]
      rows = first.get_variable('cache', 'cache_index')[None]
    table = jnp.asarray(layers.sinusoidal_positions(length, cfg.emb_dim, cfg.positions), cfg.dtype)[rows]
    x = self.embed_cached(tokens, has_cache) + table
    for layer in self.layers:
      x = layer(x, encoded, decoder_mask, encoder_decoder_mask, True, True, None, real, causal)
    return self._logits(self.decoder_norm(x))


class Transformer(nn.Module):
  """Encoder, memory and decoder.

  Attributes:
    config: sizes.
    remat: compute the inside of each layer again for the gradient instead of keeping it.
  """

  config: T5Config
  remat: bool = False

  def setup(self):
    """Declare the parts."""
    self.encoder = self.make_encoder()
    self.decoder = self.make_decoder()
    if self.config.memory_length:
      self.memory_encoder = MemoryEncoder(self.config, self.remat)

  def make_encoder(self) -> nn.Module:
    """Return the encoder, an `Encoder`."""
    return Encoder(self.config, self.remat)

  def make_decoder(self) -> nn.Module:
    """Return the decoder, a `Decoder`."""
    return Decoder(self.config, self.remat)

  def encode(
    self,
    encoder_input_tokens: jax.Array,
    encoder_segment_ids: jax.Array | None = None,
    enable_dropout: bool = True,
    *,
    prior_tokens: jax.Array | None = None,
  ) -> jax.Array:
    """Encode a segment and the memory.

    Args:
      encoder_input_tokens: float log-mel frames `[batch, frames, mel]`.
      encoder_segment_ids: `[batch, frames]`, which of the examples packed into a row a frame belongs to, or None; not
        with a memory.
      enable_dropout: whether to drop (needs the `dropout` random stream).
      prior_tokens: int model ids `[batch, prior]` of the prior segments, earliest first, each padded with 0 to the same
        length, at least `memory_length` per segment. Required by a network with memory, ignored by others.

    Returns:
      `[batch, encoder frames + memory_segments * memory_length, emb]`.

    Raises:
      ValueError: the memory lacks its prior tokens, or examples are packed.
    """
    mask = None
    if encoder_segment_ids is not None:
      mask = make_attention_mask(encoder_segment_ids, encoder_segment_ids, jnp.equal)
    encoded = self.encoder(encoder_input_tokens, mask, not enable_dropout)
    return self.append_memory(encoded, encoder_segment_ids, prior_tokens)

  def append_memory(
    self, encoded: jax.Array, encoder_segment_ids: jax.Array | None, prior_tokens: jax.Array | None
  ) -> jax.Array:
    """Return encoder frames `[batch, frames, emb]` followed by those of the memory, if there is one."""
    length = self.config.memory_length
    if not length:
      return encoded
    if encoder_segment_ids is not None:
      raise ValueError('examples cannot be packed where each has a memory; leave encoder_segment_ids out')
    segments = self.config.memory_segments
    if prior_tokens is None or prior_tokens.shape[1] < length * segments or prior_tokens.shape[1] % segments:
      raise ValueError(
        f'a network with a memory of {segments} x {length} frames needs at least {length} prior tokens a segment'
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
    """Return logits, float32 `[batch, length, vocab]`.

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
      decode: whether to compute one position at a time, see `Decoder`.
      max_decode_length: unused, as in MT3.
    """
    del encoder_input_tokens, decoder_positions, max_decode_length
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
    """Return logits, float32 `[batch, length, vocab]`; arguments as in `encode` and `decode`, positions are unused."""
    del encoder_positions
    encoded = self.encode(encoder_input_tokens, encoder_segment_ids, enable_dropout, prior_tokens=prior_tokens)
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
