"""Checks of arrays in zarr's format before they are read: what they declare, what their chunks expand to."""

import math
import zlib
from pathlib import Path

import numpy as np

from mrmt3.checkpoints.limits import check_expansion
from mrmt3.utils import bounded_files, strict_json

_METADATA = '.zarray'
_COMPRESSORS = (None, 'gzip', 'zlib')  # t5x writes gzip
# Of these, tensorstore decodes no more than the chunk has; of blosc and bz2 it decodes all that a chunk declares.
_BOUNDED = (*_COMPRESSORS, 'zstd')
_CODECS = ('bytes', 'transpose', 'crc32c', 'sharding_indexed', *_BOUNDED)
_MANIFEST = 'manifest.ocdbt'
_NAMES = ('.zarray', 'zarr.json')
_MAX_DIMENSIONS = 8
_ANY_HEADER = 47  # of zlib: gzip or zlib


def check_array(folder: Path) -> None:
  """Check the metadata and chunks of an array.

  Raises:
    ValueError: its sizes do not fit its files, or it has a dtype or compressor that weights do not have.
    OSError: a file of it cannot be read.
  """
  metadata = strict_json.loads(bounded_files.read_bytes(folder / _METADATA, strict_json.MAX_BYTES))
  if not isinstance(metadata, dict):
    raise ValueError(f'{_METADATA} is not a table')
  shape, chunks = metadata.get('shape'), metadata.get('chunks')
  if not _are_sizes(shape) or not _are_sizes(chunks) or len(shape) != len(chunks) or 0 in chunks:
    raise ValueError(f'{_METADATA} has an invalid shape')
  compressor = metadata.get('compressor') or {}
  if not isinstance(compressor, dict) or compressor.get('id') not in _COMPRESSORS or metadata.get('filters'):
    raise ValueError(f'{_METADATA} names an unknown compressor')
  dtype = metadata.get('dtype')
  size = 2 if dtype == 'bfloat16' else np.dtype(dtype).itemsize if isinstance(dtype, str) else 0
  if not 0 < size <= 8:
    raise ValueError(f'{_METADATA} names an unknown dtype')
  files = [path for path in folder.iterdir() if path.name != _METADATA]
  stored = sum(path.stat().st_size for path in files)
  chunk_bytes = math.prod(chunks) * size
  check_expansion(math.prod(shape) * size, stored)
  check_expansion(chunk_bytes, stored)
  for path in files if compressor else []:
    _check_chunk(path, chunk_bytes)


def check_codecs(folder: Path) -> None:
  """Check how the arrays of a store that Orbax has written are compressed.

  Raises:
    ValueError: a compressor is not one of those that Orbax and t5x use.
  """
  import tensorstore

  base = {'driver': 'file', 'path': f'{folder.absolute()}/'}
  is_ocdbt = (folder / _MANIFEST).exists()
  try:
    store = tensorstore.KvStore.open({'driver': 'ocdbt', 'base': base} if is_ocdbt else base).result()
    keys = [key for key in store.list().result() if key.rpartition(b'/')[2].decode(errors='replace') in _NAMES]
    contents = [store.read(key).result().value for key in keys]
  except ValueError:  # its files are cut off or damaged: Orbax cannot read them either, and reports it
    return
  for content in contents:
    _check_codecs(strict_json.loads(content, strict_json.MAX_BYTES))


def _check_codecs(content) -> None:
  """Raise ValueError if the metadata of an array, in version 2 or 3 of the format, names an unknown compressor."""
  if not isinstance(content, dict):
    raise ValueError(f'{_METADATA} is not a table')
  compressor = content.get('compressor') or {}
  if not isinstance(compressor, dict) or compressor.get('id') not in _BOUNDED or content.get('filters'):
    raise ValueError(f'{_METADATA} names an unknown compressor')
  pending = [content]
  while pending:
    node = pending.pop()
    for name in ('codecs', 'index_codecs'):
      codecs = node.get(name) or []
      if not isinstance(codecs, list) or not all(isinstance(codec, dict) for codec in codecs):
        raise ValueError('the metadata of an array names no codecs')
      for codec in codecs:
        if codec.get('name') not in _CODECS:
          raise ValueError(f'the metadata of an array names an unknown codec, {codec.get("name")!s:.80}')
        configuration = codec.get('configuration')
        pending += [configuration] if isinstance(configuration, dict) else []


def _are_sizes(values) -> bool:
  return (
    isinstance(values, list)
    and len(values) <= _MAX_DIMENSIONS
    and all(type(value) is int and 0 <= value < 1 << 48 for value in values)
  )


def _check_chunk(path: Path, expected: int) -> None:
  """Raise ValueError if a compressed chunk expands to more bytes than it should have."""
  decompressor, total = zlib.decompressobj(_ANY_HEADER), 0
  with path.open('rb') as file:
    while block := file.read(1 << 16):
      while block and not decompressor.eof:
        try:
          total += len(decompressor.decompress(block, 1 << 20))
        except zlib.error as error:
          raise ValueError(f'{path.name!r:.80} is damaged ({error})') from error
        block = decompressor.unconsumed_tail
        if total > expected:
          raise ValueError(f'{path.name!r:.80} expands to more than {expected:,} bytes')
