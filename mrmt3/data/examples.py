"""Examples in numpy: tokens and inputs of any window of any piece, also of mixes and of subsets of stems.

`seqio_preprocessors` and all other code that needs a task's tokens or inputs use these functions.
"""

import dataclasses
import threading

import numpy as np

from mrmt3 import spectrograms, vocabularies
from mrmt3.audio.effects import chain
from mrmt3.config import ModelSpec
from mrmt3.data import piece_cache
from mrmt3.data.example_config import NO_PRIOR, ExampleConfig
from mrmt3.data.piece_source import PieceSource
from mrmt3.errors import UserError
from mrmt3.notes.note_array import empty_notes, trim_overlapping_notes
from mrmt3.tokens import corruption, segment_targets

NO_PIECE = -1  # unused place in a mix
_TOKENS, _STEMS, _TRANSPOSITION, _EFFECTS = range(4)  # random streams
_MARGIN = 256  # extra samples on either side for resampling
_SEVERAL = -1  # program of a stem that is not of one class


@dataclasses.dataclass(frozen=True)
class Part:
  """One piece's part of an example.

  Attributes:
    piece: number of the piece.
    start_frame: first frame in the piece.
    stems: bool `[stems]`, the stems in the mix; None for all.
    semitones: transposition by resampling: pitch and speed change together, and start_frame stays fixed.
    detune: deviation from the pitch of the notes in semitones, by resampling as well.
    stem_effect: name of the effect on the stems in `processed`; None: no effect.
    processed: bool `[stems]`; their notes get the program that the effect results in.
  """

  piece: int
  start_frame: int
  stems: np.ndarray | None = None
  semitones: int = 0
  detune: float = 0.0
  stem_effect: str | None = None
  processed: np.ndarray | None = None

  @property
  def speed(self) -> float:
    """Playback speed relative to the original."""
    return 2.0 ** ((self.semitones + self.detune) / 12)

  @property
  def is_plain(self) -> bool:
    """Whether all stems sound as they are stored."""
    return self.stems is None and not self.is_resampled and self.stem_effect is None

  @property
  def is_resampled(self) -> bool:
    """Whether the part plays at another speed than it is stored."""
    return bool(self.semitones or self.detune)


@dataclasses.dataclass(frozen=True)
class Window:
  """The position of an example in its pieces.

  Attributes:
    parts: the parts to mix. The first one defines the time axis and the end of the example.
    num_frames: length in frames.
    prior_starts: start frames of the prior segments in the first part, earliest first; NO_PRIOR for a missing one.
    seed: integers that determine all randomness of the example.
  """

  parts: tuple[Part, ...]
  num_frames: int
  prior_starts: tuple[int, ...] = ()
  seed: tuple[int, ...] = (0,)


