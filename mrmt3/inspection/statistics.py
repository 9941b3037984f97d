"""What a task's examples are made of, in numbers and as lists of events a person can read. Numpy only.

`mrmt3 inspect` wires it: `task_reader` finds a task and reads its examples, `segment_plots` draws them and
`resynthesis` plays them.
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

BINS = 8  # of a histogram up to the limit; one more holds what is longer
EOS, OTHER = 'EOS', 'other'  # token types beside those of the codec; other: what no event has, such as padding within
ON, OFF, TIE, UNKNOWN = 'on', 'off', 'tie', '?'

_NOTE_NAMES = ('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')
_BAR = 16  # characters


@dataclasses.dataclass(frozen=True)
class Segment:
  """The tokens of one segment and of its prior segments, and where they come from.

  Attributes:
    targets: int32 model ids `[n]`, without padding.
    priors: those of each prior segment, earliest first; None where the task has no prior segments.
    piece: name of the piece, '' where the task does not say.
    start_frame: first frame; None where the task does not say.
    prior_starts: first frame of each prior segment, NO_PRIOR for none; None where the task does not say.
    hop: how many segments back the prior segment was to be; None where nothing is drawn.
  """

  targets: np.ndarray
  priors: tuple[np.ndarray, ...] | None = None
  piece: str = ''
  start_frame: int | None = None
  prior_starts: tuple[int, ...] | None = None
  hop: int | None = None


def segments_of(example: Mapping, codec: Codec, segment_frames: int, prior_segments: int = 1) -> list[Segment]:
  """Returns the segments of an example as a task gives it: one, or all those of a whole piece.

  Args:
    example: features and fields of a record. targets `[length]`, or `[segments, length]` of a whole piece, whose prior
      segments are the rows before.
    codec: the codec of the tokens.
    segment_frames: length of a segment.
    prior_segments: how many prior segments share prior_targets.
  """
  piece = example.get('piece', b'')
  piece = piece.decode() if isinstance(piece, bytes) else str(piece)
  targets = np.asarray(example['targets'])
  if targets.ndim == 2:
    nothing = np.array([codec.event_type_range('tie')[0] + SPECIAL_TOKENS, EOS_ID], np.int32)
    rows = [nothing, *map(without_padding, targets)]
    starts = [NO_PRIOR, *(segment_frames * k for k in range(len(targets)))]
    return [Segment(rows[k], (rows[k - 1],), piece, starts[k], (starts[k - 1],)) for k in range(1, len(rows))]
  priors = None
  if 'prior_targets' in example:
    # Where several share the feature, each is padded to its share of it.
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
  """Returns tokens `[n]` without the padding at their end, int32."""
  tokens = np.asarray(tokens, np.int32)
  kept = np.flatnonzero(tokens != PAD_ID)
  return tokens[: kept[-1] + 1 if len(kept) else 0]


@dataclasses.dataclass(frozen=True)
class Lengths:
  """How many tokens segments have.

  Attributes:
    count: segments.
    mean: tokens a segment.
    median: half of the segments have no more.
    most_95: 95 % of the segments have no more.
    longest: most tokens of a segment.
    limit: most tokens that fit.
    too_long: segments with more than that.
    edges: int `[BINS]`, upper edge (included) of each bin of the histogram but the last, which has no end.
    histogram: segments in each bin, `[BINS + 1]`.
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
  """Returns the statistics of lengths `[n]`, n at least 1, against the most tokens that fit."""
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
  """Returns the share of each token type in model ids `[n]`: those of the codec, EOS and other; they add up to 1."""
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
  """How far back prior segments lie, in segments. All are shares of the segments that were looked at.

  Attributes:
    drawn: hop -> share, as drawn; empty where nothing is drawn.
    realised: hop -> share, as the (latest) prior segment really lies.
    none: share without a prior segment: no room, or memory dropout.
    none_of_drawn: hop -> share without a prior segment among those with that hop drawn.
    silent: share in whose prior segments (also those that do not exist) nothing is written.
  """

  drawn: dict[float, float]
  realised: dict[float, float]
  none: float
  none_of_drawn: dict[float, float]
  silent: float


def measure_hops(segments: Sequence[Segment], segment_frames: int) -> Hops | None:
  """Returns the statistics of the segments' hops; None where the task has no prior segments or does not say where."""
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
  """Which instruments play.

  Attributes:
    of: what they were counted in: 'piece', or 'segment' where a task's pieces are not known.
    count: how many of these.
    histogram: number of instruments -> how many have so many.
    share: instrument's name -> share that it plays in, the most frequent one first.
  """

  of: str
  count: int
  histogram: dict[int, int]
  share: dict[str, float]


def measure_instruments(groups: Iterable[Iterable[tuple[int, bool]]], of: str = 'piece') -> Instruments:
  """Counts instruments (program, is_drum), given for each piece, each once."""
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
  """Returns the (program, is_drum) that model ids `[n]` name, without repetition."""
  regular = np.unique(np.asarray(tokens)) - SPECIAL_TOKENS
  first, last = codec.event_type_range('program')
  programs = regular[(regular >= first) & (regular <= last)] - first
  first, last = codec.event_type_range('drum')
  has_drums = bool(((regular >= first) & (regular <= last)).any())
  return [(int(program), False) for program in programs] + ([(0, True)] if has_drums else [])


