"""Statistics of a task's examples, and readable lists of their events. Needs only numpy.

`mrmt3 inspect` uses it together with `task_reader`, which finds a task and reads examples, `plots.log_mel`, which plots
them, and `audio.sonify`, which synthesizes them.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from mrmt3 import note_sequences, run_length_encoding, vocabularies
from mrmt3.data.example_config import NO_PRIOR
from mrmt3.event_codec import SHIFT, Codec
from mrmt3.notes import instruments
from mrmt3.notes.note_array import sort_notes
from mrmt3.special_tokens import DECODED_EOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS

BINS = 8  # bins of a histogram up to the limit; one more counts longer segments
EOS, OTHER = 'EOS', 'other'  # token types in addition to the codec's; other: ids without an event, such as padding
ON, OFF, TIE, UNKNOWN = 'on', 'off', 'tie', '?'

_NOTE_NAMES = ('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')
_BAR = 16  # characters


@dataclasses.dataclass(frozen=True)
class Segment:
  """The tokens of a segment and of its prior segments, and their position.

  Attributes:
    targets: int32 model ids `[n]`, without padding.
    priors: the same for each prior segment, earliest first; None if the task has no prior segments.
    piece: name of the piece, '' if the task does not provide it.
    start_frame: first frame; None if the task does not provide it.
    prior_starts: first frame of each prior segment, NO_PRIOR for a missing one; None if the task does not provide them.
    hop: the drawn hop in segments; None if the task draws none.
  """

  targets: np.ndarray
  priors: tuple[np.ndarray, ...] | None = None
  piece: str = ''
  start_frame: int | None = None
  prior_starts: tuple[int, ...] | None = None
  hop: int | None = None


def segments_of(example: Mapping, codec: Codec, segment_frames: int, prior_segments: int = 1) -> list[Segment]:
  """Return the segments of a task's example: one, or all segments of a whole piece.

  Args:
    example: features and fields of a record. targets are `[length]`, or `[segments, length]` for a whole piece, where
      the prior segment of each row is the row before.
    codec: the codec of the tokens.
    segment_frames: length of a segment in frames.
    prior_segments: number of prior segments in prior_targets.
  """
  piece = example.get('piece', b'')
  piece = piece.decode() if isinstance(piece, bytes) else str(piece)
  targets = np.asarray(example['targets'])
  if targets.ndim == 2:
    empty = np.array([codec.event_type_range('tie')[0] + SPECIAL_TOKENS, EOS_ID], np.int32)
    rows = [empty, *map(without_padding, targets)]
    starts = [NO_PRIOR, *(segment_frames * k for k in range(len(targets)))]
    return [Segment(rows[k], (rows[k - 1],), piece, starts[k], (starts[k - 1],)) for k in range(1, len(rows))]
  priors = None
  if 'prior_targets' in example:
    # If several prior segments share the feature, each is padded to its share.
    shares = np.split(np.asarray(example['prior_targets']), prior_segments)
    priors = tuple(without_padding(share) for share in shares)
  prior_starts = example.get('prior_starts')
  return [
    Segment(
      targets=without_padding(targets),
      priors=priors,
      piece=piece,
      start_frame=None if 'start_frame' not in example else int(example['start_frame']),
      prior_starts=None if prior_starts is None else tuple(np.asarray(prior_starts).tolist()),
      hop=None if 'hop' not in example else int(example['hop']),
    )
  ]


def without_padding(tokens: np.ndarray) -> np.ndarray:
  """Return tokens `[n]` without trailing padding, int32."""
  tokens = np.asarray(tokens, np.int32)
  kept = np.flatnonzero(tokens != PAD_ID)
  return tokens[: kept[-1] + 1 if len(kept) else 0]


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Statistics of the number of tokens per segment.

  Attributes:
    count: number of segments.
    mean: mean number of tokens.
    median: median number of tokens.
    most_95: 95th percentile.
    longest: maximum number of tokens.
    limit: maximum number of tokens that the model accepts.
    too_long: number of segments that exceed the limit.
    edges: int `[BINS]`, upper edge (inclusive) of each bin of the histogram except the last, which is unbounded.
    histogram: number of segments per bin, `[BINS + 1]`.
  """

  count: int
  mean: float
  median: float
  most_95: float
  longest: int
  limit: int
  too_long: int
  edges: list[int]
  histogram: list[int]


