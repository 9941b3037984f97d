"""The registry of data sets: what they contain, where to get them, and how to find, prepare, convert and read them.

A data set is one entry of `KNOWN`, and commands offer what the entries provide. `mrmt3 dataset` lists the entries.
`mrmt3 dataset convert` converts those with an `original`. `mrmt3 dataset check`, `inspect`, `evaluate --task` and
tasks/dataset.py read those with `sources`. Code is given as 'module:function' and imported on use. See
docs/extending.md.

Sizes and hours are the publishers' figures. A data set is found by its file names; no files are read.
"""

import dataclasses
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mrmt3.errors import UserError

DATA, RECORDS = 'MRMT3_DATA', 'MRMT3_RECORDS'  # environment variables: folders separated by ':', and a folder
_PLACES = ('/data', '~/data', '~/datasets', 'data', '~/tensorflow_datasets')
_DEPTH = 2  # levels of folders to search below a place
_MOST_FOLDERS = 2000  # number of folders to search in a place


@dataclasses.dataclass(frozen=True)
class KnownDataset:
  """A data set.

  Attributes:
    name: short name, as in tasks and `mrmt3 dataset convert`.
    what: a short description.
    where: a web page, or the package to install.
    licence: licence of the data.
    size: download size.
    hours: hours of audio.
    marks: file patterns; a folder with a match contains the published data set.
    records: file patterns; a folder with a match contains MT3's or TFDS's records, which need no preparation.
    prepare: the command that prepares it, with DIR for its folder.
    read: the tasks that read it, as text.
    sources: name of a task -> 'module:function' in mrmt3/data/sources that opens a folder: folder ->
      `piece_source.PieceSource`. The function of a task 'KIND:NAME' is called with the name and the folder.
    original: 'module:function' in mrmt3/data/convert that opens its original folder for `mrmt3 dataset convert`:
      (folder, `convert.base.Options`) -> `convert.base.Original`; '' if it cannot be converted.
      `mt3_records.PUBLISHED` has the names of its files.
    trim: whether `ExampleConfig.trim` applies to it. MT3 trims overlapping notes of Slakh and Cerberus4 only.
  """

  name: str
  what: str
  where: str
  licence: str = ''
  size: str = ''
  hours: str = ''
  marks: tuple[str, ...] = ()
  records: tuple[str, ...] = ()
  prepare: str = 'none needed'
  read: str = ''
  sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
  original: str = ''
  trim: bool = True


_BUILT = 'dataset.json'  # `mrmt3 dataset build` writes Slakh's layout and this file
_CONVERT = 'mrmt3 dataset convert {} DIR records'
_RECORDS_ONLY = "none: MT3's records are read"
_TASKS = 'mt3_records (name={0}); {0}_notes_ties_vb1_*'


def _mt3_records(name: str) -> dict[str, str]:
  return {f'mt3_records:{name}': 'mt3_records:published'}


