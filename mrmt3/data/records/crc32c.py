"""CRC-32C (Castagnoli), with which TFRecord files guard each record, at some hundred megabytes a second in numpy.

The data is cut into lanes whose checksums are computed side by side, two bytes a step, and then joined in pairs: the
checksum of what comes before is carried over the zeros of what follows (a linear map on 32 bits) and added.
"""

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bits reversed
_LANES = 1 << 13
_STEPS = 64  # at least, so that few bytes are not spread over many lanes
_BITS = np.arange(32, dtype=np.uint32)


def crc32c(data: bytes) -> int:
  """Returns the CRC-32C of some bytes."""
  data = np.frombuffer(data, np.uint8)
  lanes = 1
  while lanes < _LANES and len(data) > 4 * _STEPS * lanes:
    lanes *= 2
  steps = max(-(-len(data) // (2 * lanes)), 2)
  # Leading zeros change nothing in a register that is zero; starting with ones instead is turning over 4 bytes.
  padded = np.zeros(2 * lanes * steps, np.uint8)
  first = len(padded) - len(data)
  padded[first:] = data
  if len(data) < 4:
    return _slowly(data)
  padded[first : first + 4] ^= 0xFF
  words = np.ascontiguousarray(padded.view('<u2').reshape(lanes, steps).T)
  table = _two_byte_table()
  register = np.zeros(lanes, np.uint32)
  for word in words:
    register = table[(register ^ word) & 0xFFFF] ^ (register >> 16)
  shift = _shift_by(2 * steps)
  while len(register) > 1:
    register = _apply(shift, register[::2]) ^ register[1::2]
    shift = _apply(shift, shift)
  return int(register[0]) ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
  """Returns the CRC-32C as TFRecord files store it: rotated by 15 bits, plus a constant."""
  crc = crc32c(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _slowly(data):
  register, table = 0xFFFFFFFF, _byte_table()
  for byte in data.tolist():
    register = int(table[(register ^ byte) & 0xFF]) ^ (register >> 8)
  return register ^ 0xFFFFFFFF


@functools.cache
def _byte_table():
  """Returns what each lowest byte of a register adds to it when it is shifted out, uint32 `[256]`."""
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
  return table


@functools.cache
def _two_byte_table():
  """Returns the same for the two lowest bytes, uint32 `[65536]`."""
  table, low = _byte_table(), np.arange(1 << 16, dtype=np.uint32)
  once = table[low & 0xFF] ^ (low >> 8)
  return table[once & 0xFF] ^ (once >> 8)


def _shift_by(size):
  """Returns the linear map that carries a register over `size` zero bytes: what becomes of each bit, uint32 `[32]`."""
  table, bits = _byte_table(), np.uint32(1) << _BITS
  result, power = bits, table[bits & 0xFF] ^ (bits >> 8)
  while size:
    if size & 1:
      result = _apply(power, result)
    power = _apply(power, power)
    size >>= 1
  return result


def _apply(linear_map, registers):
  """Returns the map's image of each register, uint32 `[n]`."""
  chosen = np.where((registers[:, None] >> _BITS) & 1, linear_map, np.uint32(0))
  return np.bitwise_xor.reduce(chosen, axis=1)