@dataclasses.dataclass(frozen=True)
class Report:
  """All that is measured of a task's segments.

  Attributes:
    segments: how many there were.
    without_eos: segments that do not end with EOS.
    lengths: of 'targets' and, where there are any, 'prior_targets' (each prior segment for itself).
    shares: token types, see `token_shares`, of the same.
    hops: None where the task has no prior segments.
    instruments: see `measure_instruments`.
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
  """Measures segments, at least one.

  Args:
    segments: what to measure.
    codec: the codec of the tokens.
    limit: most tokens that fit.
    segment_frames: length of a segment.
    pieces: the instruments of each piece; None counts those that each segment names.
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
  """One thing that tokens say.

  Attributes:
    time: since the segment's start, s.
    kind: ON, OFF, TIE (sounds on from before) or UNKNOWN (a token that no event has).
    pitch: MIDI pitch, of drums the drum; of UNKNOWN the model id.
    program: None for drums and where no program has been said.
    is_drum: whether a drum is struck.
    velocity: 1..127 of ON, else 0.
  """

  time: float
  kind: str
  pitch: int
  program: int | None
  is_drum: bool = False
  velocity: int = 0


def read_events(tokens: np.ndarray, codec: Codec) -> list[SegmentEvent]:
  """Returns what model ids `[n]` of a segment say, in their order, up to EOS; state changes go into the events."""
  step = shifted = 0
  program, velocity = None, note_sequences.DEFAULT_VELOCITY
  ends = np.flatnonzero(np.asarray(tokens) == EOS_ID)
  ids = np.asarray(tokens)[: ends[0] if len(ends) else None].tolist()
  tie_id = codec.event_type_range('tie')[0] + SPECIAL_TOKENS
  ties_left = ids.index(tie_id) if tie_id in ids else 0  # what stands before sounds on
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
  """Returns the notes of one segment on its own as a sorted table, times since its start, s.

  What the tie section names sounds from the start; what does not end sounds to the end of the segment.

  Args:
    tokens: int model ids `[n]`.
    codec: their codec.
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
  """Returns e.g. 'C4' for MIDI pitch 60."""
  return f'{_NOTE_NAMES[pitch % 12]}{pitch // 12 - 1}'


def drum_name(pitch: int) -> str:
  """Returns the General MIDI name of a drum, or its number."""
  import pretty_midi

  return pretty_midi.note_number_to_drum_name(pitch) or f'drum {pitch}'


def event_line(event: SegmentEvent, with_velocity: bool = False) -> str:
  """Returns an event as text: time in s, what, instrument, note."""
  time = f'{event.time:6.2f}'
  if event.kind == UNKNOWN:
    return f'{time}  {UNKNOWN}    token {event.pitch} is no event'
  kind = f'{event.kind:<3}'
  if with_velocity and event.kind == ON:
    kind = f'{kind} {event.velocity:>3}'
  if event.is_drum:
    return f'{time}  {kind}  {"Drums":<25} {drum_name(event.pitch)}'
  instrument = 'any instrument' if event.program is None else instruments.instrument_name(event.program, False)
  return f'{time}  {kind}  {instrument:<25} {pitch_name(event.pitch)}'


def event_lines(tokens: np.ndarray, codec: Codec) -> list[str]:
  """Returns what a segment's model ids `[n]` say, a line an event."""
  with_velocity = vocabularies.num_velocity_bins_from_codec(codec) > 1
  lines = [event_line(event, with_velocity) for event in read_events(tokens, codec)] or ['        nothing']
  if EOS_ID not in np.asarray(tokens):
    lines.append('        no EOS: cut short')
  return lines


def heading(segment: Segment, frames_per_second: Fraction, segment_frames: int) -> tuple[str, str]:
  """Returns what to write above a segment and above its prior segment: piece, place in s, number of tokens."""

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


def side_by_side(segment: Segment, codec: Codec, frames_per_second: Fraction, segment_frames: int) -> list[str]:
  """Returns the events of a segment and, beside them, those of its prior segments, latest first, as lines of text."""
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
  """Returns a report as lines of text."""
  names = list(report.lengths)
  lines = ['tokens a segment  ' + ''.join(f'{name:<{_BAR + 10}}' for name in names).rstrip()]
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
  lines += ['', f'instruments a {found.of} ({found.count} {found.of}s): {sizes}']
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
    f'  no prior segment: {_percent(hops.none).strip()}; prior segments in which nothing is written: '
    f'{_percent(hops.silent).strip()}',
  ]


def _percent(share):
  return f'{100 * share:5.1f} %'


def _bar(share):
  full = round(share * _BAR)
  return f'{_percent(share)} {"#" * full}'


def as_json(report: Report) -> dict:
  """Returns a report as what JSON can hold; hops are text there, such as '1'."""
  content = dataclasses.asdict(report)
  for name, value in (content['hops'] or {}).items():
    if isinstance(value, dict):
      content['hops'][name] = {f'{hop:g}': share for hop, share in value.items()}
  return content


def segment_as_json(segment: Segment, codec: Codec) -> dict:
  """Returns a segment, its tokens and events as what JSON can hold."""
  rows = {'targets': [segment.targets], 'prior_targets': segment.priors or ()}
  found = {
    name: [{'tokens': row.tolist(), 'events': [dataclasses.asdict(e) for e in read_events(row, codec)]} for row in own]
    for name, own in rows.items()
  }
  place = {name: getattr(segment, name) for name in ('piece', 'start_frame', 'prior_starts', 'hop')}
  return {**place, 'targets': found['targets'][0], 'prior_targets': found['prior_targets']}
