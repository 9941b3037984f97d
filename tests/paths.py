"""Paths of the checkout and of the tests' fixtures."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / 'tests' / 'fixtures'
SHARED = ROOT.parent / 'shared'  # files beside the project that are not part of it; tests skip where it is missing
