"""TensorFlow Datasets builder that writes a folder in the Slakh2100 layout as sharded records, one per track.

    slakh_records.build('/data/slakh2100_flac_redux', '/data/records')           -> .../slakh_records/full/1.0.0
    python -m mrmt3.data.tfds_slakh /data/slakh2100_flac_redux /data/records

Features of a record:

| name | type | content |
|---|---|---|
| audio | string | the file of the mix, byte for byte (flac or wav) |
| sequence | string | a serialized NoteSequence (1) |
| id | string | the track's name, e.g. Track00001 |

(1) The usable notes of all labelled stems, with sustain applied and Slakh classes as programs.

The features have the names of MT3's MAESTRO records, so MT3's preprocessors can read them. `TfdsRecords` reads them
with random access. The folder also has skipped.jsonl with the problems of tracks, and built_from.json with the
fingerprints of the source.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from mrmt3.data.piece_validation import KEPT, LEFT_OUT, Problem, check_piece
from mrmt3.data.records.messages import serialize_notes
from mrmt3.data.slakh_layout import SPLITS, find_track
from mrmt3.data.sources.slakh import SlakhFolder
from mrmt3.errors import UserError

SKIPPED, BUILT_FROM = 'skipped.jsonl', 'built_from.json'


@dataclasses.dataclass
class SlakhRecordsConfig(tfds.core.BuilderConfig):
  """Configuration of a set of records.

  Attributes:
    slakh_dir: the folder with train, validation and test; None is TFDS's manual_dir.
    strict: whether a track that would be left out or lose notes is an error.
    workers: number of processes that read tracks; None: one per processor.
  """

  slakh_dir: str | None = None
  strict: bool = False
  workers: int | None = None


class SlakhRecords(tfds.core.GeneratorBasedBuilder):
  """Tracks of a data set in the Slakh2100 layout: mixes and the notes of their stems."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [SlakhRecordsConfig(name='manual')]  # other configurations need other names in TFDS
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'The folder with train, validation and test of Slakh2100 (or another set in its layout).'
  )

  def _info(self) -> tfds.core.DatasetInfo:
    import tensorflow as tf

    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'audio': tfds.features.Scalar(tf.string, doc='The file of the mix, flac or wav.'),
          'sequence': tfds.features.Scalar(tf.string, doc='NoteSequence with the notes of all labelled stems.'),
          'id': tfds.features.Scalar(tf.string, doc="The track's name."),
        }
      ),
      description='Mixes and notes of a data set in the Slakh2100 layout.',
      homepage='http://www.slakh.com',
    )

  def _split_generators(self, dl_manager):
    source = SlakhFolder(str(self.builder_config.slakh_dir or _manual_folder(dl_manager)))
    splits = _splits(source)
    (Path(self.data_dir) / BUILT_FROM).write_text(json.dumps(_origin(source), indent=2) + '\n', 'utf-8')
    return {split: self._generate_examples(source, split) for split in splits}

  def _generate_examples(self, source: SlakhFolder, split: str) -> Iterator[tuple[str, dict]]:
    """Yield (name, features) of the usable tracks of a split; UserError if there are none."""
    from mrmt3.utils.parallel import parallel_if_long

    names = source.list_pieces(split)
    workers = self.builder_config.workers or os.cpu_count() or 1
    results = parallel_if_long(functools.partial(_read, source, split), names, workers)
    written, last = 0, None
    # This is TFDS's temporary folder, which it renames once all records are written.
    with open(Path(self.data_dir) / SKIPPED, 'a', encoding='utf-8') as skipped:
      for name, (features, problems) in zip(names, results, strict=True):
        for problem in problems:
          if self.builder_config.strict and problem.action != KEPT:
            raise UserError(f'{split}/{name}: {problem.text} (strict)')
          line = {'problem': problem.name, 'count': problem.count, 'text': problem.text, 'action': problem.action}
          skipped.write(json.dumps({'piece': f'{split}/{name}', **line}) + '\n')
          last = problem
        if features is not None:
          written += 1
          yield name, features
    if not written:
      raise UserError(f'no usable tracks in the split {split!r} of {source.data_dir}: {last.text}')


