"""Examples in numpy: the tokens and inputs of any window of any piece, also of mixes and of some of the stems.

The functions of seqio's preprocessors (`preprocessors`) and of everything else that needs the same tokens or inputs.
"""

import dataclasses
import threading

import numpy as np

from mrmt3 import spectrograms, vocabularies
from mrmt3.config import ModelSpec
from mrmt3.data import piece_cache
from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.piece_source import PieceSource
from mrmt3.errors import UserError
from mrmt3.notes.note_array import empty_notes
from mrmt3.tokens import corruption, segment_targets

NO_PRIOR = -1  # start frame of a prior segment that does not exist
NO_PIECE = -1  # in a mix: nobody
_TOKENS, _STEMS, _TRANSPOSITION = range(3)  # streams of randomness
_MARGIN = 256  # samples on either side of what is resampled


@dataclasses.dataclass(frozen=True)
class Part:
  """What is heard in an example.

  Attributes:
    piece: which piece.
    start_frame: from which frame of it on.
    stems: bool `[stems]`, which of them are heard; None: all.
    semitones: by how much it is higher, played faster in proportion: as from a tape, start_frame stays where it is.
  """

  piece: int
  start_frame: int
  stems: np.ndarray | None = None
  semitones: int = 0

  @property
  def speed(self) -> float:
    """How much faster than written it is played."""
    return 2.0 ** (self.semitones / 12)


@dataclasses.dataclass(frozen=True)
class Window:
  """An example's place.

  Attributes:
    parts: what is heard; the first one gives the time and the piece's end.
    num_frames: length, frames.
    prior_starts: start frames of the prior segments in the first part's time, earliest first; NO_PRIOR for none.
    seed: whole numbers that all randomness of the example follows from.
  """

  parts: tuple[Part, ...]
  num_frames: int
  prior_starts: tuple[int, ...] = ()
  seed: tuple[int, ...] = (0,)


