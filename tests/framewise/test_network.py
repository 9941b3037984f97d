"""The frame-level network: what it encodes, its cache, gradients, beam search and transcription."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import partitioning

from mrmt3.config import ModelSpec
from mrmt3.engine import decoding
from mrmt3.framewise import FramewiseConfig, FramewiseTransformer, token_decoder
from mrmt3.framewise.candidates import MAX_TIES, ON, NoteCandidates
from mrmt3.framewise.encoder import HarmonicEncoder
from mrmt3.inference.transcriber import Transcriber
from mrmt3.models import ContinuousInputsEncoderDecoderModel
from mrmt3.nn import layers, parameters
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.tokens import batched_parsing
from mrmt3.tokens.token_ids import token_ids
from mrmt3.vocabularies import VocabularyConfig, build_codec

WORDS = VocabularyConfig(steps_per_second=32, num_velocity_bins=1)
MELS = SpectrogramConfig(hop_width=250, num_mel_bins=16)
IDS = token_ids(build_codec(WORDS))
CONFIG = FramewiseConfig(
  vocab_size=896,
  emb_dim=48,
  num_heads=2,
  head_dim=8,
  mlp_dim=8,
  num_encoder_layers=1,
  front_channels=(2, 2, 2, 2),
  output_positions=False,
  num_candidates=6,
  emission_threshold=0.0,
  instrument_prior=0.0,
)
EOS = 1


def tok(kind, value=0):
  """Return a token's model id."""
  return getattr(IDS, kind)[0] + value


@functools.cache
def _init():
  """Return fresh parameters, frame head included."""
  module, tokens = CONFIG.module(IDS, with_frame_head=True), jnp.ones((1, 2), int)
  init = jax.jit(functools.partial(module.init, enable_dropout=False))
  return init(jax.random.key(0), jnp.zeros((1, 4, 16)), tokens, tokens, prior_tokens=tokens)['params']


def fresh(with_frame_head=False, **changes):
  """Return a network, its parameters, log-mels and tokens of two segments."""
  module = CONFIG.replace(**changes).module(IDS, with_frame_head=with_frame_head)
  frames = jax.random.normal(jax.random.key(1), (2, 16, 16))
  tokens = jnp.tile(jnp.array([0, tok('tie'), tok('time', 3)]), (2, 1))
  params = {name: dict(part) for name, part in _init().items() if with_frame_head or name != 'frame_head'}
  return module, params, frames, tokens


def prior_of(*pitches):
  """Return the tokens of two segments in which notes of a piano begin, and sound to the end."""
  begun = [tok('tie'), tok('time', 1), tok('program', 0), tok('velocity', 1), *(tok('pitch', k) for k in pitches)]
  return jnp.tile(jnp.array([*begun, EOS]), (2, 1))


def test_parameters_are_those_of_the_encoder_and_the_note_heads():
  module, params, *_ = fresh()
  shapes = parameters.parameter_shapes(CONFIG, IDS, 16)
  assert isinstance(module, FramewiseTransformer)
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
  assert set(shapes) == {'encoder', 'note_reader'} and 'time' not in shapes['note_reader']
  assert set(shapes['encoder']) == {'harmonic_front', 'layers_0', 'encoder_norm'}


def test_encode_returns_ties_and_candidates_as_rows():
  module, params, frames, _ = fresh()
  prior = prior_of(60, 64)

  def both(network):
    hidden, pitches = network.encoder.with_pitches(frames, None, True)
    heads = network.note_reader
    ties = heads.ties(hidden, pitches, batched_parsing.held(prior, IDS))
    return network.encode(frames, enable_dropout=False, prior_tokens=prior), ties, heads.candidates(hidden, 6, pitches)

  encoded, ties, candidates = jax.jit(functools.partial(module.apply, method=both))({'params': params})
  assert encoded.shape == (2, MAX_TIES + 6, token_decoder.WIDTH) and encoded.dtype == jnp.float32
  assert ((ties.scores > -10).sum(axis=1) == 2).all()  # the two held pitches
  for ours, *theirs in zip(token_decoder.of_rows(encoded), ties, candidates, strict=True):
    np.testing.assert_allclose(ours, jnp.concatenate(theirs, axis=1), atol=1e-6)


