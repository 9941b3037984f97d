"""Rewrites a soundfont so that symusic plays it in tune.

symusic 0.5.9 takes a sample's pitch from the sample's header and ignores the generators that correct it for a zone: root key
(58), coarse and fine tuning (51, 52). Pretty_midi's piano then sounds 3 to 17 semitones too high. Here every zone gets a
sample header of its own, in which those generators are already counted; the audio itself stays as it is.
"""

import itertools
import struct
from pathlib import Path

from mrmt3.dataset_builder.score_cache import cache_folder
from mrmt3.errors import UserError
from mrmt3.files import atomic_path

_VERSION = 1
_COARSE, _FINE, _SAMPLE, _ROOT = 51, 52, 53, 58
_NEUTRAL = {_COARSE: 0, _FINE: 0, _ROOT: -1}
_ORDER = (b'phdr', b'pbag', b'pmod', b'pgen', b'inst', b'ibag', b'imod', b'igen', b'shdr')
_SAMPLE_RECORD = 46


def tuned_path(path: Path, sha256: str) -> Path:
  """Returns the file of a soundfont with its tuning in the sample headers, written to the cache when first needed.

  UserError where the soundfont is broken, or the cache cannot be written.
  """
  import tempfile

  folder = cache_folder()
  folder = (Path(tempfile.gettempdir()) / 'mrmt3' if folder is None else folder.parent) / 'soundfonts'
  target = folder / f'{sha256[:32]}-{_VERSION}{path.suffix}'
  if not target.is_file():
    try:
      data = tune(path.read_bytes())
    except (struct.error, IndexError, KeyError) as error:
      raise UserError(f'cannot load the soundfont {path}: it is cut short or broken; get the file again') from error
    with atomic_path(target) as temporary:
      temporary.write_bytes(data)
  return target


def tune(data: bytes) -> bytes:
  """Returns the bytes of a soundfont with each zone's tuning in its sample header."""
  from mrmt3.dataset_builder.soundfonts import find_presets

  at, end, chunks = find_presets(data)
  generators, samples = _retuned(chunks[b'inst'], chunks[b'ibag'], chunks[b'igen'], chunks[b'shdr'])
  chunks = {**chunks, b'igen': generators, b'shdr': samples}
  body = b'pdta' + b''.join(name + struct.pack('<I', len(chunks[name])) + chunks[name] for name in _ORDER)
  whole = data[:at] + b'LIST' + struct.pack('<I', len(body)) + body + data[end:]
  return whole[:4] + struct.pack('<I', len(whole) - 8) + whole[8:]


def _retuned(instruments, bags, generators, samples):
  """Returns the generators and sample headers after the tuning of all zones has moved to the headers."""
  generators = bytearray(generators)
  count = len(samples) // _SAMPLE_RECORD - 1  # the last record marks the end
  headers = [samples[index * _SAMPLE_RECORD : (index + 1) * _SAMPLE_RECORD] for index in range(count)]
  known = {}
  first_bags = [struct.unpack_from('<H', instruments, at + 20)[0] for at in range(0, len(instruments), 22)]
  for begin, end in itertools.pairwise(first_bags):
    common = {}
    for bag in range(begin, end):
      places = range(*(4 * struct.unpack_from('<H', bags, 4 * index)[0] for index in (bag, bag + 1)), 4)
      own = {kind: (place, amount) for place in places for kind, amount in [struct.unpack_from('<Hh', generators, place)]}
      values = {**common, **{kind: amount for kind, (_, amount) in own.items()}}
      for kind, neutral in _NEUTRAL.items():
        if kind in own:
          struct.pack_into('<h', generators, own[kind][0] + 2, neutral)
      if _SAMPLE not in own:
        common = values if bag == begin else common
        continue
      place, sample = own[_SAMPLE]
      header = _tuned_header(headers[sample & 0xFFFF], values)
      index = known.setdefault(header, len(headers))
      if index == len(headers):
        headers.append(header)
      struct.pack_into('<H', generators, place + 2, index)
  return bytes(generators), b''.join(headers) + samples[count * _SAMPLE_RECORD :]


def _tuned_header(header, values):
  original, correction = struct.unpack_from('<Bb', header, 40)
  root = values.get(_ROOT, -1)
  if not 0 <= root <= 127:
    root = original if original <= 127 else 60
  cents = 100 * (root - values.get(_COARSE, 0)) - values.get(_FINE, 0) - correction
  pitch = min(max(round(cents / 100), 0), 127)
  correction = min(max(100 * pitch - cents, -128), 127)
  return header[:40] + struct.pack('<Bb', pitch, correction) + header[42:]