def measure_lengths(lengths: Sequence[int], limit: int) -> Lengths:
  """Return the statistics of lengths `[n]`, n at least 1; `limit` is the maximum number of tokens."""
  lengths = np.asarray(lengths, np.int64)
  edges = np.ceil(limit * np.arange(1, BINS + 1) / BINS).astype(np.int64)
  places = np.searchsorted(edges, lengths, side='left')
  return Lengths(
    count=len(lengths),
    mean=float(lengths.mean()),
    median=float(np.median(lengths)),
    most_95=float(np.percentile(lengths, 95, method='inverted_cdf')),
    longest=int(lengths.max()),
    limit=int(limit),
    too_long=int((lengths > limit).sum()),
    edges=edges.tolist(),
    histogram=np.bincount(places, minlength=BINS + 1).tolist(),
  )


def token_shares(tokens: np.ndarray, codec: Codec) -> dict[str, float]:
  """Return the share of each token type in model ids `[n]`: the codec's types, EOS and other. Shares sum to 1."""
  tokens = np.asarray(tokens, np.int64)
  types = [r.type for r in codec.event_ranges]
  firsts = [codec.event_type_range(name)[0] + SPECIAL_TOKENS for name in types]
  place = np.searchsorted(firsts, tokens, side='right') - 1
  is_event = (tokens >= firsts[0]) & (tokens < codec.num_classes + SPECIAL_TOKENS)
  place = np.where(is_event, place, np.where(tokens == EOS_ID, len(types), len(types) + 1))
  counts = np.bincount(place, minlength=len(types) + 2)
  return {name: float(count) / max(len(tokens), 1) for name, count in zip([*types, EOS, OTHER], counts, strict=True)}


@dataclasses.dataclass(frozen=True)
class Hops:
  """Statistics of hops: the distances of prior segments in segments. Shares refer to all inspected segments.

  Attributes:
    drawn: drawn hop -> share; empty if the task draws none.
    realised: distance of the (latest) prior segment -> share.
    none: share without a prior segment, because of memory dropout or because it would begin before the piece.
    none_of_drawn: drawn hop -> share of these segments without a prior segment.
    silent: share of segments whose prior segments (missing ones included) have no events.
  """

  drawn: dict[float, float]
  realised: dict[float, float]
  none: float
  none_of_drawn: dict[float, float]
  silent: float


def measure_hops(segments: Sequence[Segment], segment_frames: int) -> Hops | None:
  """Return the statistics of the segments' hops; None if the task does not provide prior segments and positions."""
  if not segments or any(s.priors is None or s.prior_starts is None or s.start_frame is None for s in segments):
    return None
  start = np.array([s.start_frame for s in segments])
  latest = np.array([s.prior_starts[-1] for s in segments])
  missing = np.array([all(p == NO_PRIOR for p in s.prior_starts) for s in segments])
  silent = [all(len(prior) <= 2 for prior in s.priors) for s in segments]  # tie and EOS
  drawn, none_of_drawn = {}, {}
  if all(s.hop is not None for s in segments):
    hop = np.array([s.hop for s in segments])
    drawn = _shares(hop, len(hop))
    none_of_drawn = {float(h): float(missing[hop == h].mean()) for h in np.unique(hop)}
  exists = latest != NO_PRIOR
  realised = _shares((start - latest)[exists] / segment_frames, len(start))
  return Hops(drawn, realised, float(missing.mean()), none_of_drawn, float(np.mean(silent)))


def _shares(values, total):
  found, counts = np.unique(values, return_counts=True)
  return {float(value): float(count) / total for value, count in zip(found, counts, strict=True)}


@dataclasses.dataclass(frozen=True)
class Instruments:
  """Statistics of instruments.

  Attributes:
    of: the unit of counting: 'piece', or 'segment' if the task's pieces are unknown.
    count: number of pieces or segments.
    histogram: number of instruments -> number of pieces or segments.
    share: instrument name -> share of pieces or segments with the instrument, the most frequent one first.
  """

  of: str
  count: int
  histogram: dict[int, int]
  share: dict[str, float]


def measure_instruments(groups: Iterable[Iterable[tuple[int, bool]]], of: str = 'piece') -> Instruments:
  """Return statistics of the instruments (program, is_drum) of each piece or segment."""
  sizes, players, count = collections.Counter(), collections.Counter(), 0
  for group in groups:
    group = set(group)
    count += 1
    sizes[len(group)] += 1
    players.update(group)
  named = collections.Counter()
  for (program, is_drum), number in players.items():
    named[instruments.instrument_name(program, is_drum)] += number
  shares = {name: number / count for name, number in sorted(named.items(), key=lambda item: (-item[1], item[0]))}
  return Instruments(of, count, dict(sorted(sizes.items())), shares)