def test_the_instrument_prior_counts_the_prior_segment_unless_counts_are_given():
  module, params, frames, _ = fresh(instrument_prior=1.0)
  encode = jax.jit(
    lambda prior, counts: module.apply(
      {'params': params}, frames, enable_dropout=False, prior_tokens=prior, class_counts=counts, method=module.encode
    )
  )
  prior = prior_of(60, 64)
  counts = batched_parsing.onset_counts(prior, IDS)
  np.testing.assert_array_equal(encode(prior, None), encode(prior, counts))
  shares = [
    token_decoder.of_rows(encode(prior, jnp.zeros((2, NUM_CLASSES), int).at[:, k].set(1000))).classes[:, MAX_TIES:]
    for k in (0, 9)
  ]
  # The class that has played all notes so far becomes likelier.
  assert (shares[0][..., 0] > shares[1][..., 0]).any() and (shares[1][..., 9] > shares[0][..., 9]).any()
  assert float(shares[0][..., 0].sum()) > 2 * float(shares[1][..., 0].sum())


def test_prior_tokens_are_required_and_examples_cannot_be_packed():
  module, params, frames, tokens = fresh()
  encode = functools.partial(module.apply, {'params': params}, frames, method=module.encode, enable_dropout=False)
  with pytest.raises(ValueError, match='needs prior tokens'):
    encode()
  with pytest.raises(ValueError, match='cannot be packed'):
    encode(encoder_segment_ids=jnp.ones((2, 8), int), prior_tokens=tokens)


def test_the_encoder_can_add_positions_to_its_output():
  frames = np.ones((1, 12, 16), np.float32)
  plain, placed = (HarmonicEncoder(CONFIG.replace(output_positions=wanted)) for wanted in (False, True))
  params = jax.jit(functools.partial(plain.init, deterministic=True))(jax.random.key(0), frames)
  encoded = [jax.jit(functools.partial(net.apply, deterministic=True))(params, frames) for net in (plain, placed)]
  np.testing.assert_allclose(encoded[1], encoded[0] + layers.sinusoidal_positions(6, 48, 'mt3'), atol=1e-5)


@pytest.mark.parametrize('stride', [1, 2])
def test_the_frame_head_changes_nothing_but_the_training_outputs(stride):
  headed, params, frames, tokens = fresh(with_frame_head=True, time_stride=stride)
  plain = headed.config.module(IDS)
  wanted = parameters.parameter_shapes(headed.config, IDS, 16)
  kept = parameters.without_training_only(params, wanted, headed.config.training_only)
  assert set(params) - set(kept) == {'frame_head'} and set(kept) == set(wanted)

  def outputs(module, params, method, *args):
    options = {'enable_dropout': False, 'prior_tokens': tokens, 'method': method}
    return jax.jit(functools.partial(module.apply, **options))({'params': params}, frames, *args)

  logits = [outputs(net, held, '__call__', tokens, tokens) for net, held in ((plain, kept), (headed, params))]
  np.testing.assert_allclose(*logits, atol=1e-5)
  encoded, targets, classes = outputs(headed, params, 'encode_with_frame_logits', tokens[:, :2], tokens[:, :2])
  np.testing.assert_allclose(encoded, outputs(plain, kept, 'encode'), atol=1e-5)
  assert {x.shape[:2] for x in targets} == {(2, 16 // stride)} and classes.shape == (2, 2, NUM_CLASSES)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gradients_are_finite_however_certain_the_note_heads_are(dtype):
  module, params, frames, tokens = fresh(dtype=dtype, instrument_prior=1.0)

  def loss(params):
    logits = module.apply({'params': params}, frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)
    return -jax.nn.log_softmax(logits)[:, :, tok('program', 5)].sum()

  gradient = jax.jit(jax.grad(loss))
  for certainty in (-30.0, 0.0, 30.0):
    heads = params['note_reader']
    heads = {**heads, 'events_bias': jnp.full_like(heads['events_bias'], certainty)}
    slopes = gradient({**params, 'note_reader': heads})
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(slopes))
    assert float(jnp.abs(slopes['note_reader']['class_of']['kernel']).max()) > 0 or certainty


@pytest.mark.parametrize('threshold', [0.0, 0.25])
def test_the_networks_own_cache_equals_the_step_decoder(threshold):
  config = CONFIG.replace(emission_threshold=threshold)
  module, decoder = config.module(IDS), config.step_decoder(IDS, 6)
  events = (np.arange(2, 8), np.full(6, ON), np.full(6, 60), np.array([-2.0, -2.0, -0.8, -2.0, 0.3, -2.0]))
  classes = np.eye(NUM_CLASSES)[np.full(6, 3)]
  rows = token_decoder.as_rows(NoteCandidates(*(jnp.asarray(np.stack([x, x])) for x in (*events, classes))))
  tokens = np.random.default_rng(0).integers(3, 800, (2, 6))
  tokens[:, :3] = [0, tok('tie'), tok('time', 2)]
  options = {'enable_dropout': False, 'method': module.decode}
  whole = module.apply({}, rows, None, tokens, **options)
  empty, cache = module.apply({}, rows, None, tokens, decode=True, mutable=['cache'], **options)
  assert empty.shape == whole.shape
  one = jax.jit(functools.partial(module.apply, decode=True, mutable=['cache'], **options))
  fast, step = decoder.init_cache(None, rows, 6), jax.jit(functools.partial(decoder.step, None))
  for position in range(6):
    now = tokens[:, position : position + 1]
    logits, cache = one(cache, rows, None, now)
    wanted, fast = step(now[:, 0], position, fast)
    np.testing.assert_allclose(logits[:, 0], wanted, atol=1e-5)
    if not threshold:
      np.testing.assert_allclose(logits[:, 0], whole[:, position], atol=1e-4)


class PriorModel(ContinuousInputsEncoderDecoderModel):
  """A model whose network takes the prior tokens of the batch."""

  def call_keywords(self, batch):
    return {'prior_tokens': batch['prior_tokens']}


def test_beams_have_the_scores_of_the_whole_sequences():
  """What has been emitted stays with a hypothesis wherever the search moves it."""
  module, params, inputs, _ = fresh(time_stride=1, num_candidates=2)
  params['note_reader']['events_bias'] += 3.0
  empty = jnp.zeros((2, 14), jnp.int32)
  model = PriorModel(module, decode_fn=decoding.beam_search, input_depth=16)
  batch = {'encoder_input_tokens': inputs, 'decoder_input_tokens': empty, 'prior_tokens': empty}
  options = dict(decoder_params={'alpha': 0.0}, num_decodes=4, return_all_decodes=True)
  beams, aux = jax.jit(functools.partial(model.predict_batch_with_aux, **options))(params, batch)
  assert (beams > 0).sum() > 40 and len(np.unique(beams.reshape(8, -1), axis=0)) == 8
  apply = jax.jit(functools.partial(module.apply, enable_dropout=False))
  for beam in range(4):
    tokens = beams[:, beam]
    shifted = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))
    logits = apply({'params': params}, inputs, shifted, tokens, prior_tokens=empty)
    likely = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose((likely * (tokens > 0)).sum(axis=1), aux['scores'][:, beam], rtol=1e-4)


