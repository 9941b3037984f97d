"""Checkpoints of other programs as ours, and ours as theirs.

Reads MR-MT3's .ckpt, mt3.pth and other PyTorch files under the ports' names (also as .npz), t5x checkpoints before and
since Orbax, and ours. A file holds arrays; the rest of a model (`config.ModelSpec`) comes from
a model.json next to them, else from the arrays' shapes and from who publishes such files, else from the options.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3 import network
from mrmt3.checkpoints import npz_files, packed, pytorch_files, pytorch_names, spec_json, t5x_legacy
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.utils.files import atomic_path
from mrmt3.vocabularies import VocabularyConfig, num_embeddings

OURS, T5X, T5X_LEGACY, PACKED = 'mrmt3', 't5x', 't5x-legacy', 'packed'
TORCH, LIGHTNING, NPZ = 'PyTorch', 'Lightning', 'npz'
MEMORY = 'memory'  # what --allow-missing can name

_LAYOUTS = {OURS: OURS, T5X: T5X_LEGACY, PACKED: PACKED}  # of a folder: what is asked for, what is written
_SUFFIXES = {'.pth': TORCH, '.pt': TORCH, '.ckpt': LIGHTNING, '.npz': NPZ}
_UNDER_TORCH_NAMES = (TORCH, LIGHTNING, NPZ)
_LAYERS = {
  'num_encoder_layers': r'encoder(?:/layers_|\.block\.)(\d+)',
  'num_decoder_layers': r'decoder(?:/layers_|\.block\.)(\d+)',
  'memory_layers': r'(?:memory_encoder/layers_|segmem_encoder\.block\.)(\d+)',
}
_MEMORY_NAME = re.compile(r'(memory_encoder/|segmem_)')
_LENGTH_IN_NAME = re.compile(r'context[ =_]*(\d+)')  # exp_segmemV2_prev_context=64_prevaug_frame=3.ckpt
_PUBLISHED_JOINED = 384  # width of all heads together, in every published checkpoint: 6 heads of 64
_LFS_POINTER = b'version https://git-lfs'


@dataclasses.dataclass(frozen=True)
class Source:
  """An opened checkpoint.

  Attributes:
    path: the file or folder.
    format: OURS, T5X, T5X_LEGACY, TORCH, LIGHTNING or NPZ.
    arrays: by name as the file has them; PyTorch's are not read before they are used.
    step: training steps done, 0 if the file does not record them.
    spec: from its model.json, or from a PyTorch file of ours; None without one.
  """

  path: Path
  format: str
  arrays: dict[str, np.ndarray]
  step: int
  spec: ModelSpec | None = None

  def name_of(self, path: str) -> str:
    """Return the name in this file of a parameter such as 'encoder/layers_0/mlp/wo/kernel'."""
    return pytorch_names.torch_name(path) if self.format in _UNDER_TORCH_NAMES else path

  def shape_of(self, path: str) -> tuple[int, ...]:
    """Return the shape of a matrix among the parameters; UserError if the file does not have it."""
    name = self.name_of(path)
    if name not in self.arrays:
      raise UserError(f'{self.path}: {name} is missing; is this a checkpoint of MT3 or MR-MT3?')
    shape = self.arrays[name].shape
    if len(shape) != 2:
      raise UserError(f'{self.path}: {name} has the shape {shape}, not two dimensions; is this MT3 or MR-MT3?')
    return shape[::-1] if self.format in _UNDER_TORCH_NAMES and path.endswith('kernel') else shape

  @property
  def memory_names(self) -> list[str]:
    """The names of the memory's arrays."""
    return [name for name in self.arrays if _MEMORY_NAME.match(name)]


@dataclasses.dataclass(frozen=True)
class Choices:
  """Choices about a model; None: take it from the checkpoint. The fields are those of the configurations."""

  num_heads: int | None = None
  positions: str | None = None
  memory_length: int | None = None
  front_end: str | None = None
  scaling: str | None = None
  num_velocity_bins: int | None = None
  segment_frames: int | None = None
  targets_length: int | None = None
  prior_layout: str | None = None
  ties: bool | None = None