def instruments_in(tokens: np.ndarray, codec: Codec) -> list[tuple[int, bool]]:
  """Return the distinct instruments (program, is_drum) in model ids `[n]`."""
  regular = np.unique(np.asarray(tokens)) - SPECIAL_TOKENS
  first, last = codec.event_type_range('program')
  programs = regular[(regular >= first) & (regular <= last)] - first
  first, last = codec.event_type_range('drum')
  has_drums = bool(((regular >= first) & (regular <= last)).any())
  return [(int(program), False) for program in programs] + ([(0, True)] if has_drums else [])


@dataclasses.dataclass(frozen=True)
class Report:
  """All statistics of a task's segments.

  Attributes:
    segments: number of segments.
    without_eos: number of segments without EOS.
    lengths: statistics of 'targets' and, if the task has them, 'prior_targets' (each prior segment separately).
    shares: shares of token types of the same, see `token_shares`.
    hops: statistics of hops; None if the task has no prior segments.
    instruments: statistics of instruments.
  """

  segments: int
  without_eos: int
  lengths: dict[str, Lengths]
  shares: dict[str, dict[str, float]]
  hops: Hops | None
  instruments: Instruments


def measure(
  segments: Sequence[Segment],
  codec: Codec,
  limit: int,
  segment_frames: int,
  pieces: Iterable[Iterable[tuple[int, bool]]] | None = None,
) -> Report:
  """Return the statistics of segments.

  Args:
    segments: at least one segment.
    codec: the codec of the tokens.
    limit: maximum number of tokens that the model accepts.
    segment_frames: length of a segment in frames.
    pieces: instruments of each piece; None counts the instruments of each segment's tokens.
  """
  tokens = {'targets': [s.targets for s in segments]}
  if all(s.priors is not None for s in segments):
    tokens['prior_targets'] = [prior for s in segments for prior in s.priors]
  if pieces is None:
    found = measure_instruments((instruments_in(s.targets, codec) for s in segments), 'segment')
  else:
    found = measure_instruments(pieces)
  return Report(
    segments=len(segments),
    without_eos=sum(EOS_ID not in s.targets for s in segments),
    lengths={name: measure_lengths([len(row) for row in rows], limit) for name, rows in tokens.items()},
    shares={name: token_shares(np.concatenate(rows), codec) for name, rows in tokens.items()},
    hops=measure_hops(segments, segment_frames),
    instruments=found,
  )


@dataclasses.dataclass(frozen=True)
class SegmentEvent:
  """An event of a segment's tokens.

  Attributes:
    time: time since the segment's start, s.
    kind: ON, OFF, TIE (the note began in an earlier segment) or UNKNOWN (an id without an event).
    pitch: MIDI pitch; for drums the drum key, for UNKNOWN the model id.
    program: program; None for drums, and before the first program token.
    is_drum: whether it is a drum hit.
    velocity: 1..127 for ON, otherwise 0.
  """

  time: float
  kind: str
  pitch: int
  program: int | None
  is_drum: bool = False
  velocity: int = 0


def read_events(tokens: np.ndarray, codec: Codec) -> list[SegmentEvent]:
  """Return the events of a segment's model ids `[n]` up to EOS, in order. State changes are applied to the events."""
  step = shifted = 0
  program, velocity = None, note_sequences.DEFAULT_VELOCITY
  ends = np.flatnonzero(np.asarray(tokens) == EOS_ID)
  ids = np.asarray(tokens)[: ends[0] if len(ends) else None].tolist()
  tie_id = codec.event_type_range('tie')[0] + SPECIAL_TOKENS
  ties_left = ids.index(tie_id) if tie_id in ids else 0  # pitches before the tie token are tied
  bins, events = vocabularies.num_velocity_bins_from_codec(codec), []
  for place, token in enumerate(ids):
    regular = token - SPECIAL_TOKENS
    time = step / codec.steps_per_second
    if not 0 <= regular < codec.num_classes:
      events.append(SegmentEvent(time, UNKNOWN, token, None))
      continue
    event = codec.events[regular]
    if event.type == SHIFT:
      shifted += event.value
      step = shifted
      continue
    shifted = 0
    if event.type == 'program':
      program = event.value
    elif event.type == 'velocity':
      velocity = vocabularies.bin_to_velocity(event.value, bins)
    elif event.type == 'drum':
      events.append(SegmentEvent(time, ON, event.value, None, True, velocity))
    elif event.type == 'pitch' and place < ties_left:
      events.append(SegmentEvent(time, TIE, event.value, program))
    elif event.type == 'pitch':
      events.append(SegmentEvent(time, ON if velocity else OFF, event.value, program, False, velocity))
  return events


