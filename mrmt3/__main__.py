"""`python -m mrmt3`: the same as the command `mrmt3`."""

import sys

from mrmt3.cli.main import main

if __name__ == '__main__':
  sys.exit(main())
