"""Plan of `mrmt3 transcribe`: input files, folders and patterns, and the output files for each."""

import collections
import dataclasses
import fnmatch
import glob
import os
import re
import unicodedata
import warnings
from pathlib import Path

from mrmt3.audio import formats
from mrmt3.errors import DataWarning, UserError
from mrmt3.utils import file_names
from mrmt3.utils.fingerprints import files_below

WRITTEN_SUFFIXES = ('.mid', '.midi')
DEFAULT_NAME = ''  # an output without a file name: next to the MIDI file, with its stem
SYNTHESIZED = '.played.wav'
PERFORMED = '.played.mid'
_FILE_SUFFIX = re.compile(r'\.[A-Za-z][A-Za-z0-9]{1,4}$')  # not of v1.2
SHEET_SUFFIXES = ('.musicxml', '.xml')
# kind of output: (suffix added to the MIDI file's stem, suffixes that a given name may have)
OUTPUTS = {
  'json': ('.json', ('.json',)),
  'csv': ('.csv', ('.csv',)),
  'plot': ('.png', ('.png', '.pdf', '.svg')),
  'audio': (SYNTHESIZED, ('.wav', '.flac', '.ogg', '.mp3')),
  'html': ('.html', ('.html', '.htm')),
  'musicxml': ('.musicxml', SHEET_SUFFIXES),
  'pdf': ('.pdf', ('.pdf',)),
  'svg': ('.svg', ('.svg',)),
  'performance': (PERFORMED, WRITTEN_SUFFIXES),
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

  def check_names(self) -> None:
    """Raise UserError if the name of an output is too long for a file."""
    for file in self.files():
      if file_names.is_too_long(file):
        raise UserError(
          f'{self.audio}: the name of the output {file.name} is longer than {file_names.MAX_NAME_BYTES} bytes; '
          'rename the audio file, or give a shorter name with -o'
        )


def plan_jobs(audio: list[str], output: str | None, outputs: dict[str, str | None]) -> list[Job]:
  """Plan the jobs for audio files, folders and patterns.

  Output files are named after their audio file; audio files with the same name (Slakh's TrackNNNNN/mix.flac) after
  their folders. Files found in a folder or by a pattern keep their relative path.

  Args:
    audio: files, folders, and patterns such as 'songs/**/*.wav'.
    output: a MIDI file for one audio file, a MusicXML file (the MIDI file is written next to it), or a folder; None:
      next to each audio file.
    outputs: kind of output (`OUTPUTS`) -> file name, `DEFAULT_NAME`, '-' (JSON), or None if not requested.

  Raises:
    UserError: arguments exclude each other, or an input does not exist or has no audio files.
  """
  if output == '-':
    raise UserError('-o -: MIDI cannot be written to stdout; name a .mid file or a folder (--json - writes to stdout)')
  out = None if output is None else Path(output)
  if _is_file(out, SHEET_SUFFIXES):
    outputs = {**outputs, 'musicxml': outputs.get('musicxml') or str(out)}
    out = out.with_suffix('.mid')
  elif out is not None and not _is_file(out, WRITTEN_SUFFIXES):
    _check_folder(output)
  named = _named_files(audio, out)
  requested = {kind: file for kind, file in outputs.items() if file is not None}
  for kind, file in requested.items():
    _check_name(kind, file, len(named))
  if out is None:
    targets = _beside([path for path, _ in named])
  elif _is_file(out, WRITTEN_SUFFIXES):
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


def _is_file(out, suffixes):
  """Return whether an output is a file with one of some suffixes."""
  return out is not None and out.suffix.lower() in suffixes and not out.is_dir()


def _check_folder(output):
  """Raise UserError if the name of an output folder looks like that of a file of another kind."""
  if os.path.isdir(output) or output.endswith(('/', os.sep)) or not _FILE_SUFFIX.search(output):
    return
  kind = next((kind for kind, (_, known) in reversed(OUTPUTS.items()) if output.lower().endswith(known)), None)
  hint = f'; for this one give --{kind} {output}' if kind else ''
  raise UserError(
    f'-o {output}: a file is written as {", ".join([*WRITTEN_SUFFIXES, *SHEET_SUFFIXES])}{hint}; for a folder of this '
    'name put a / at the end'
  )


def _beside(paths):
  """Return the MIDI file next to each audio file; a.wav and a.flac in one folder keep their suffixes."""
  counts = collections.Counter((path.parent, path.stem) for path in paths)
  return [path.with_name(f'{path.stem if counts[path.parent, path.stem] == 1 else path.name}.mid') for path in paths]


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
    path = file_names.existing(Path(name))
    if os.path.isdir(path):
      found += _named_by_path(path, _inputs_in(path, out), f'{name} has no audio files; name a folder with audio')
    elif glob.has_magic(name) and not os.path.lexists(path):
      found += _named_by_path(_fixed_part(path), _matches(path), f'no file matches {name}; change the pattern')
    else:
      listed.append(path)
  named = [*zip(listed, _default_names(listed), strict=True), *found]
  if out is None:
    return list({path: (path, name) for path, name in named}.values())
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


def _inputs_in(folder, out):
  """Return the audio files in a folder that are not in the output folder; hidden ones are ignored."""
  inputs, unknown = [], []
  for path in files_below(folder):
    if _is_output(path, folder, out) or not (path.is_file() or _is_dangling(path)):
      continue
    if formats.has_audio_suffix(path):
      inputs.append(path)
    elif formats.begins_like_audio(path):
      unknown.append(path)
  if unknown:
    others = f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''
    warnings.warn(
      f'{unknown[0]}{others} in {folder} left out: audio, but the suffix is not; rename or name each file',
      DataWarning,
      stacklevel=2,
    )
  return inputs


def _is_output(path, folder, out):
  """Return whether a path in a folder was written by an earlier run."""
  if path.name.endswith(SYNTHESIZED):
    return True
  if out is None:
    return False
  out, path, folder = out.absolute(), path.absolute(), folder.absolute()
  return path.is_relative_to(out) and not folder.is_relative_to(out)


def _is_dangling(path):
  """Return whether a path is a link to nothing: an input with an error, instead of none at all."""
  return path.is_symlink() and not path.exists()


def _matches(pattern):
  """Return the files that match a pattern, written in any normal form of Unicode."""
  if '**' not in pattern.parts:
    texts = {unicodedata.normalize(form, str(pattern)) for form in ('NFC', 'NFD')} | {str(pattern)}
    return {path for text in texts for path in map(Path, glob.iglob(text)) if path.is_file()}
  # glob's ** follows a link to a parent folder again and again.
  root = _fixed_part(pattern)
  wanted = [file_names.normal_form(part) for part in pattern.relative_to(root).parts]
  found = ((path, path.relative_to(root).parts) for path in files_below(root))
  return {path for path, parts in found if path.is_file() and _fits([*map(file_names.normal_form, parts)], wanted)}


def _fits(parts, wanted):
  """Return whether the parts of a path match those of a pattern."""
  if not wanted:
    return not parts
  if wanted[0] == '**':
    return any(_fits(parts[start:], wanted[1:]) for start in range(len(parts) + 1))
  return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


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
