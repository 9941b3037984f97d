"""Registration of a seqio task over any source of pieces, shared by the modules in tasks/."""

import functools
import hashlib

import seqio
import tensorflow as tf

from mrmt3 import vocabularies
from mrmt3.checkpoints.spec_json import fingerprint_repr
from mrmt3.config import ModelSpec
from mrmt3.data import examples, length_bucketing, memory_context, seqio_preprocessors
from mrmt3.data.example_config import PIECES, ExampleConfig
from mrmt3.data.piece_source import PieceSource
from mrmt3.data.seqio_source import SegmentSource

LIBRARIES: dict[str, examples.Library] = {}  # libraries of the registered tasks, by name


def add_task(
  prefix: str,
  source: PieceSource,
  spec: ModelSpec,
  config: ExampleConfig,
  cache_bytes: int = 0,
  cache_dir: str | None = None,
) -> str:
  """Register a task, unless it is registered already, and return its name, which contains a hash of all arguments.

  Features: inputs, float32 `[frames, depth]`; targets and prior_targets, int32 `[length]` with EOS. For whole pieces:
  inputs `[segments, frames, depth]` and targets `[segments, length]`. See `data.seqio_preprocessors`.

  Args:
    prefix: prefix of the name, e.g. 'slakh'.
    source: source of the pieces.
    spec: the model's spec: front end, vocabulary and segment length.
    config: sampling and preprocessing of examples.
    cache_bytes: memory for cached log-mels, bytes.
    cache_dir: folder for prepared pieces; None is the user's cache folder.
  """
  digest = hashlib.sha1(_identity(source, spec, config, cache_bytes, cache_dir).encode()).hexdigest()[:8]
  name = f'{prefix}_{config.sampling}_hop{config.max_hop}_{digest}'
  if name in LIBRARIES:
    return name
  library = examples.Library(source, spec, config, cache_dir)
  records = SegmentSource(library)
  seqio.TaskRegistry.add(
    name,
    source=records,
    preprocessors=[
      records.in_blocks,
      *(_whole_pieces(library) if config.sampling == PIECES else _segments(library, cache_bytes)),
    ],
    output_features=_features(library),
    **(_piece_scores(spec) if config.sampling == PIECES else {}),
    shuffle_buffer_size=None,
  )
  LIBRARIES[name] = library
  return name


def _segments(library, cache_bytes):
  config, segment = library.config, library.spec.segment_frames
  partial = functools.partial
  steps = [
    partial(seqio_preprocessors.draw_window, segment_frames=segment, sampling=config.sampling),
    partial(
      memory_context.add_prior_segments,
      segment_frames=segment,
      max_hop=config.max_hop,
      sampling=config.sampling,
      prior_segments=config.prior_segments,
      memory_dropout=config.memory_dropout,
    ),
  ]
  if config.max_pieces_per_mix > 1:
    steps.append(partial(seqio_preprocessors.add_mix, library=library, max_pieces=config.max_pieces_per_mix))
  steps.append(partial(seqio_preprocessors.add_targets_and_inputs, library=library, cache_bytes=cache_bytes))
  if config.length_block:
    steps.append(partial(length_bucketing.group_by_length, block=config.length_block, group=config.length_group))
  return steps


def _piece_scores(spec):
  from mrmt3.evaluation import piece_metrics

  return {'postprocess_fn': piece_metrics.Postprocessor(spec), 'metric_fns': [piece_metrics.scores]}


def _whole_pieces(library):
  return [functools.partial(seqio_preprocessors.add_whole_piece, library=library)]


def _features(library):
  vocabulary = vocabularies.vocabulary_from_codec(library.codec)
  if library.config.sampling == PIECES:
    return {
      'inputs': seqio.ContinuousFeature(dtype=tf.float32, rank=3),
      'targets': seqio.Feature(vocabulary, add_eos=False, rank=2),
    }
  tokens = seqio.Feature(vocabulary, add_eos=False)
  inputs = seqio.ContinuousFeature(dtype=tf.float32, rank=2)
  prior_inputs = {'prior_inputs': inputs} if library.config.prior_inputs else {}
  return {'inputs': inputs, 'targets': tokens, 'prior_targets': tokens, **prior_inputs}


def _identity(source, spec, config, *cache) -> str:
  """Return the text that a task's name hashes. It must not change, so that older runs find their data."""
  parts = (repr(source), fingerprint_repr(spec), _config_repr(config), *map(repr, cache))
  return f'({", ".join(parts)})'


def _config_repr(config: ExampleConfig) -> str:
  """Return the `repr` of a config, including two former options at their defaults, and `effects` only if set."""
  text = repr(config).replace(', effects=None', '')
  return text.replace(', max_pieces_per_mix=', ', shuffle_ties=False, shuffle_probability=1.0, max_pieces_per_mix=')
