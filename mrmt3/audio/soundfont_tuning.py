"""Rewrites a soundfont so that symusic plays it in tune and deterministically.

symusic 0.5.9 has two faults:

- It takes a sample's pitch from the sample header and ignores the zone generators that correct it: root key (58),
  coarse and fine tuning (51, 52). pretty_midi's piano then sounds 3 to 17 semitones too high.
- It identifies a sample by the last 24 bits of its position. Zones that play one position differently get each other's
  audio and loop, and read memory out of bounds.

Here every zone gets its own sample header, with the generators applied to it. Every header gets its own audio at the
synthesizer's sample rate, so that it is resampled once and not for each stem.
"""

import functools
import itertools
import struct
from pathlib import Path

import numpy as np

from mrmt3.audio.soundfont_samples import cut_sample, read_sample
from mrmt3.audio.soundfonts import font_chunks
from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_path
from mrmt3.utils.user_cache import cache_root_or_temporary

_VERSION = 2
_INSTRUMENT, _COARSE, _FINE, _SAMPLE, _MODE, _ROOT, _END = 41, 51, 52, 53, 54, 58, 60
_MOVES = (
  (0, 4),
  (1, 12),
  (2, 45),
  (3, 50),
)  # (fine, coarse = 32768 * fine) generators: begin, end, loop begin, loop end
_NEUTRAL = {_COARSE: 0, _FINE: 0, _ROOT: -1, **{kind: 0 for pair in _MOVES for kind in pair}}
_ORDER = (b'phdr', b'pbag', b'pmod', b'pgen', b'inst', b'ibag', b'imod', b'igen', b'shdr')
_HEADER = struct.Struct('<20s5IBb2H')
_VORBIS = 0x10  # bit of a header's type
_MONO = 1
_PLACES = 2**24


def tuned_path(path: Path, sha256: str, sample_rate: int) -> Path:
  """Return the path of a soundfont rewritten for a sample rate (Hz); it is written to the cache on first use.

  Raises UserError if the soundfont is broken or the cache cannot be written.
  """
  target = cache_root_or_temporary() / 'soundfonts' / f'{sha256[:32]}-{_VERSION}-{sample_rate}.sf2'
  if not target.is_file():
    try:
      data = tune(path.read_bytes(), sample_rate)
    except (struct.error, LookupError, ValueError, RuntimeError) as error:
      raise UserError(f'cannot load the soundfont {path}: it is truncated or broken; get the file again') from error
    with atomic_path(target) as temporary:
      temporary.write_bytes(data)
  return target


