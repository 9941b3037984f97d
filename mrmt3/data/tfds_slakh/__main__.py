"""`python -m mrmt3.data.tfds_slakh SLAKH_DIR DATA_DIR`: builds the records of a folder in the Slakh2100 layout."""

import argparse
import sys

from mrmt3.errors import UserError
from mrmt3.utils import interrupts
from mrmt3.utils.tensorflow_setup import start_tensorflow


def main(arguments: list[str] | None = None) -> int:
  """Build the records, print their folder, and return the exit code."""
  parser = argparse.ArgumentParser('python -m mrmt3.data.tfds_slakh', description=__doc__)
  parser.add_argument('slakh_dir', help='folder with train, validation and test')
  parser.add_argument('data_dir', help='folder of data sets of TensorFlow Datasets')
  parser.add_argument('--name', default='full', help='name of this set of records (default: full)')
  parser.add_argument('--strict', action='store_true', help='fail at the first bad track')
  parser.add_argument('--workers', type=int, help='number of processes that read tracks (default: one per processor)')
  parser.add_argument(
    '--file-format', choices=('tfrecord', 'array_record'), default='tfrecord', help='(default: tfrecord)'
  )
  options = parser.parse_args(arguments)
  try:
    with interrupts.working():
      start_tensorflow()
      from mrmt3.data.tfds_slakh import slakh_records

      print(slakh_records.build(**vars(options)))
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    interrupts.end()
  return 0


if __name__ == '__main__':
  interrupts.install('interrupted: nothing was written')
  sys.exit(main())
