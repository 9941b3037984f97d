"""The published evaluation on Slakh2100: transcribe a split, score it in two ways, and compare with published figures.

    <out>/<checkpoint>/TrackNNNNN.mid     transcriptions; existing ones are not made again
    <out>/<checkpoint>/transcribed.json   which weights made them
    <out>/<checkpoint>/scores.json        every score of every piece

Two ways of counting:

published   references are all MIDI files of a track (also of stems that are not in the mix) with their raw programs;
            instruments are distinct program numbers, so that drums and acoustic piano are one: as in MR-MT3's
            scripts. These leave failed pieces out of their means; here they count as empty.
default     references are the stems in the mix, with their Slakh classes; drums are an instrument of their own.
"""

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints import published
from mrmt3.checkpoints.spec_json import fingerprint_text
from mrmt3.data import slakh_layout
from mrmt3.errors import UserError
from mrmt3.evaluation import score_pieces
from mrmt3.evaluation.references import Estimate, Reference
from mrmt3.evaluation.summary import Summary
from mrmt3.utils import files
from mrmt3.utils.fingerprints import weights_fingerprint
from mrmt3.utils.journal import FolderJournal

RUN_NAME, SCORES_NAME = 'transcribed.json', 'scores.json'
WAYS = ('published', 'default')

_SCORES = {
  'onset F1': 'onset_f1',
  'onset+program F1': 'onset_program_f1',
  'onset+offset+program F1': 'onset_offset_program_f1',
  'drum onset F1': 'drum_onset_f1',
  'leakage ratio': 'leakage_ratio',
  'instrument F1': 'instrument_detection_f1',
}
COLUMNS = tuple(_SCORES)


@dataclasses.dataclass(frozen=True)
class Figures:
  """Scores published for the whole test split of Slakh2100, granularity midi_class.

  Attributes:
    title: the system.
    source: where the scores were published.
    scores: by column; unpublished ones are missing.
  """

  title: str
  source: str
  scores: Mapping[str, float]


PUBLISHED = (
  Figures(
    'MT3, official checkpoint',
    "notes in MR-MT3's repository",
    {'onset F1': 0.7595, 'onset+program F1': 0.7296, 'onset+offset+program F1': 0.5797, 'drum onset F1': 0.7687},
  ),
  Figures('MT3 from scratch', 'quoted by others, not checked', {'onset+program F1': 0.616, 'leakage ratio': 1.65}),
  Figures('MR-MT3', 'quoted by others, not checked', {'onset+program F1': 0.664, 'leakage ratio': 1.05}),
)


@dataclasses.dataclass(frozen=True)
class Result:
  """A checkpoint's mean scores in both ways, and the pieces that failed.

  Attributes:
    name: the checkpoint's.
    pieces: number of pieces that were scored.
    means: way -> all scores of `metric_registry.evaluate_piece`.
    failed: names of pieces that count as empty, and why.
    unreadable: names of pieces that are left out, because their reference cannot be read, and why.
  """

  name: str
  pieces: int
  means: dict[str, dict[str, float]]
  failed: dict[str, str]
  unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


def run(
  checkpoint: str,
  data: str | os.PathLike,
  out: str | os.PathLike,
  split: str | None = None,
  tracks: int | None = None,
  quiet: bool = False,
) -> Result:
  """Transcribe and score a split of a data set in Slakh2100's layout with one checkpoint.

  Args:
    checkpoint: a folder, or a published checkpoint's name, which is fetched if it is not here.
    data: the data set's folder.
    out: the folder of all results.
    split: which split; None: test, or all tracks of a data set without splits.
    tracks: maximum number of tracks, the first ones; None: all.
    quiet: no progress on stderr.

  Raises:
    UserError: if there is no such checkpoint or split, all references are broken, or `out` holds transcriptions by
      other weights.
  """
  chosen = choose_tracks(data, split)[:tracks]
  if not Path(checkpoint).exists() and published.folder_of(checkpoint) is not None:
    from mrmt3.checkpoints import fetch

    fetch.fetch(published.named(checkpoint), quiet=quiet)
  params, spec, step = orbax_checkpoints.restore_params(checkpoint)
  name = Path(checkpoint).resolve().name if Path(checkpoint).exists() else checkpoint
  folder = files.make_folder(Path(out) / name)
  transcriptions(folder).claim(
    RUN_NAME,
    {'checkpoint': str(checkpoint), 'step': step, 'sha256': weights_fingerprint(params, fingerprint_text(spec))},
    broken='remove the folder, or name another with -o',
    mismatch=f'{folder} holds transcriptions by other weights of that name; remove it, or name another with -o',
    only=('sha256',),
  )
  failed = transcribe(params, spec, chosen, folder, quiet)
  result, pieces = score(name, chosen, folder, failed)
  report = {**dataclasses.asdict(result), 'data': str(data), 'split': chosen[0].split, 'scores': pieces}
  if not result.unreadable:
    del report['unreadable']
  with files.atomic_path(folder / SCORES_NAME) as temporary:
    temporary.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
  return result