@pytest.mark.parametrize('hop', [1, 2, 3])
def test_a_transcriber_emits_only_the_instruments_asked_for(hop):
  config = CONFIG.replace(front_channels=(1, 1, 1, 1), emission_threshold=0.02)
  spec = ModelSpec(config, MELS, WORDS, segment_frames=64, targets_length=128)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), spec.parameter_shapes())
  params['note_reader']['events_bias'] += 2.0
  params['note_reader']['sounds_bias'] += 2.0
  params['note_reader']['class_of']['kernel'] *= 0.1  # so that basses have a share of every note
  transcriber, audio = Transcriber(params, spec), rng.normal(0, 0.1, 40000).astype(np.float32)
  everything = transcriber.transcribe(audio, 16000, hop=hop)
  basses = transcriber.transcribe(audio, 16000, hop=hop, instruments='bass')
  assert len(everything.notes) and set(everything.notes['program']) - set(range(32, 40))
  assert len(basses.notes) and set(basses.notes['program']) <= set(range(32, 40)) and not basses.notes['is_drum'].any()
  for segment in (*everything.segments, *basses.segments):
    assert segment.tokens[-1] == EOS  # no endless repetition
  # Nothing continues in a piece's first segment.
  assert everything.segments[0].tokens[0] == basses.segments[0].tokens[0] == tok('tie')
  if hop > 1:
    assert any(segment.tokens[0] != tok('tie') for segment in basses.segments[1:])


def test_the_real_t5x_can_place_every_parameter():
  """Its partitioner refuses an array with one logical axis twice."""
  module = CONFIG.module(IDS, with_frame_head=True)
  frames, tokens = np.zeros((1, 8, 16), np.float32), np.ones((1, 2), np.int32)
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)
  )
  axes = jax.tree.leaves(variables['params_axes'], is_leaf=lambda x: hasattr(x, 'names'))
  assert len(axes) == len(jax.tree.leaves(variables['params'])) > 30
  for names in axes:
    partitioning.logical_to_mesh_axes(tuple(names.names))
