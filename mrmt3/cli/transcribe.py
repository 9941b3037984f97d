"""`mrmt3 transcribe`: audio files to MIDI files."""

import argparse
import collections
import dataclasses
import json
import sys
import time
from pathlib import Path

from mrmt3.errors import UserError

_MIDI_SUFFIXES = ('.mid', '.midi')
_PLOT_SUFFIXES = ('.png', '.pdf', '.svg')
_BESIDE = ''  # --json and --plot without a file name: beside the MIDI file


@dataclasses.dataclass(frozen=True)
class Job:
  """One audio file and what is to be written for it; None is not written, '-' is stdout."""

  audio: Path
  midi: Path
  json: Path | str | None
  plot: Path | None


def add_parser(subparsers) -> None:
  """Adds `transcribe` to the commands."""
  parser = subparsers.add_parser(
    'transcribe',
    help='audio in, multi-track MIDI out',
    description='Transcribes audio files (wav, flac, ogg, mp3, ...) to MIDI files with one track for each instrument.',
    epilog='Exit code 2 if a file could not be transcribed; the others are written all the same.',
  )
  parser.add_argument('audio', nargs='+', metavar='AUDIO', help='audio file')
  parser.add_argument(
    '-o',
    '--output',
    required=True,
    metavar='OUT',
    help='song.mid for one audio file, or a folder: song.wav gives OUT/song.mid',
  )
  parser.add_argument(
    '--checkpoint', metavar='DIR',
    help='checkpoint_<step> folder, or a folder of which the newest is taken; or a name, see `mrmt3 fetch --list`',
  )
  parser.add_argument(
    '--json', nargs='?', const=_BESIDE, metavar='FILE',
    help='also write notes, tokens and statistics; beside the MIDI file unless FILE.json is given; - for stdout',
  )  # fmt: skip
  parser.add_argument(
    '--plot', nargs='?', const=_BESIDE, metavar='FILE',
    help='also draw a piano roll; beside the MIDI file unless FILE.png (.pdf, .svg) is given',
  )  # fmt: skip
  parser.add_argument('--quiet', action='store_true', help='no progress, no summary; errors only')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Transcribes; returns 0, or 2 if some of several files failed (each with a line on stderr)."""
  jobs = plan_jobs(args.audio, args.output, args.json, args.plot)
  if args.checkpoint is None:
    raise UserError(
      'no checkpoint given; add --checkpoint DIR (`mrmt3 demo` and `mrmt3 train` make one: the folder they trained in; '
      '`mrmt3 fetch` brings the published ones)'
    )
  from mrmt3.inference import Transcriber

  transcriber = Transcriber.load(args.checkpoint)
  failed = 0
  for job in jobs:
    try:
      transcribe_file(transcriber, job, quiet=args.quiet)
    except UserError as error:
      if len(jobs) == 1:
        raise
      print(f'mrmt3: error: {error}', file=sys.stderr, flush=True)
      failed += 1
  if failed and not args.quiet:
    print(f'{len(jobs) - failed} of {len(jobs)} files transcribed', file=sys.stderr)
  return 2 if failed else 0


def plan_jobs(audio: list[str], output: str, json_file: str | None, plot_file: str | None) -> list[Job]:
  """Returns what is to be read and written. Raises UserError for arguments that do not fit each other.

  Files are named as their audio; audio files of the same name (Slakh's TrackNNNNN/mix.flac) as their folders.
  """
  paths = [Path(name) for name in audio]
  _check_suffix('--json', json_file, ('.json',), len(paths), allowed='-')
  _check_suffix('--plot', plot_file, _PLOT_SUFFIXES, len(paths))
  if output == '-':
    raise UserError('-o -: MIDI does not go to the standard output; name a .mid file or a folder (--json - writes there)')
  out = Path(output)
  if out.suffix.lower() in _MIDI_SUFFIXES and not out.is_dir():
    if len(paths) > 1:
      raise UserError(f'-o {out}: one MIDI file for {len(paths)} audio files; give a folder')
    targets = [out]
  else:
    targets = [out / f'{name}.mid' for name in _names(paths)]
  jobs = []
  for path, midi in zip(paths, targets, strict=True):
    beside = {'json': midi.with_suffix('.json'), 'plot': midi.with_suffix('.png')}
    files = {
      kind: None if file is None else beside[kind] if file == _BESIDE else file if file == '-' else Path(file)
      for kind, file in (('json', json_file), ('plot', plot_file))
    }
    jobs.append(Job(path, midi, **files))
  return jobs


def _check_suffix(option: str, file: str | None, suffixes, num_inputs: int, allowed: str | None = None) -> None:
  if file is None or file == _BESIDE:
    return
  if num_inputs > 1:
    raise UserError(f'{option} {file}: one file for {num_inputs} audio files; leave the name out')
  # Also keeps `--json song.wav`, an audio file in the wrong place, from being overwritten.
  if file != allowed and Path(file).suffix.lower() not in suffixes:
    raise UserError(f'{option} {file}: the name must end in {" or ".join(suffixes)}; put audio files before {option}')


def _names(paths: list[Path]) -> list[str]:
  stems = collections.Counter(path.stem for path in paths)
  names = [path.stem if stems[path.stem] == 1 else path.absolute().parent.name for path in paths]
  taken = {}
  for path, name in zip(paths, names, strict=True):
    if name in taken:
      raise UserError(f'{taken[name]} and {path} would both become {name}.mid; transcribe them to different folders')
    taken[name] = path
  return names


def transcribe_file(transcriber, job: Job, *, quiet: bool) -> None:
  """Does one job; the progress bar and a line of summary go to stderr. Raises UserError."""
  from tqdm import tqdm

  from mrmt3 import audio_io, midi_io

  begin = time.perf_counter()
  samples = audio_io.read_audio(job.audio, transcriber.spec.spectrogram.sample_rate)
  with tqdm(desc=job.audio.name, unit='segment', leave=False, disable=True if quiet else None) as bar:

    def progress(done, total):
      bar.total = total
      bar.update(done - bar.n)

    result = transcriber.transcribe(samples, progress)
  midi_io.write_midi(result.notes, job.midi)
  seconds = len(samples) / transcriber.spec.spectrogram.sample_rate
  if job.json is not None:
    write_json(job, result, seconds)
  if job.plot is not None:
    from mrmt3 import plots

    plots.piano_roll(job.plot, None, result.notes, title=job.audio.name, seconds=seconds)
  if not quiet:
    print(summary(job, result, seconds, time.perf_counter() - begin), file=sys.stderr, flush=True)


def summary(job: Job, result, seconds: float, took: float) -> str:
  """Returns a line about a transcription: what was written, how long it took, and whether segments overflowed."""
  from mrmt3.instruments import instruments_of

  count = len(instruments_of(result.notes))
  line = (
    f'{job.midi}: {len(result.notes)} notes, {count} instrument{"" if count == 1 else "s"}; '
    f'{seconds:.1f} s of audio in {took:.1f} s'
  )
  overflowed = result.stats.segments_without_eos
  return line + (f'; {overflowed} of {len(result.segments)} segments were cut off' if overflowed else '')


def write_json(job: Job, result, seconds: float) -> None:
  """Writes notes, segments and statistics as JSON to the job's file or stdout."""
  from mrmt3.files import atomic_path
  from mrmt3.instruments import instrument_name

  fields = result.notes.dtype.names
  notes = [dict(zip(fields, row, strict=True)) for row in result.notes.tolist()]
  for note in notes:
    note['instrument'] = instrument_name(note['program'], note['is_drum'])
  text = json.dumps(
    {
      'audio': str(job.audio),
      'seconds': seconds,
      'stats': dataclasses.asdict(result.stats),
      'notes': notes,
      'segments': [{'start': segment.start, 'tokens': segment.tokens.tolist()} for segment in result.segments],
    }
  )
  if job.json == '-':
    print(text)
    return
  with atomic_path(job.json) as path:
    path.write_text(text + '\n', encoding='utf-8')