def choose_tracks(data: str | os.PathLike, split: str | None) -> list[slakh_layout.Track]:
  """Return the tracks of a split; for None those of test, or all tracks of a data set without splits."""
  has_splits = any((Path(data) / name).is_dir() for name in slakh_layout.SPLITS)
  return slakh_layout.find_tracks(data, split or ('test' if has_splits else None))


def transcriptions(folder: Path) -> FolderJournal:
  """Return the transcriptions of tracks in a folder, a MIDI file per track."""
  return FolderJournal(folder, lambda track: f'{track.name}.mid')


def transcribe(params, spec, tracks: list[slakh_layout.Track], folder: Path, quiet: bool = False) -> dict[str, str]:
  """Write `folder/<track>.mid` of each track that has none; return the names of those that failed, and why."""
  from mrmt3.audio import files as audio_files
  from mrmt3.inference.transcriber import Transcriber
  from mrmt3.notes import midi

  done = transcriptions(folder)
  missing = done.todo(tracks)
  failed = {}
  if not missing:
    return failed
  transcriber = Transcriber(params, spec)
  sample_rate = spec.spectrogram.sample_rate

  def one_by_one(pieces):
    return ((name, transcriber.transcribe(samples, sample_rate).notes) for name, samples, _ in pieces)

  def record(name, notes, problem):
    if notes is None:
      failed[name] = problem
    else:
      midi.write_midi(notes, folder / f'{name}.mid')

  pieces = (
    (track.name, functools.partial(audio_files.read_audio, track.audio_path, sample_rate), None) for track in missing
  )
  bar = {'unit': 'track', 'disable': quiet, 'mininterval': 0.2 if sys.stderr.isatty() else 30}
  score_pieces.transcribe_pieces(one_by_one, pieces, record, total=len(missing), **bar)
  return failed


def score(name: str, tracks: list[slakh_layout.Track], folder: Path, failed: dict[str, str]) -> tuple[Result, dict]:
  """Return (result, `{way: {track: scores}}`) of the transcriptions in a folder; those of `failed` count as empty."""
  from mrmt3.notes.midi import read_midi

  paths = {track.name: transcriptions(folder).path(track) for track in tracks}
  estimates = {
    piece: None if piece in failed else Estimate(functools.partial(read_midi, path), path)
    for piece, path in paths.items()
  }
  summaries = {}
  for way, read in {'published': slakh_layout.read_published_notes, 'default': slakh_layout.read_notes}.items():
    references = {track.name: Reference(functools.partial(read, track)) for track in tracks}
    summaries[way] = score_pieces.score(f'{name} ({way})', references, estimates, None)
  # Both ways score the same pieces, to be comparable.
  unreadable = {piece: problem for one in summaries.values() for piece, problem in one.unreadable.items()}
  for way, found in summaries.items():
    kept = [piece for piece in found.pieces if piece.name not in unreadable]
    if not kept:
      raise UserError(f'no reference can be read in both ways; the first: {next(iter(unreadable.values()))}')
    summaries[way] = Summary(kept, unreadable)
  for line in dict.fromkeys(line for summary in summaries.values() for line in summary.odd_files):
    print(f'mrmt3: warning: {line}', file=sys.stderr)
  means = {way: summary.mean for way, summary in summaries.items()}
  scores = {way: {piece.name: piece.scores for piece in summary.pieces} for way, summary in summaries.items()}
  failed = {piece: why for piece, why in {**summaries['default'].failed, **failed}.items() if piece not in unreadable}
  return Result(name, len(summaries['default'].pieces), means, failed, unreadable), scores


def score_name(column: str, way: str) -> str:
  """Return the name in `metric_registry.evaluate_piece` of a table's column."""
  name = _SCORES[column]
  return f'published_{name}' if way == 'published' and column in ('leakage ratio', 'instrument F1') else name


def table(results: list[Result]) -> str:
  """Return aligned lines: each checkpoint counted in both ways, then the published figures, marked as such."""
  rows = [
    (f'{result.name} ({way})', [f'{result.means[way][score_name(column, way)]:.3f}' for column in COLUMNS])
    for result in results
    for way in WAYS
  ]
  figures = [
    (f'PUBLISHED: {entry.title} [{number}]', [f'{entry.scores[c]:g}' if c in entry.scores else '-' for c in COLUMNS])
    for number, entry in enumerate(PUBLISHED, 1)
  ]
  width = max(len(name) for name, _ in [*rows, *figures])
  header = '  '.join([' ' * width, *COLUMNS])
  rule = '-' * len(header)

  def lines(part):
    return [
      '  '.join([name.ljust(width), *(c.rjust(len(t)) for c, t in zip(cells, COLUMNS, strict=True))])
      for name, cells in part
    ]

  notes = [f'[{number}] {entry.source}' for number, entry in enumerate(PUBLISHED, 1)]
  return '\n'.join(
    [
      header,
      rule,
      *lines(rows),
      rule,
      *lines(figures),
      '',
      'Means over pieces; programs by MIDI class. PUBLISHED rows are figures of others for the 151 pieces of '
      "Slakh2100's test",
      'split, not measured here: ' + '; '.join(notes) + '.',
    ]
  )