def open_source(path: str | os.PathLike) -> Source:
  """Open a checkpoint of any known kind. UserError if there is none, or it is broken."""
  path = Path(path)
  if path.is_dir() or not path.exists():
    return _open_folder(orbax_checkpoints.find_checkpoint(path))
  try:
    with path.open('rb') as file:
      start = file.read(64)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or error}') from error
  if start.startswith(_LFS_POINTER):
    raise UserError(f'{path} is only a pointer of Git LFS, not the weights: run `git lfs pull` there, or `mrmt3 fetch`')
  if path.suffix == '.npz':
    return Source(path, NPZ, _without_prefix(npz_files.read_npz(path)), 0)
  if path.name == t5x_legacy.FILE:
    return _open_folder(path.parent)
  if not pytorch_files.is_torch_file(path):
    raise UserError(f'{path}: not a checkpoint; give a .ckpt, .pth, .pt or .npz file, or a checkpoint folder')
  file = pytorch_files.read_torch(path)
  try:
    spec = None if file.spec_json is None else spec_json.from_json(file.spec_json)
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  return Source(path, LIGHTNING if file.is_lightning else TORCH, _without_prefix(file.weights), file.step, spec)


def _without_prefix(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Return the weights without the name of the module that holds the network, where all have it in front."""
  prefix = 'model.'
  if all(name.startswith(prefix) for name in weights):
    return {name.removeprefix(prefix): array for name, array in weights.items()}
  return dict(weights)


def _open_folder(folder: Path) -> Source:
  from flax import traverse_util

  params, step = orbax_checkpoints.restore_target(folder)
  arrays = traverse_util.flatten_dict(params, sep='/')
  spec = orbax_checkpoints.read_spec(folder) if (folder / orbax_checkpoints.SPEC_NAME).is_file() else None
  kind = T5X_LEGACY if t5x_legacy.is_legacy(folder) else T5X if spec is None else OURS
  return Source(folder, kind, arrays, step, spec)


def list_arrays(source: Source) -> list[str]:
  """Return a line for each array, name, shape and dtype, and one with their sum."""
  rows = [(name, str(array.shape), array.dtype.name) for name, array in sorted(source.arrays.items())]
  widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
  lines = [f'{name:{widths[0]}}  {shape:{widths[1]}}  {dtype}' for name, shape, dtype in rows]
  count = sum(array.size for array in source.arrays.values())
  return [*lines, f'{len(rows)} arrays, {count:,} numbers; {source.format}, step {source.step}']


def model_spec(source: Source, choices: Choices) -> ModelSpec:
  """Return the specification of a checkpoint's model.

  Without a model.json, sizes are those of the arrays. Weights under PyTorch names with a memory, or from
  Lightning, are taken for MR-MT3's: its position table, front end, scaling and prior tokens. All others are taken for
  MT3's; with 127 velocity bins, known by the size of the vocabulary, for the piano model of ISMIR 2021 (512 frames, no
  ties). L_agg, which no array shows, is read off the file's name as published (`context=64`).

  Raises:
    UserError: the checkpoint lacks arrays that show its sizes, or `choices` must name something.
  """
  try:
    return _chosen_spec(source, choices)
  except UserError as error:
    if str(source.path) in str(error):
      raise
    raise UserError(f'{source.path}: {error}') from error


def _chosen_spec(source: Source, choices: Choices) -> ModelSpec:
  spec = source.spec or _implied_spec(source, choices)
  changes = {name: value for name, value in dataclasses.asdict(choices).items() if value is not None}
  parts = {}
  for part in ('network', 'spectrogram', 'vocabulary'):
    config = getattr(spec, part)
    own = {name: changes.pop(name) for name in list(changes) if hasattr(config, name)}
    if 'num_heads' in own:
      own['head_dim'] = _head_dim(source, own['num_heads'])
    parts[part] = dataclasses.replace(config, **own)
  return dataclasses.replace(spec, **parts, **changes)


def _head_dim(source: Source, num_heads: int) -> int:
  joined = source.shape_of('encoder/layers_0/attention/query/kernel')[1]
  if num_heads < 1 or joined % num_heads:
    raise UserError(f'{source.path}: {num_heads} heads do not divide the {joined} columns of its attention')
  return joined // num_heads


def _implied_spec(source: Source, choices: Choices) -> ModelSpec:
  vocab_size, emb_dim = source.shape_of('decoder/token_embedder/embedding')
  num_mel_bins = source.shape_of('encoder/continuous_inputs_projection/kernel')[0]
  joined = source.shape_of('encoder/layers_0/attention/query/kernel')[1]
  layers = {field: _num_layers(source, pattern) for field, pattern in _LAYERS.items()}
  num_heads = choices.num_heads or (6 if joined == _PUBLISHED_JOINED else None)
  if num_heads is None:
    raise UserError(
      f'{source.path}: the {joined} columns of its attention do not determine the number of heads; add --num-heads N'
    )
  memory_length = choices.memory_length
  if memory_length is None:
    memory_length = _memory_length(source)
  is_mr_mt3 = source.format == LIGHTNING or (source.format in _UNDER_TORCH_NAMES and bool(source.memory_names))
  kind = 'mr_mt3' if is_mr_mt3 else 'mt3'
  # A file of the ports that has MT3's table was made for weights that need it; theirs may be there by mistake
  # (mt3.pth).
  table = pytorch_names.position_kind(source.arrays) if choices.positions is None else None
  config = network.T5Config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    head_dim=_head_dim(source, num_heads),
    mlp_dim=source.shape_of('encoder/layers_0/mlp/wi_0/kernel')[1],
    positions='mt3' if table == 'mt3' else kind,
    initializers=kind,
    dropout_masks=kind,
    decoder_padding_masks=not is_mr_mt3,
    memory_length=memory_length,
    **layers,
  )
  is_piano = vocab_size == num_embeddings(VocabularyConfig(num_velocity_bins=127))
  return ModelSpec(
    config,
    SpectrogramConfig(num_mel_bins=num_mel_bins, front_end=kind, scaling='unit' if is_mr_mt3 else 'none'),
    VocabularyConfig(num_velocity_bins=127 if is_piano else 1),
    segment_frames=512 if is_piano else 256,
    targets_length=1024,
    prior_layout='start_token' if is_mr_mt3 else 'targets',
    ties=not is_piano,
  )


def _num_layers(source: Source, pattern: str) -> int:
  """Return how many layers the names of a source number; UserError for more than it has arrays."""
  numbers = {match[1] for match in map(re.compile(pattern).match, source.arrays) if match}
  last = max(numbers, key=lambda digits: (len(digits), digits), default='0')
  if len(last) > 9 or int(last) >= len(source.arrays):
    raise UserError(
      f'{source.path}: an array is named after layer {last:.20}, but there are {len(source.arrays)} arrays'
    )
  return 1 + int(last)


def _memory_length(source: Source) -> int:
  if not source.memory_names:
    return 0
  match = _LENGTH_IN_NAME.search(source.path.name)
  if not match:
    raise UserError(f'{source.path} has a memory, but no number of memory frames in its name; add --l-agg N')
  return int(match[1])


def params_of(source: Source, spec: ModelSpec, allow_missing: tuple[str, ...] = (), seed: int = 0) -> dict:
  """Return a checkpoint's parameter tree, float32, views of its arrays where possible.

  Args:
    source: the checkpoint.
    spec: what it is to be a model of.
    allow_missing: (MEMORY,) gives fresh weights to a memory that is not in it.
    seed: of the fresh weights.

  What only training needs is left out, and the memory's arrays where the model has no memory (L_agg = 0).

  Raises:
    UserError: naming what is missing, left over or of the wrong shape.
  """
  from flax import traverse_util

  config = spec.network
  shapes = traverse_util.flatten_dict(spec.parameter_shapes(), sep='/')
  wanted = {path: shape.shape for path, shape in shapes.items()}
  unused = set(config.training_only) - {path.split('/')[0] for path in wanted}
  arrays = {name: array for name, array in source.arrays.items() if name.split('/')[0] not in unused}
  has_memory = config.num_memory_frames > 0
  if not has_memory:
    arrays = {name: array for name, array in arrays.items() if not _MEMORY_NAME.match(name)}
  in_torch = source.format in _UNDER_TORCH_NAMES
  found = {
    path: pytorch_names.as_kernel(path, arrays[name]) if in_torch else np.asarray(arrays[name], np.float32)
    for path in wanted
    if (name := source.name_of(path)) in arrays
  }
  if has_memory and MEMORY in allow_missing and not source.memory_names:
    fresh = traverse_util.flatten_dict({'memory_encoder': fresh_memory(config, seed)}, sep='/')
    found |= {path: np.asarray(array) for path, array in fresh.items()}
  try:
    rest = pytorch_names.left_over_weights(arrays) if in_torch else arrays
  except UserError as error:
    raise UserError(f'{source.path}: {error}') from error
  problems = pytorch_names.problems(found, wanted, source.name_of, rest)
  if problems:
    hint = ''
    if has_memory and not source.memory_names:
      hint = '; to give it a fresh memory add --allow-missing memory'
    raise UserError(f'{source.path}: {pytorch_names.in_one_line(problems)}{hint}')
  return traverse_util.unflatten_dict({path: found[path] for path in wanted}, sep='/')


def fresh_memory(config: network.T5Config, seed: int) -> dict:
  """Return start values of the memory's parameters, as training from scratch draws them."""
  import jax
  import jax.numpy as jnp

  def initialise(key):
    embedded = jnp.zeros((1, config.memory_segments * config.memory_length, config.emb_dim), jnp.float32)
    return network.MemoryEncoder(config).init(key, embedded)['params']

  return jax.device_get(jax.jit(initialise)(jax.random.key(seed)))


