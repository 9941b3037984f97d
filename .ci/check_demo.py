"""Check the scores of `make demo`: they may move a little between processors and versions, but not fall.

python .ci/check_demo.py demo/scores.json
"""

import json
import sys

# Lowest and highest mean of three pieces. Measured: 0.832, 0.447, 1.433, 0.627. A leakage ratio has no good direction:
# both too few and too many instruments are mistakes.
BOUNDS = {
  'onset_f1': (0.82, 1.0),
  'onset_program_f1': (0.43, 1.0),
  'leakage_ratio': (1.2, 1.7),
  'instrument_detection_f1': (0.60, 1.0),
}


def main(path: str) -> int:
  """Print each mean with its bounds; return 1 if one is outside of them, else 0."""
  with open(path) as file:
    mean = json.load(file)['mean']
  failed = 0
  for name, (low, high) in BOUNDS.items():
    good = low <= mean[name] <= high
    failed += not good
    print(f'{name}: {mean[name]:.3f}, allowed {low} to {high}{"" if good else ": FAILED"}')
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