class Library:
  """The pieces of all splits of a source, prepared on first use; safe to use from several threads.

  Args:
    source: where pieces come from.
    spec: front end, vocabulary and segment length.
    config: what an example is made of.
    cache_dir: where prepared pieces are kept; None is the user's cache folder.
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
    """Returns the prepared pieces of a split and their events; UserError where nothing can be used."""
    with self._lock:
      if split not in self._splits:
        store = piece_cache.prepare(
          self.source,
          split,
          self.spec.spectrogram.sample_rate,
          stems=self.config.stem_subset_rate > 0,
          strict=self.config.strict,
          cache_dir=self._cache_dir,
        )
        if store.has_stems and all(entry.stems < 2 for entry in store.entries):
          raise UserError(
            f'ExampleConfig.stem_subset_rate: no piece of {self.source} has stems to choose from; set it to 0'
          )
        self._splits[split] = (
          store,
          store.encode(self.codec, self.config.granularity, self.config.trim, self.config.rounded_order),
        )
      return self._splits[split]

  def frames(self, split: str) -> np.ndarray:
    """Returns how many frames each piece has, int64 `[pieces]`."""
    return self.open(split)[0].lengths // self.spec.spectrogram.hop_width + 1

  def drawn(self, split: str, window: Window) -> Window:
    """Returns the window with the stems and transpositions that its seed draws, where the configuration asks for such."""
    parts = window.parts
    if self.config.stem_subset_rate:
      store, _ = self.open(split)
      rng = np.random.default_rng((*window.seed, _STEMS))
      parts = [dataclasses.replace(part, stems=self._stems(store.entries[part.piece].stems, rng)) for part in parts]
    if self.config.max_transposition:
      most, rng = self.config.max_transposition, np.random.default_rng((*window.seed, _TRANSPOSITION))
      parts = [dataclasses.replace(part, semitones=int(rng.integers(-most, most + 1))) for part in parts]
    return dataclasses.replace(window, parts=tuple(parts))

  def _stems(self, count, rng):
    if rng.random() >= self.config.stem_subset_rate:
      return None
    stems = np.zeros(count, bool)
    stems[rng.permutation(count)[: rng.integers(1, count + 1)]] = True
    return stems

  def tokens(self, split: str, window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the window's target tokens and those of each prior segment, int32 model ids `[n]`, EOS last.

    Both take the same path; a prior segment that does not exist is the empty one (tie, EOS).
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
    """Returns (start frame, frames, shuffle, generator) -> tokens of a window of what is heard."""
    store, events = self.open(split)
    main, lead = window.parts[0], 0
    piece_frames = self._heard_frames(store, main)
    if len(window.parts) == 1 and main.stems is None and not main.semitones:
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
    """Returns the events of what is heard, and by how many frames they lie later than in the first part."""
    # Onsets of what sounds already when another part's piece begins, or one that is played slower, lie before the first part's
    # start: all times get a lead of a whole number of frames, steps and seconds. Else none is needed, and rounds as the piece itself.
    frames_per_second = self.spec.spectrogram.frame_rate
    lead_seconds, lead_frames = 0, 0
    if len(window.parts) > 1 or window.parts[0].semitones:
      lead_seconds, lead_frames = frames_per_second.denominator, frames_per_second.numerator
    main = window.parts[0]
    starts = [main.start_frame, *(start for start in window.prior_starts if start != NO_PRIOR)]
    first = float(min(starts) / frames_per_second) + lead_seconds
    end = float((main.start_frame + window.num_frames) / frames_per_second) + lead_seconds
    tables = [empty_notes()]
    for part in window.parts:
      notes = store.notes(part.piece)
      if part.stems is not None:
        notes = notes[part.stems[store.note_stems(part.piece)]]
      table = _transposed(np.array(notes), part, float(part.start_frame / frames_per_second))
      shift = lead_seconds + float((main.start_frame - part.start_frame) / frames_per_second)
      table['onset'] += shift
      table['offset'] += shift
      tables.append(table if part is main else table[table['onset'] < end + 0.1])
    table = np.concatenate(tables)
    if self.config.trim:  # with notes that are over: they cut those of their pitch that would sound on
      table = segment_targets.trim_overlapping_notes(table)
    table = table[table['offset'] >= max(first - 0.1, 0.0)]
    table['onset'] = np.maximum(table['onset'], 0.0)
    return segment_targets.encode_piece(
      table, self.codec, self.config.granularity, rounded_order=self.config.rounded_order
    ), lead_frames

  def samples(self, split: str, window: Window, start_frame: int | None = None, num_frames: int | None = None):
    """Returns what is heard, float32 frames `[valid frames, hop]`: no frames beyond the first part's end.

    Args:
      split: which split.
      window: the example.
      start_frame: another start than the window's, in the first part's time.
      num_frames: another length than the window's, frames.
    """
    store, _ = self.open(split)
    hop, main = self.spec.spectrogram.hop_width, window.parts[0]
    start = main.start_frame if start_frame is None else start_frame
    frames = window.num_frames if num_frames is None else num_frames
    frames = min(frames, self._heard_frames(store, main) - start)
    total = None
    for part in window.parts:
      heard = _heard(store, part, part.start_frame * hop, (start - main.start_frame) * hop, frames * hop)
      total = heard if total is None else total + heard
    if len(window.parts) > 1:
      total /= max(1.0, float(np.abs(total).max(initial=0.0)))
    return total.reshape(frames, hop)

  def _heard_frames(self, store, main):
    """Returns the number of the frame, in the first part's time, in which it ends."""
    written = spectrograms.num_frames(store.entries[main.piece].samples, self.spec.spectrogram)
    return main.start_frame + max(1, int((written - main.start_frame) / main.speed))

  def inputs(self, frames: np.ndarray) -> np.ndarray:
    """Returns the network's inputs of frames `[frames, hop]`: log-mel `[frames, mel]`, or the frames themselves."""
    if self.config.log_mel_on == 'device':
      return frames
    return spectrograms.compute_spectrogram(frames.reshape(-1), self.spec.spectrogram)


def _transposed(notes, part, start):
  """Returns notes as they are heard where a part is played from `start` on (s); drums keep their pitch."""
  if not part.semitones:
    return notes
  for name in ('onset', 'offset'):
    notes[name] = start + (notes[name] - start) / part.speed
  notes['pitch'] += np.where(notes['is_drum'], 0, part.semitones).astype(notes['pitch'].dtype)
  return notes[(notes['pitch'] >= 0) & (notes['pitch'] < 128)]


def _heard(store, part, start, lead, size):
  """Returns `size` samples of a part that begin `lead` samples after it does, at sample `start` of its piece; negative: before."""
  if not part.semitones:
    return store.audio(part.piece, start + lead, start + lead + size, part.stems)
  import soxr

  first = start + int(np.floor(lead * part.speed)) - _MARGIN
  samples = store.audio(part.piece, first, first + int(size * part.speed) + 2 * _MARGIN, part.stems)
  skipped = round((start + lead * part.speed - first) / part.speed)
  return soxr.resample(samples, part.speed, 1.0, quality='HQ')[skipped : skipped + size]


def fit_tokens(tokens: np.ndarray, limit: int | None, on_overflow: str, what: str) -> np.ndarray | None:
  """Returns tokens `[n]` that are at most `limit` long, None where the example is to be left out.

  UserError where too many tokens are an error.
  """
  if limit is None or len(tokens) <= limit:
    return tokens
  if on_overflow == 'cut':
    return tokens[:limit]
  if on_overflow == 'error':
    raise UserError(f'{what}: {len(tokens)} tokens do not fit {limit}; raise task_feature_lengths')
  return None