class Library:
  """The pieces of all splits of a source, decoded on first use. Thread-safe.

  Args:
    source: the data source.
    spec: front end, vocabulary and segment length.
    config: how examples are built.
    cache_dir: folder of the cache of decoded pieces; None is the user's cache folder.
  """

  def __init__(self, source: PieceSource, spec: ModelSpec, config: ExampleConfig, cache_dir: str | None = None):
    self.source = source
    self.spec = spec
    self.config = config
    self.codec = vocabularies.build_codec(spec.vocabulary)
    self._cache_dir = cache_dir
    self._splits: dict[str, tuple[piece_cache.PieceStore, piece_cache.EventStore]] = {}
    self._lock = threading.Lock()
    self._empty = segment_targets.empty_segment(self.codec)

  def open(self, split: str) -> tuple[piece_cache.PieceStore, piece_cache.EventStore]:
    """Return the decoded pieces of a split and their events; UserError if no piece is usable."""
    with self._lock:
      if split not in self._splits:
        store = piece_cache.prepare(
          self.source,
          split,
          self.spec.spectrogram.sample_rate,
          stems=self.config.uses_stems,
          strict=self.config.strict,
          cache_dir=self._cache_dir,
        )
        if store.has_stems and all(entry.stems < 2 for entry in store.entries):
          field = 'ExampleConfig.stem_subset_rate' if self.config.stem_subset_rate else 'EffectsConfig.amplifier'
          raise UserError(f'{field}: no piece of {self.source} has stems to choose from; set it to 0')
        self._splits[split] = (
          store,
          store.encode(self.codec, self.config.granularity, self.config.trim, self.config.rounded_order),
        )
      return self._splits[split]

  def frames(self, split: str) -> np.ndarray:
    """Return the number of frames of each piece, int64 `[pieces]`."""
    return self.open(split)[0].lengths // self.spec.spectrogram.hop_width + 1

  def drawn(self, split: str, window: Window) -> Window:
    """Return the window with stems, transpositions and the parts' effects drawn from its seed, as configured."""
    parts = window.parts
    if self.config.stem_subset_rate:
      store, _ = self.open(split)
      rng = np.random.default_rng((*window.seed, _STEMS))
      parts = [dataclasses.replace(part, stems=self._stems(store.entries[part.piece].stems, rng)) for part in parts]
    if self.config.max_transposition:
      most, rng = self.config.max_transposition, np.random.default_rng((*window.seed, _TRANSPOSITION))
      parts = [dataclasses.replace(part, semitones=int(rng.integers(-most, most + 1))) for part in parts]
    if self.config.effects is not None:
      parts = self._with_effects(split, parts, (*window.seed, _EFFECTS))
    return dataclasses.replace(window, parts=tuple(parts))

  def _with_effects(self, split, parts, seed):
    """Return parts that are out of tune, and whose stems go through effects, as drawn."""
    effects = self.config.effects
    detuned = chain.draw_semitones(effects, seed, len(parts))
    parts = [dataclasses.replace(part, detune=detune) for part, detune in zip(parts, detuned, strict=True)]
    if not effects.active('stem'):
      return parts
    store, _ = self.open(split)
    drawn = []
    for number, part in enumerate(parts):
      programs = _stem_programs(store, part.piece)
      if part.stems is not None:
        programs[~part.stems] = _SEVERAL
      name, processed = chain.draw_stem_effect(effects, (*seed, number), programs)
      drawn.append(part if name is None else dataclasses.replace(part, stem_effect=name, processed=processed))
    return drawn

  def _stems(self, count, rng):
    if rng.random() >= self.config.stem_subset_rate:
      return None
    stems = np.zeros(count, bool)
    stems[rng.permutation(count)[: rng.integers(1, count + 1)]] = True
    return stems

  def tokens(self, split: str, window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the window's target tokens and the tokens of each prior segment, int32 model ids `[n]`, EOS last.

    Both are encoded in the same way. A missing prior segment becomes the empty segment (tie, EOS).
    """
    config, encode = self.config, self._encoder(split, window)
    rng = np.random.default_rng((*window.seed, _TOKENS))
    targets = encode(window.parts[0].start_frame, window.num_frames, self._shuffle(rng), rng)
    priors = []
    for start in window.prior_starts:
      tokens = self._empty
      if start != NO_PRIOR:
        tokens = encode(start, self.spec.segment_frames, self._shuffle(rng), rng)
      if config.prior_drop or config.prior_replace:
        tokens = corruption.corrupt_tokens(
          tokens, self.codec, drop=config.prior_drop, replace=config.prior_replace, rng=rng
        )
      priors.append(tokens)
    return targets, priors

  def _shuffle(self, rng):
    if self.config.shuffle is not None:
      rng.random()  # not used: the measured trainings drew it, and a seed is to give the same order as in those
    return self.config.shuffle

  def _encoder(self, split, window):
    """Return a function (start frame, frames, shuffle, generator) -> tokens of the mix of the window's parts."""
    store, events = self.open(split)
    main, lead = window.parts[0], 0
    piece_frames = self._end_frame(store, main)
    if len(window.parts) == 1 and main.is_plain:
      piece = events.events(main.piece)
    else:
      piece, lead = self._compose(store, window)

    def encode(start, num_frames, shuffle, rng):
      return segment_targets.segment_targets(
        piece,
        start + lead,
        num_frames,
        frames_per_second=self.spec.spectrogram.frame_rate,
        piece_frames=piece_frames + lead,
        codec=self.codec,
        ties=self.spec.ties,
        shuffle=shuffle,
        rng=rng,
      )

    return encode

  def _compose(self, store, window):
    """Return the events of the mix of all parts, and their delay relative to the first part in frames."""
    # Notes of another part, or of one that is played slower, can begin before the first part's time 0. A delay makes
    # their times positive; it is an integer number of frames, steps and seconds. Without such parts no delay is needed,
    # and times round as in the piece itself.
    frames_per_second = self.spec.spectrogram.frame_rate
    lead_seconds, lead_frames = 0, 0
    if len(window.parts) > 1 or window.parts[0].is_resampled:
      lead_seconds, lead_frames = frames_per_second.denominator, frames_per_second.numerator
    main = window.parts[0]
    starts = [main.start_frame, *(start for start in window.prior_starts if start != NO_PRIOR)]
    first = float(min(starts) / frames_per_second) + lead_seconds
    end = float((main.start_frame + window.num_frames) / frames_per_second) + lead_seconds
    tables = [empty_notes()]
    for part in window.parts:
      notes = np.array(store.notes(part.piece))
      if part.stem_effect is not None:
        notes['program'][part.processed[store.note_stems(part.piece)]] = chain.result_program(part.stem_effect)
      if part.stems is not None:
        notes = notes[part.stems[store.note_stems(part.piece)]]
      table = _transposed(notes, part, float(part.start_frame / frames_per_second))
      shift = lead_seconds + float((main.start_frame - part.start_frame) / frames_per_second)
      table['onset'] += shift
      table['offset'] += shift
      tables.append(table if part is main else table[table['onset'] < end + 0.1])
    table = np.concatenate(tables)
    if self.config.trim:  # before notes that have ended are removed, because they cut earlier notes of their pitch
      table = trim_overlapping_notes(table)
    table = table[table['offset'] >= max(first - 0.1, 0.0)]
    table['onset'] = np.maximum(table['onset'], 0.0)
    return segment_targets.encode_piece(
      table, self.codec, self.config.granularity, rounded_order=self.config.rounded_order
    ), lead_frames

  def samples(self, split: str, window: Window, start_frame: int | None = None, num_frames: int | None = None):
    """Return the mixed samples of an example, float32 frames `[valid frames, hop]`, up to the end of the first part.

    Args:
      split: name of the split.
      window: the example.
      start_frame: start in the first part, if not the window's.
      num_frames: length in frames, if not the window's.
    """
    store, _ = self.open(split)
    hop, main = self.spec.spectrogram.hop_width, window.parts[0]
    start = main.start_frame if start_frame is None else start_frame
    frames = window.num_frames if num_frames is None else num_frames
    frames = min(frames, self._end_frame(store, main) - start)
    effects, seed, rate = self.config.effects, (*window.seed, _EFFECTS), self.spec.spectrogram.sample_rate
    has_effects = effects is not None and bool(chain.draw_mix_effects(effects, seed))
    context = int(chain.CONTEXT_SECONDS * rate) if has_effects else 0
    mix = None
    for number, part in enumerate(window.parts):
      place = part.start_frame * hop, (start - main.start_frame) * hop - context, frames * hop + context
      samples = _part_samples(store, part, *place)
      if part.stem_effect is not None:
        clean = _part_samples(store, dataclasses.replace(part, stems=part.processed), *place)
        samples = samples - clean + chain.apply_stem_effect(part.stem_effect, clean, rate, effects, (*seed, number))
      mix = samples if mix is None else mix + samples
    if len(window.parts) > 1:
      mix /= max(1.0, float(np.abs(mix).max(initial=0.0)))
    if has_effects:
      mix = chain.apply_mix_effects(mix, rate, effects, seed)[context:]
    return mix.reshape(frames, hop)

  def _end_frame(self, store, main):
    """Return the end of the first part in frames, at its playback speed."""
    written = spectrograms.num_frames(store.entries[main.piece].samples, self.spec.spectrogram)
    return main.start_frame + max(1, int((written - main.start_frame) / main.speed))

  def inputs(self, frames: np.ndarray) -> np.ndarray:
    """Return the model's inputs for sample frames `[frames, hop]`: log-mel `[frames, mel]`, or the frames."""
    if self.config.log_mel_on == 'device':
      return frames
    return spectrograms.compute_spectrogram(frames.reshape(-1), self.spec.spectrogram)


def _stem_programs(store, piece):
  """Return the program of each stem of a piece, int `[stems]`; `_SEVERAL` for drums, several programs or no notes."""
  notes, stems = store.notes(piece), store.note_stems(piece)
  programs = np.full(store.entries[piece].stems, _SEVERAL)
  own = np.unique(np.stack([stems, np.where(notes['is_drum'], _SEVERAL, notes['program'])]), axis=1)
  single = own[:, np.bincount(own[0], minlength=len(programs))[own[0]] == 1]
  programs[single[0]] = single[1]
  return programs


def _transposed(notes, part, start):
  """Return the notes of a transposed part that starts at `start` (s); drums keep their pitch."""
  if not part.is_resampled:
    return notes
  for name in ('onset', 'offset'):
    notes[name] = start + (notes[name] - start) / part.speed
  notes['pitch'] += np.where(notes['is_drum'], 0, part.semitones).astype(notes['pitch'].dtype)
  return notes[(notes['pitch'] >= 0) & (notes['pitch'] < 128)]


def _part_samples(store, part, start, lead, size):
  """Return `size` samples of a part.

  The part begins at sample `start` of its piece; the result begins `lead` samples later (earlier if negative).
  """
  if not part.is_resampled:
    return store.audio(part.piece, start + lead, start + lead + size, part.stems)
  import soxr

  first = start + int(np.floor(lead * part.speed)) - _MARGIN
  samples = store.audio(part.piece, first, first + int(size * part.speed) + 2 * _MARGIN, part.stems)
  skipped = round((start + lead * part.speed - first) / part.speed)
  return soxr.resample(samples, part.speed, 1.0, quality='HQ')[skipped : skipped + size]


def fit_tokens(tokens: np.ndarray, limit: int | None, on_overflow: str, what: str) -> np.ndarray | None:
  """Return at most `limit` tokens `[n]`, or None if the example is to be skipped.

  Raises:
    UserError: there are too many tokens and `on_overflow` is 'error'.
  """
  if limit is None or len(tokens) <= limit:
    return tokens
  if on_overflow == 'cut':
    return tokens[:limit]
  if on_overflow == 'error':
    raise UserError(f'{what}: {len(tokens)} tokens exceed the limit of {limit}; raise task_feature_lengths')
  return None