def segment_notes(tokens: np.ndarray, codec: Codec, seconds: float) -> np.ndarray:
  """Return the notes of a single segment as a sorted note array, with times since its start in s.

  Tied notes begin at the start of the segment. Notes without offset end with the segment.

  Args:
    tokens: int model ids `[n]`.
    codec: the codec of the tokens.
    seconds: length of the segment, s.
  """
  state = note_sequences.NoteDecodingState()
  for event in read_events(tokens, codec):
    if event.kind == TIE:
      state.active_pitches[event.pitch, event.program or 0] = 0.0, note_sequences.DEFAULT_VELOCITY
  ids = vocabularies.decode_ids(np.asarray(tokens), codec)
  ids = ids[ids != DECODED_EOS_ID]
  if codec.event_type_range('tie')[0] in ids:
    note_sequences.begin_tied_pitches_section(state)
  run_length_encoding.decode_events_from_step(state, ids, 0, None, codec, note_sequences.decode_note_event)
  state.current_time = max(state.current_time, seconds)
  return sort_notes(note_sequences.end_all_notes(state))


def pitch_name(pitch: int) -> str:
  """Return the name of a MIDI pitch, e.g. 'C4' for 60."""
  return f'{_NOTE_NAMES[pitch % 12]}{pitch // 12 - 1}'


def drum_name(pitch: int) -> str:
  """Return the General MIDI name of a drum key, or its number."""
  import pretty_midi

  return pretty_midi.note_number_to_drum_name(pitch) or f'drum {pitch}'


def event_line(event: SegmentEvent, with_velocity: bool = False) -> str:
  """Return an event as text: time in s, kind, instrument, note."""
  time = f'{event.time:6.2f}'
  if event.kind == UNKNOWN:
    return f'{time}  {UNKNOWN}    token {event.pitch} is not an event'
  kind = f'{event.kind:<3}'
  if with_velocity and event.kind == ON:
    kind = f'{kind} {event.velocity:>3}'
  if event.is_drum:
    return f'{time}  {kind}  {"Drums":<25} {drum_name(event.pitch)}'
  instrument = 'any instrument' if event.program is None else instruments.instrument_name(event.program, False)
  return f'{time}  {kind}  {instrument:<25} {pitch_name(event.pitch)}'


def event_lines(tokens: np.ndarray, codec: Codec) -> list[str]:
  """Return the events of a segment's model ids `[n]` as text, one line per event."""
  with_velocity = vocabularies.num_velocity_bins_from_codec(codec) > 1
  lines = [event_line(event, with_velocity) for event in read_events(tokens, codec)] or ['        no events']
  if EOS_ID not in np.asarray(tokens):
    lines.append('        no EOS: truncated')
  return lines


def heading(segment: Segment, frames_per_second: Fraction, segment_frames: int) -> tuple[str, str]:
  """Return the headings of a segment and of its prior segment: position in s, number of tokens, hop."""

  def place(start):
    first, last = (float(frame / frames_per_second) for frame in (start, start + segment_frames))
    return f'{first:.2f}-{last:.2f} s, '

  own = f'{place(segment.start_frame) if segment.start_frame is not None else ""}{len(segment.targets)} tokens'
  if segment.priors is None:
    return own, ''
  if segment.prior_starts is not None and segment.prior_starts[-1] == NO_PRIOR:
    return own, 'no prior segment'
  where = '' if segment.prior_starts is None else place(segment.prior_starts[-1])
  hop = '' if segment.hop is None else f' (hop {segment.hop})'
  return own, f'prior: {where}{len(segment.priors[-1])} tokens{hop}'


