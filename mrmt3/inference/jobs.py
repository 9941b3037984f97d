"""Plan of `mrmt3 transcribe`: input files, folders and patterns, and the output files for each."""

import collections
import dataclasses
import glob
from pathlib import Path

from mrmt3.audio.files import FFMPEG_SUFFIXES
from mrmt3.errors import UserError

AUDIO_SUFFIXES = (
  '.wav',
  '.flac',
  '.ogg',
  '.oga',
  '.opus',
  '.mp3',
  '.aiff',
  '.aif',
  '.aifc',
  '.au',
  '.w64',
  '.rf64',
  '.caf',
)
MIDI_SUFFIXES = ('.mid', '.midi')
DEFAULT_NAME = ''  # an output without a file name: next to the MIDI file, with its stem
SYNTHESIZED = '.played.wav'
# kind of output: (suffix added to the MIDI file's stem, suffixes that a given name may have)
OUTPUTS = {
  'json': ('.json', ('.json',)),
  'csv': ('.csv', ('.csv',)),
  'plot': ('.png', ('.png', '.pdf', '.svg')),
  'audio': (SYNTHESIZED, ('.wav', '.flac', '.ogg', '.mp3')),
}


@dataclasses.dataclass(frozen=True)
class Job:
  """One audio file and its output files.

  Attributes:
    audio: the audio file.
    midi: its MIDI file.
    outputs: kind of output -> file, or '-' for stdout; only requested outputs.
  """

  audio: Path
  midi: Path
  outputs: dict[str, Path | str] = dataclasses.field(default_factory=dict)

  def files(self) -> list[Path]:
    """Return all files that the job writes."""
    return [self.midi, *(file for file in self.outputs.values() if file != '-')]


def plan_jobs(audio: list[str], output: str, outputs: dict[str, str | None]) -> list[Job]:
  """Plan the jobs for audio files, folders and patterns.

  Output files are named after their audio file; audio files with the same name (Slakh's TrackNNNNN/mix.flac) after
  their folders. Files found in a folder or by a pattern keep their relative path.

  Args:
    audio: files, folders, and patterns such as 'songs/**/*.wav'.
    output: a MIDI file for one audio file, or a folder.
    outputs: kind of output (`OUTPUTS`) -> file name, `DEFAULT_NAME`, '-' (JSON), or None if not requested.

  Raises:
    UserError: arguments exclude each other, or an input does not exist or has no audio files.
  """
  if output == '-':
    raise UserError('-o -: MIDI cannot be written to stdout; name a .mid file or a folder (--json - writes to stdout)')
  out = Path(output)
  named = _named_files(audio, out)
  requested = {kind: file for kind, file in outputs.items() if file is not None}
  for kind, file in requested.items():
    _check_name(kind, file, len(named))
  if out.suffix.lower() in MIDI_SUFFIXES and not out.is_dir():
    if len(named) > 1:
      raise UserError(f'-o {out}: one MIDI file for {len(named)} audio files; give a folder')
    targets = [out]
  else:
    targets = [out / f'{name}.mid' for _, name in named]
  jobs = []
  for (path, _), midi in zip(named, targets, strict=True):
    files = {
      kind: file
      if file == '-'
      else Path(file)
      if file != DEFAULT_NAME
      else midi.with_name(midi.stem + OUTPUTS[kind][0])
      for kind, file in requested.items()
    }
    jobs.append(Job(path, midi, files))
  _check_inputs_are_safe(jobs)
  return jobs


def _check_name(kind, file, num_inputs):
  if file == DEFAULT_NAME:
    return
  option, suffixes = f'--{kind}', OUTPUTS[kind][1]
  if num_inputs > 1:
    raise UserError(f'{option} {file}: one file for {num_inputs} audio files; leave the name out')
  # Also protects the audio file in `--json song.wav` from being overwritten.
  if Path(file).suffix.lower() not in suffixes and not (kind == 'json' and file == '-'):
    raise UserError(f'{option} {file}: the name must end in {" or ".join(suffixes)}; put audio files before {option}')


def _check_inputs_are_safe(jobs):
  inputs = {job.audio.absolute() for job in jobs}
  for job in jobs:
    for file in job.files():
      if file.absolute() in inputs:
        raise UserError(f'{file} is an input and cannot be an output; give another name')


def _named_files(audio, out):
  """Return [(audio file, name below the output folder without suffix)]."""
  listed, found = [], []
  for name in audio:
    path = Path(name)
    if path.is_dir():
      found += _named_by_path(
        path,
        (p for p in path.rglob('*') if _is_input(p, path, out)),
        f'{name} has no audio files; name a folder with audio',
      )
    elif glob.has_magic(name) and not path.exists():
      matches = map(Path, glob.iglob(name, recursive=True))
      found += _named_by_path(
        _fixed_part(path), (p for p in matches if p.is_file()), f'no file matches {name}; change the pattern'
      )
    else:
      listed.append(path)
  named = [*zip(listed, _default_names(listed), strict=True), *found]
  taken = {}
  for path, name in named:
    if name in taken:
      raise UserError(
        f'{taken[name]} and {path} would both be written to {name}.mid; transcribe them to different folders'
      )
    taken[name] = path
  return named


def _default_names(paths):
  stems = collections.Counter(path.stem for path in paths)
  return [path.stem if stems[path.stem] == 1 else path.absolute().parent.name for path in paths]


def _is_input(path, folder, out):
  """Return whether a path in a folder is an input: not hidden, and not in the output folder."""
  if (
    path.suffix.lower() not in AUDIO_SUFFIXES + FFMPEG_SUFFIXES or path.name.endswith(SYNTHESIZED) or not path.is_file()
  ):
    return False
  if any(part.startswith('.') for part in path.relative_to(folder).parts):
    return False
  out, path = out.absolute(), path.absolute()
  return out == folder.absolute() or not path.is_relative_to(out) or folder.absolute().is_relative_to(out)


def _named_by_path(root, paths, message):
  paths = sorted(paths)
  if not paths:
    raise UserError(message)
  names = [path.relative_to(root).with_suffix('').as_posix() for path in paths]
  counts = collections.Counter(names)
  # a.wav and a.flac in one folder keep their suffixes.
  return [
    (path, name if counts[name] == 1 else path.relative_to(root).as_posix())
    for path, name in zip(paths, names, strict=True)
  ]


def _fixed_part(pattern):
  parts = []
  for part in pattern.parts[:-1]:
    if glob.has_magic(part):
      break
    parts.append(part)
  return Path(*parts)
