import os
import re

from mrmt3.utils.native_stderr import without_lines


def test_matching_lines_are_dropped_and_the_others_kept(capfd):
  with without_lines(re.compile(rb'noise|\s*$')):
    os.write(2, b'noise 1\n\nan error\n  noise\nnoise 2')
  os.write(2, b'after\n')
  assert capfd.readouterr().err == 'an error\n  noise\nafter\n'
