"""The browser that the system has, for tests of pages."""

import os
import shutil

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')


def find_browser() -> str:
  """Return the path of a browser; skips the test without one, or fails it if MRMT3_BROWSER_NEEDED is set."""
  path = os.environ.get('MRMT3_BROWSER') or next(filter(None, map(shutil.which, NAMES)), None)
  if path is None:
    stop = pytest.fail if os.environ.get('MRMT3_BROWSER_NEEDED') else pytest.skip
    stop(f'no browser: none of {", ".join(NAMES)} is installed (Debian: apt-get install chromium)')
  return path
