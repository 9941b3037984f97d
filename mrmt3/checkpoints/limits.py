"""Limits on what a checkpoint file may declare, compared with the bytes that it has on disk."""

_ALWAYS_ALLOWED = 1 << 26  # bytes


def check_expansion(declared: int, stored: int, ratio: int = 32) -> None:
  """Raise ValueError if a file declares far more bytes of arrays than it can hold.

  Args:
    declared: bytes of the arrays in memory.
    stored: bytes on disk.
    ratio: the largest of the two that is plausible. Weights hardly compress; constant arrays, such as norms, do.
  """
  if not 0 <= declared <= max(_ALWAYS_ALLOWED, ratio * stored):
    raise ValueError(f'it declares {declared:,} bytes of arrays, and has {stored:,} bytes')