def event_columns(segment: Segment, codec: Codec, frames_per_second: Fraction, segment_frames: int) -> list[str]:
  """Return lines of text: the events of a segment and, in further columns, of its prior segments, latest first."""
  left, right = heading(segment, frames_per_second, segment_frames)
  columns = [[left, *event_lines(segment.targets, codec)]]
  if segment.priors is not None:
    columns.append([right, *event_lines(segment.priors[-1], codec)])
    for number, prior in enumerate(reversed(segment.priors[:-1]), 2):
      columns.append([f'prior {number}: {len(prior)} tokens', *event_lines(prior, codec)])
  widths = [max(map(len, column)) for column in columns]
  rows = itertools.zip_longest(*columns, fillvalue='')
  return [' | '.join(map(str.ljust, row, widths)).rstrip(' |') for row in rows]


def report_lines(report: Report) -> list[str]:
  """Return a report as lines of text."""
  names = list(report.lengths)
  lines = ['tokens/segment    ' + ''.join(f'{name:<{_BAR + 10}}' for name in names).rstrip()]
  shown = list(report.lengths.values())
  lower = [1, *(edge + 1 for edge in shown[0].edges)]
  labels = [f'{low:>5} - {high}' for low, high in zip(lower, shown[0].edges, strict=False)] + [
    f'    > {shown[0].limit}'
  ]
  for place, label in enumerate(labels):
    cells = [_bar(lengths.histogram[place] / lengths.count) for lengths in shown]
    lines.append(f'  {label:<14}  ' + ''.join(f'{cell:<{_BAR + 10}}' for cell in cells).rstrip())
  for name, lengths in report.lengths.items():
    lines.append(
      f'  {name}: mean {lengths.mean:.1f}, median {lengths.median:g}, 95 % up to {lengths.most_95:g}, longest '
      f'{lengths.longest}; {lengths.too_long} of {lengths.count} exceed {lengths.limit}'
    )
  if report.without_eos:
    lines.append(f'  {report.without_eos} targets do not end with EOS')
  lines += ['', 'token types       ' + ''.join(f'{name:<{_BAR + 10}}' for name in names).rstrip()]
  for kind in report.shares[names[0]]:
    cells = [report.shares[name][kind] for name in names]
    if kind != OTHER or any(cells):
      lines.append(f'  {kind:<14}  ' + ''.join(f'{_bar(cell):<{_BAR + 10}}' for cell in cells).rstrip())
  if report.hops is not None:
    lines += ['', *_hop_lines(report.hops)]
  found = report.instruments
  sizes = ', '.join(f'{size}: {number}' for size, number in found.histogram.items())
  lines += ['', f'instruments per {found.of} ({found.count} {found.of}s): {sizes}']
  names = [f'{name} {100 * share:.0f} %' for name, share in found.share.items()]
  lines += [f'  {", ".join(names[k : k + 4])}' for k in range(0, len(names), 4)]
  return lines


def _hop_lines(hops):
  lines = ['hop   drawn     realised  without a prior segment, of those drawn'] if hops.drawn else ['hop   realised']
  for hop in sorted(hops.drawn.keys() | hops.realised.keys()):
    row = [hops.realised.get(hop, 0.0)]
    if hops.drawn:
      row = [hops.drawn.get(hop, 0.0), *row, hops.none_of_drawn.get(hop, 0.0)]
    lines.append(f'{hop:>3g}   ' + ''.join(f'{_percent(share):<10}' for share in row).rstrip())
  return [
    *lines,
    f'  no prior segment: {_percent(hops.none).strip()}; prior segments without events: '
    f'{_percent(hops.silent).strip()}',
  ]


def _percent(share):
  return f'{100 * share:5.1f} %'


def _bar(share):
  full = round(share * _BAR)
  return f'{_percent(share)} {"#" * full}'


def as_json(report: Report) -> dict:
  """Return a report as JSON values, with hops as text such as '1'."""
  content = dataclasses.asdict(report)
  for name, value in (content['hops'] or {}).items():
    if isinstance(value, dict):
      content['hops'][name] = {f'{hop:g}': share for hop, share in value.items()}
  return content


def segment_as_json(segment: Segment, codec: Codec) -> dict:
  """Return a segment with its tokens and events as JSON values."""
  rows = {'targets': [segment.targets], 'prior_targets': segment.priors or ()}
  found = {
    name: [{'tokens': row.tolist(), 'events': [dataclasses.asdict(e) for e in read_events(row, codec)]} for row in own]
    for name, own in rows.items()
  }
  place = {name: getattr(segment, name) for name in ('piece', 'start_frame', 'prior_starts', 'hop')}
  return {**place, 'targets': found['targets'][0], 'prior_targets': found['prior_targets']}
