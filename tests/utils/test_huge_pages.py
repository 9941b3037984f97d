import os
import sys

import pytest

from mrmt3.cli.main import main
from mrmt3.utils import huge_pages

OWN = 'glibc.malloc.check=1'


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc only')
@pytest.mark.parametrize(('before', 'after'), [(None, huge_pages.VALUE), ('', ''), (OWN, OWN)])
def test_training_starts_with_huge_pages_unless_there_is_a_setting(monkeypatch, before, after):
  def execv(_, words):
    started.append((words[1:], os.environ[huge_pages.VARIABLE]))
    raise SystemExit

  started = []
  monkeypatch.setenv(huge_pages.VARIABLE, before or '')
  if before is None:
    monkeypatch.delenv(huge_pages.VARIABLE)
  monkeypatch.setattr(os, 'execv', execv)
  with pytest.raises(SystemExit):
    main(['train', '--help'])
  assert started == [(['-m', 'mrmt3.train', '--help'], after)]