KNOWN = (
  KnownDataset(
    'slakh',
    'Slakh2100 (flac_redux): 2,100 rendered songs with stems',
    'https://zenodo.org/records/4599666',
    'CC BY 4.0',
    'about 105 GB',
    '145 hours; 969 as mixed in MT3',
    ('train/Track*/metadata.yaml', 'validation/Track*/metadata.yaml', 'test/Track*/metadata.yaml'),
    ('slakh_multi_full_*.tfrecord-*',),
    f"none needed; for MT3's tasks: {_CONVERT.format('slakh')}",
    f'slakh; slakh_records; {_TASKS.format("slakh")}',
    sources={
      'slakh': 'slakh:SlakhFolder',
      'slakh_records': 'tfds_records:TfdsRecords',
      **_mt3_records('slakh'),
    },
    original='slakh2100:open_slakh',
  ),
  KnownDataset(
    'commu',
    'ComMU: 11,144 MIDI clips of one instrument each',
    'https://github.com/POZAlabs/ComMU-code (dataset/)',
    'CC BY-NC-SA 4.0',
    '',
    '',
    ('commu_meta.csv', 'commu_meta_v2.csv'),
    (),
    'mrmt3 dataset commu DIR',
    'commu',
    sources={'commu': 'commu:CommuFolder'},
  ),
  KnownDataset(
    'nsynth',
    'NSynth: 305,979 notes of 4 s (validation: 12,678)',
    'https://magenta.tensorflow.org/datasets/nsynth',
    'CC BY 4.0',
    '',
    '340 hours (validation: 14)',
    tuple(f'nsynth-{part}/examples.json' for part in ('valid', 'train', 'test')),
    ('nsynth-*.tfrecord-*',),
    'none needed',
    'nsynth; nsynth_records',
    sources={'nsynth': 'nsynth:NsynthFolder', 'nsynth_records': 'nsynth:NsynthRecords'},
  ),
  KnownDataset(
    'maestrov3',
    'MAESTRO 3.0.0: 1,276 piano performances',
    'https://magenta.tensorflow.org/datasets/maestro',
    'CC BY-NC-SA 4.0',
    '101 GB',
    '199 hours',
    ('maestro-v3.0.0.csv',),
    ('maestro-v3.0.0_ns_wav_*.tfrecord-*',),
    _CONVERT.format('maestrov3'),
    f'{_TASKS.format("maestrov3")}, maestrov3_notes_*',
    sources=_mt3_records('maestrov3'),
    original='maestro:open_v3',
    trim=False,
  ),
  KnownDataset(
    'maestrov1',
    'MAESTRO 1.0.0: 1,184 piano performances',
    'https://magenta.tensorflow.org/datasets/maestro',
    'CC BY-NC-SA 4.0',
    '87 GB',
    '172 hours',
    ('maestro-v1.0.0.csv',),
    ('maestro-v1.0.0_ns_wav_*.tfrecord-*',),
    _CONVERT.format('maestrov1'),
    'mt3_records (name=maestrov1); maestrov1_notes_*',
    sources=_mt3_records('maestrov1'),
    original='maestro:open_v1',
    trim=False,
  ),
  KnownDataset(
    'guitarset',
    'GuitarSet: 360 pieces of acoustic guitar',
    'https://zenodo.org/records/3371780',
    'CC BY 4.0',
    'about 1.4 GB',
    '3 hours',
    ('annotation/*.jams',),
    ('train.tfrecord-*-of-00019', 'validation.tfrecord-*-of-00006'),
    _CONVERT.format('guitarset'),
    _TASKS.format('guitarset'),
    sources=_mt3_records('guitarset'),
    original='guitarset:open_guitarset',
    trim=False,
  ),
  KnownDataset(
    'musicnet',
    'MusicNet: 330 recordings of chamber music',
    'https://zenodo.org/records/5120004',
    'CC BY 4.0',
    '11 GB',
    '34 hours',
    ('train_labels/*.csv', 'test_labels/*.csv'),
    ('musicnet-train.tfrecord-*',),
    _CONVERT.format('musicnet'),
    _TASKS.format('musicnet'),
    sources=_mt3_records('musicnet'),
    original='musicnet:open_musicnet',
    trim=False,
  ),
  KnownDataset(
    'musicnet_em',
    'MusicNet-EM: better labels for 323 of these',
    'https://github.com/benadar293/benadar293.github.io',
    'see the page',
    '',
    '',
    ('musicnet_em/*.mid', 'musicNetEM/*.mid'),
    ('train.tfrecord-*-of-00103',),
    'mrmt3 dataset convert musicnet_em MUSICNET records --labels DIR',
    _TASKS.format('musicnet_em'),
    sources=_mt3_records('musicnet_em'),
    original='musicnet:open_musicnet_em',
    trim=False,
  ),
  KnownDataset(
    'urmp',
    'URMP: 44 pieces for 2 to 5 players',
    'https://labsites.rochester.edu/air/projects/URMP.html',
    'on request',
    '12.5 GB',
    '1 hour',
    (),
    ('train.tfrecord',),
    _RECORDS_ONLY,
    _TASKS.format('urmp'),
    sources=_mt3_records('urmp'),
    trim=False,
  ),
  KnownDataset(
    'cerberus4',
    'Cerberus4: bass, drums, guitar and piano of Slakh2100',
    "MT3's records (gs://mt3/data/datasets)",
    'CC BY 4.0',
    '',
    '543 hours',
    (),
    ('slakh_multi_cerberus_*.tfrecord-*',),
    _RECORDS_ONLY,
    _TASKS.format('cerberus4'),
    sources=_mt3_records('cerberus4'),
  ),
  KnownDataset(
    'mixture',
    "MT3's six data sets at temperature 10/3",
    'maestrov3, guitarset, urmp, musicnet_em, cerberus4, slakh',
    '',
    '',
    '',
    (),
    (),
    'convert each of them into one folder of records',
    'mt3_mixture; mega_notes_ties_vb1_*',
  ),
  KnownDataset(
    'built',
    'real scores, arranged and rendered on your machine',
    'pip install "mrmt3[dataset]"',
    'that of the scores and soundfonts',
    '',
    'any number of hours',
    (_BUILT,),
    (),
    'mrmt3 dataset build OUT --recipe corpus',
    'slakh',
  ),
  KnownDataset(
    'own',
    'your own: song.wav and song.mid in one folder',
    'your disk',
    '',
    '',
    '',
    (),
    (),
    'none needed',
    'own_folder',
    sources={'own_folder': 'audio_midi_folder:OwnFolder'},
  ),
)


def sources() -> dict[str, str]:
  """Return all tasks that read a data set: name -> 'module:function', see `KnownDataset.sources`."""
  return {task: function for known in KNOWN for task, function in known.sources.items()}


