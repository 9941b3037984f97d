"""Limits on what a checkpoint file may declare, compared with the bytes that it has on disk."""

_MAX_RATIO = 32  # weights hardly compress; constant arrays, such as norms, do
_ALWAYS_ALLOWED = 1 << 26  # bytes


def check_expansion(declared: int, stored: int) -> None:
  """Raise ValueError if a file declares far more bytes of arrays than it can hold.

  Args:
    declared: bytes of the arrays in memory.
    stored: bytes on disk.
  """
  if not 0 <= declared <= max(_ALWAYS_ALLOWED, _MAX_RATIO * stored):
    raise ValueError(f'it declares {declared:,} bytes of arrays, and has {stored:,} bytes')