def target_format(path: str | os.PathLike, layout: str) -> str:
  """Return the format of a destination, by its name; `layout` is that of a folder: OURS, T5X or PACKED.

  Raises:
    UserError: the name has no known suffix, or contradicts `layout`.
  """
  suffix = Path(path).suffix
  if suffix in _SUFFIXES:
    if layout != OURS:
      raise UserError(f'{path}: a {suffix} file has no {layout} layout; name a folder')
    return _SUFFIXES[suffix]
  return _LAYOUTS[layout]


def check_target(path: str | os.PathLike, kind: str) -> None:
  """Raise UserError if a destination cannot be written, or is a folder that holds checkpoints."""
  path = Path(path)
  if kind in _LAYOUTS.values():
    taken = (path / orbax_checkpoints.STATE_NAME).exists() or packed.is_packed(path)
    if taken or orbax_checkpoints.latest_step(path) is not None:
      raise UserError(f'{path} holds checkpoints already; name another folder')
    if path.exists() and not path.is_dir():
      raise UserError(f'{path} is a file; name a folder, or a file that ends in {", ".join(_SUFFIXES)}')
  elif path.is_dir():
    raise UserError(f'{path} is a folder; name a file')


def write(path: str | os.PathLike, kind: str, params: dict, spec: ModelSpec, step: int) -> Path:
  """Write a parameter tree as a checkpoint of the given format, whole or not at all, and return where it is.

  Raises:
    UserError: if it cannot be written, or the network has parts that the format has no names for.
  """
  path = Path(path)
  if kind == OURS:
    state = {'target': params, 'state': {'step': np.int32(step)}}
    return orbax_checkpoints.save_checkpoint(path, step, state, spec)
  if kind == T5X_LEGACY:
    folder = orbax_checkpoints.checkpoint_folder(path, step)
    t5x_legacy.write_params(folder, params, step, {orbax_checkpoints.SPEC_NAME: spec_json.to_json(spec).encode()})
    return folder
  if kind == PACKED:
    packed.save(path, params, spec, {'step': step})
    return path
  spec.network.check_format(path)  # what the format cannot hold
  weights, copies = pytorch_names.torch_from_params(params, spec.network.positions)
  if kind == NPZ:
    with atomic_path(path) as temporary:
      np.savez(temporary, **weights)
  else:
    prefix = 'model.' if kind == LIGHTNING else ''
    pytorch_files.write_torch(
      path,
      {prefix + name: array for name, array in weights.items()},
      {prefix + name: prefix + original for name, original in copies.items()},
      lightning_step=step if kind == LIGHTNING else None,
      spec_json=spec_json.to_json(spec),
    )
  return path


def describe(spec: ModelSpec) -> str:
  """Return a line about a model: sizes, and what else decides whether its weights are used right."""
  network, front = spec.network, spec.spectrogram
  memory = network.describe_memory()
  if network.uses_prior:
    memory += f' (prior tokens: {spec.prior_layout})'
  return (
    f'{network.describe()}; log-mel {front.front_end}, scaling {front.scaling}; '
    f'{spec.segment_frames} frames per segment, {spec.vocabulary.num_velocity_bins} velocity '
    f'bin{"" if spec.vocabulary.num_velocity_bins == 1 else "s"}, {"ties" if spec.ties else "no ties"}; {memory}'
  )