def trims(task: str) -> bool:
  """Return whether overlapping notes of a task's data set may be trimmed, see `KnownDataset.trim`."""
  return all(known.trim for known in KNOWN if task in known.sources)


def originals() -> dict[str, str]:
  """Return the data sets that can be converted: name -> 'module:function', see `KnownDataset.original`."""
  return {known.name: known.original for known in KNOWN if known.original}


def open_source(task: str, folder: str | os.PathLike):
  """Open a data set as in training.

  Args:
    task: a key of `sources`, e.g. 'slakh' or 'mt3_records:musicnet_em'.
    folder: the data set's folder.

  Returns:
    a `piece_source.PieceSource`.

  Raises:
    UserError: the task is unknown.
  """
  known = sources()
  if task not in known:
    raise UserError(f'there is no task {task!r}; choose one of {", ".join(known)}')
  name = task.partition(':')[2]
  return _load('sources', known[task])(*([name] if name else []), str(folder))


def open_original(name: str, folder: str | os.PathLike, options):
  """Open a data set's original folder for conversion.

  Args:
    name: a key of `originals`.
    folder: the data set's folder.
    options: `convert.base.Options`.

  Returns:
    a `convert.base.Original`.

  Raises:
    UserError: the data set cannot be converted.
  """
  known = originals()
  if name not in known:
    raise UserError(f'{name!r} cannot be converted; choose one of {", ".join(known)}')
  return _load('convert', known[name])(str(folder), options)


def _load(package, function):
  module, _, name = function.partition(':')
  return getattr(importlib.import_module(f'mrmt3.data.{package}.{module}'), name)


@dataclasses.dataclass(frozen=True)
class Found:
  """A data set and its folders on this machine.

  Attributes:
    known: the data set.
    folders: folders with the published data set, or with one that `mrmt3 dataset build` made.
    records: folders with its records.
  """

  known: KnownDataset
  folders: tuple[Path, ...]
  records: tuple[Path, ...]


def find(more: Sequence[str | os.PathLike] = ()) -> list[Found]:
  """Return all data sets, with their folders below the usual places, MRMT3_DATA, MRMT3_RECORDS and `more`."""
  places = [*more, *os.environ.get(DATA, '').split(':'), os.environ.get(RECORDS, ''), *_PLACES]
  folders = list({folder: None for place in places if place for folder in _below(Path(os.path.expanduser(place)))})
  return [Found(known, _marked(folders, known, known.marks), _marked(folders, known, known.records)) for known in KNOWN]


def _marked(folders, known, marks):
  # Data sets of `mrmt3 dataset build` have Slakh2100's layout, but are not Slakh2100.
  own = (folder for folder in folders if known.name != 'slakh' or not (folder / _BUILT).is_file())
  return tuple(folder for folder in own if _is_marked(folder, marks))


def _below(place: Path) -> list[Path]:
  """Return a place and its subfolders down to _DEPTH, without hidden and track folders; [] if it does not exist."""
  found, level = [], [place] if place.is_dir() else []
  for _ in range(_DEPTH + 1):
    found += level
    level = [child for folder in level for child in _folders_in(folder)][: max(_MOST_FOLDERS - len(found), 0)]
  return list(dict.fromkeys(folder.resolve() for folder in found))


def _folders_in(folder):
  try:
    with os.scandir(folder) as entries:
      names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(('.', 'Track')))
  except OSError:
    return []
  return [folder / name for name in names]


def _is_marked(folder, marks):
  try:
    return any(next(iter(folder.glob(mark)), None) is not None for mark in marks)
  except OSError:
    return False


def lines(found: Sequence[Found]) -> list[str]:
  """Return the list as lines of text."""
  text = []
  for one in found:
    known = one.known
    here = [*map(str, one.folders), *(f'{folder} (records)' for folder in one.records)]
    rows = {
      'where': known.where,
      'is': ', '.join(fact for fact in (known.licence, known.size, known.hours) if fact),
      'here': ', '.join(here) or ('not found' if known.marks or known.records else ''),
      'prepare': _prepare(one),
      'tasks': known.read or ', '.join(known.sources),
    }
    text += [f'{known.name}: {known.what}', *(f'  {name:<8} {value}' for name, value in rows.items() if value), '']
  return [*text, f'{sum(bool(one.folders or one.records) for one in found)} of them on this machine']


def _prepare(one):
  return one.known.prepare.replace('DIR', str(one.folders[0])) if one.folders else one.known.prepare


def as_json(found: Sequence[Found]) -> list[dict]:
  """Return the list as JSON values."""
  return [
    {
      'name': one.known.name,
      'what': one.known.what,
      'where': one.known.where,
      'licence': one.known.licence,
      'size': one.known.size,
      'hours': one.known.hours,
      'folders': list(map(str, one.folders)),
      'records': list(map(str, one.records)),
      'prepare': _prepare(one),
      'tasks': one.known.read or ', '.join(one.known.sources),
    }
    for one in found
  ]