def tune(data: bytes, sample_rate: int) -> bytes:
  """Rewrite a soundfont (.sf2, .sf3) as a .sf2 file whose zones have their own, tuned sample headers and audio.

  Raises LookupError, ValueError, struct.error or RuntimeError if the soundfont is broken.
  """
  chunks = font_chunks(data)
  _check(chunks, b'phdr', 38, 24, b'pbag', b'pgen', _INSTRUMENT, len(chunks[b'inst']) // 22 - 1)
  _check(chunks, b'inst', 22, 20, b'ibag', b'igen', _SAMPLE, len(chunks[b'shdr']) // _HEADER.size - 1)
  generators, zones = _zones(chunks)
  headers, audio = _headers(chunks, zones, sample_rate)
  chunks = {**chunks, b'igen': generators, b'pgen': _without_unknown(chunks[b'pgen']), b'shdr': headers}
  body = b''.join(
    (
      _list_chunk(b'INFO', [(b'ifil', struct.pack('<HH', 2, 1))]),
      _list_chunk(b'sdta', [(b'smpl', audio)]),
      _list_chunk(b'pdta', [(name, chunks[name]) for name in _ORDER]),
    )
  )
  return b'RIFF' + struct.pack('<I', len(body) + 4) + b'sfbk' + body


def _list_chunk(name, parts):
  body = name + b''.join(part + struct.pack('<I', len(content)) + content for part, content in parts)
  return b'LIST' + struct.pack('<I', len(body)) + body


def _check(chunks, heads, size, at, bags, generators, kind, count):
  """Raise IndexError if a table points behind the end of another; symusic would read there."""
  first_bags = np.frombuffer(chunks[heads], np.uint8).reshape(-1, size)[:, at : at + 2].copy().view('<u2')
  first_generators = np.frombuffer(chunks[bags], '<u2').reshape(-1, 2)[:, 0]
  table = np.frombuffer(chunks[generators], '<u2').reshape(-1, 2)
  targets = table[table[:, 0] == kind, 1]
  for values, limit in ((first_bags, len(first_generators)), (first_generators, len(table) + 1), (targets, count)):
    if values.max(initial=0) >= max(limit, 1):
      raise IndexError(limit)


def _without_unknown(generators):
  """Drop generators that symusic does not know; it would write beyond its table."""
  table = np.frombuffer(generators, '<u2').reshape(-1, 2).copy()
  table[table[:, 0] > _END] = (_END, 0)
  return table.tobytes()


def _zones(chunks):
  """Return the instruments' generators, one sample header per zone, and the content of these headers.

  A header's content is (sample, moves, is_looped, pitch, correction).
  """
  generators = bytearray(_without_unknown(chunks[b'igen']))
  instruments, bags, samples = chunks[b'inst'], chunks[b'ibag'], chunks[b'shdr']
  headers = [_HEADER.unpack_from(samples, at) for at in range(0, len(samples) - _HEADER.size, _HEADER.size)]
  zones = {}
  first_bags = [struct.unpack_from('<H', instruments, at + 20)[0] for at in range(0, len(instruments), 22)]
  for begin, end in itertools.pairwise(first_bags):
    common = {}
    for bag in range(begin, end):
      places = range(*(4 * struct.unpack_from('<H', bags, 4 * index)[0] for index in (bag, bag + 1)), 4)
      own = {
        kind: (place, amount) for place in places for kind, amount in [struct.unpack_from('<Hh', generators, place)]
      }
      values = {**common, **{kind: amount for kind, (_, amount) in own.items()}}
      for kind, neutral in _NEUTRAL.items():
        if kind in own:
          struct.pack_into('<h', generators, own[kind][0] + 2, neutral)
      if _MODE in own:  # "loop until release" becomes "loop always": symusic leaves such a loop too early
        struct.pack_into('<h', generators, own[_MODE][0] + 2, own[_MODE][1] & 1)
      if _SAMPLE not in own:
        common = values if bag == begin else common
        continue
      place, sample = own[_SAMPLE]
      sample &= 0xFFFF
      moves = tuple(values.get(fine, 0) + 32768 * values.get(coarse, 0) for fine, coarse in _MOVES)
      zone = (sample, moves, bool(values.get(_MODE, 0) & 1), *_tuning(headers[sample], values))
      struct.pack_into('<H', generators, place + 2, zones.setdefault(zone, len(zones)))
  return bytes(generators), list(zones)


def _tuning(header, values):
  """Return a zone's root key and its correction in cents."""
  original, correction = header[6:8]
  root = values.get(_ROOT, -1)
  if not 0 <= root <= 127:
    root = original if original <= 127 else 60
  cents = 100 * (root - values.get(_COARSE, 0)) - values.get(_FINE, 0) - correction
  pitch = min(max(round(cents / 100), 0), 127)
  return pitch, min(max(100 * pitch - cents, -128), 127)


def _headers(chunks, zones, sample_rate):
  """Return the bytes of the zones' sample headers, and of the audio that they point to."""
  old, memory = chunks[b'shdr'], memoryview(chunks[b'smpl'])

  @functools.lru_cache(maxsize=64)
  def sample_of(index):
    _, begin, end, first, last, rate, *_, kind = _HEADER.unpack_from(old, index * _HEADER.size)
    if kind & _VORBIS:  # the position is in bytes, and the loop is relative to the sample's begin
      return read_sample(memory[begin:end], True), (first, last), rate
    return read_sample(memory[2 * begin : 2 * end], False), (first - begin, last - begin), rate

  @functools.lru_cache(maxsize=256)
  def cut_of(index, moves, is_looped):
    sample, loop, rate = sample_of(index)
    return cut_sample(sample, loop, moves, is_looped, (rate, sample_rate))

  headers, parts, taken, at = [], [], set(), 0
  for index, moves, is_looped, pitch, correction in zones:
    audio, first, last = cut_of(index, moves, is_looped)
    gap = next(gap for gap in itertools.count() if (at + gap) % _PLACES not in taken)
    at += gap
    taken.add(at % _PLACES)
    name = old[index * _HEADER.size :][:20]
    places = (at, at + len(audio), at + first, at + last)
    headers.append(_HEADER.pack(name, *places, sample_rate, pitch, correction, 0, _MONO))
    parts += [bytes(2 * gap), audio.tobytes()]
    at += len(audio)
  headers.append(_HEADER.pack(b'EOS', *[0] * 9))
  return b''.join(headers), b''.join(parts)