def _splits(source: SlakhFolder) -> list[str]:
  return [split for split in source.splits() if split in SPLITS]


def _origin(source: SlakhFolder) -> dict[str, str]:
  """Return the fingerprint of each split."""
  return {split: source.fingerprint(split) for split in _splits(source)}


def _check_origin(folder: Path, source: SlakhFolder) -> None:
  """Raise UserError if `folder` has records that were built from other tracks."""
  path = folder / BUILT_FROM
  if path.is_file() and json.loads(path.read_text('utf-8')) != _origin(source):
    raise UserError(
      f'the tracks in {source.data_dir} have changed since the records in {folder} were built; remove the records, or '
      'build with another --name'
    )


def _manual_folder(dl_manager) -> Path:
  try:
    return Path(dl_manager.manual_dir)
  except AssertionError as error:
    raise UserError(
      'no folder of tracks: set SlakhRecordsConfig(slakh_dir=...) or DownloadConfig(manual_dir=...)'
    ) from error


def _read(source: SlakhFolder, split: str, name: str) -> tuple[dict | None, list[Problem]]:
  """Return (a track's features, or None if it is left out; its problems), in a worker process."""
  track = find_track(source.data_dir, split, name)
  try:
    checked = check_piece(source.read_piece(split, name, _RATE), _RATE)
    if checked.content is None:
      return None, checked.problems
    audio = track.audio_path.read_bytes()
  except UserError as error:
    return None, [Problem('unreadable', 1, str(error), LEFT_OUT)]
  except OSError as error:
    return None, [Problem('unreadable', 1, f'cannot read {track.path}: {error.strerror}', LEFT_OUT)]
  seconds = len(checked.content.samples) / _RATE
  sequence = serialize_notes(checked.content.notes, name, seconds)
  return {'audio': audio, 'sequence': sequence, 'id': name}, checked.problems


_RATE = 16000  # Hz, for the validation of tracks


def build(
  slakh_dir: str | os.PathLike,
  data_dir: str | os.PathLike,
  *,
  name: str = 'full',
  strict: bool = False,
  workers: int | None = None,
  file_format: str = 'tfrecord',
  num_shards: int | None = None,
) -> Path:
  """Build the records if they do not exist, and return their folder, `<data_dir>/slakh_records/<name>/1.0.0`.

  Args:
    slakh_dir: the folder with train, validation and test (any of them).
    data_dir: TFDS's folder of data sets.
    name: name of the configuration, unique in `data_dir`.
    strict: whether a track that would be left out or lose notes is an error.
    workers: number of processes that read tracks; None: one per processor.
    file_format: 'tfrecord' or 'array_record'.
    num_shards: files per split, at most its number of tracks; None lets TFDS choose by size.

  Raises:
    UserError: the folder does not exist, a split has no usable tracks, the disk is full, a track has a problem
      (strict), or records of this name were built from other tracks. No partial records are left behind.
  """
  source = SlakhFolder(str(slakh_dir))
  if not _splits(source):
    raise UserError(f'no tracks in {slakh_dir}: expected folders named {", ".join(SPLITS)} (Slakh2100 layout)')
  config = SlakhRecordsConfig(name=name, slakh_dir=str(slakh_dir), strict=strict, workers=workers)
  try:
    builder = SlakhRecords(data_dir=str(data_dir), config=config, file_format=file_format)
    _check_origin(Path(builder.data_dir), source)
    download = tfds.download.DownloadConfig(num_shards=num_shards, try_download_gcs=False)
    builder.download_and_prepare(download_config=download)
  except OSError as error:
    raise UserError(f'cannot write {data_dir}: {error.strerror or error}') from error
  except AssertionError as error:  # TFDS's own checks
    raise UserError(f'cannot build {data_dir}: {" ".join(str(error).split())}') from error
  return Path(builder.data_dir)
