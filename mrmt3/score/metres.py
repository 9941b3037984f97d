"""The metres that are told apart."""

METRES = ((2, 4), (3, 4), (4, 4), (6, 8), (9, 8), (12, 8))  # time signatures


def beat_quarters(denominator: int) -> float:
  """Return the length of a beat, quarters: 1, or 1.5 in compound metres."""
  return 1.5 if denominator == 8 else 1.0
