"""Configuration of training and evaluation examples: one frozen dataclass for every data set, bound by gin."""

import dataclasses

from mrmt3 import vocabularies
from mrmt3.audio.effects import EffectsConfig
from mrmt3.errors import UserError
from mrmt3.tokens import shuffling

RANDOM, GRID, PIECES, CHUNKS_MR_MT3, CHUNKS_MT3 = 'random', 'grid', 'pieces', 'mr_mt3', 'mt3'
SAMPLINGS = (RANDOM, GRID, PIECES, CHUNKS_MR_MT3, CHUNKS_MT3)
OVERFLOWS = ('skip', 'error', 'cut')
LOG_MEL_ON = ('host', 'device')
CHUNK_FRAMES = 2000  # frames per chunk in the published code
NO_PRIOR = -1  # start frame of a prior segment that does not exist


@dataclasses.dataclass(frozen=True)
class ExampleConfig:
  """How segments are cut from pieces, and how they are augmented.

  Attributes:
    sampling: where segments start.
      'random': anywhere in the piece, its end included; an epoch has as many segments as fit into the piece.
      'grid': consecutive segments, as in inference.
      'pieces': an example is a whole piece with all its segments in order.
      'mr_mt3', as published: each chunk of 2000 frames once per epoch, without the last chunk of a song. Prior segments
      come from within the chunk and never from its first frame. (The published code takes twelve chunks per song.)
      'mt3', as published: chunks of 2000 frames, the last one included; a segment can be cut at the ends of its chunk.
    max_hop: L_max_hop; the prior segment is 1..max_hop segments back (paper: 1, 3 or 8). Use 1 in evaluation.
    prior_segments: number of prior segments in the memory; the hop counts to the latest one (paper: 1).
    memory_dropout: probability of empty prior segments (paper: 0).
    prior_drop: probability that an event of a prior segment is dropped (paper: 0).
    prior_replace: probability that a pitch, drum or program of a prior segment is replaced by another (paper: 0).
    prior_inputs: whether to add the inputs of the prior segment. models.MemoryEncoderDecoderModel needs them to predict
      prior tokens (scheduled sampling).
    shuffle_scope: which events of one time step are permuted, 'paper' or 'mr_mt3', see `tokens.shuffling`; None: none.
    max_pieces_per_mix: maximum number of random segments that are mixed into one example (MT3's mixing; 1: no mixing).
    stem_subset_rate: probability that an example has only a random subset of the stems (needs stems).
    max_transposition: maximum random transposition of each piece in semitones, up or down, by resampling, so that speed
      changes as well. Drums keep their pitch in the tokens (0: no transposition).
    trim: whether overlapping notes of one pitch and instrument are cut at the next onset (as in MT3 for Slakh).
    granularity: 'flat', 'midi_class' or 'full' programs.
    rounded_order: whether times are rounded to steps before events are sorted by time (papers: after). Notes of a chord
      played by hand differ by about 10 ms, which is inaudible; sorted by exact time, their order is unpredictable.
    on_overflow: how to handle a segment with too many tokens: 'skip' leaves it out, reports and counts it; 'error'
      stops; 'cut' keeps the first tokens, without EOS (as published).
    log_mel_on: 'host' yields log-mels `[frames, mel]`. 'device' yields raw samples `[frames, hop]`, a quarter of the
      bytes, and the model computes the log-mel.
    length_block: number of examples to sort by target length, so that batches have similar lengths (see
      `models.MemoryEncoderDecoderModel.length_multiple`); they are kept in memory. 0: no sorting.
    length_group: the batch size, if length_block is set; divides length_block.
    strict: whether a piece that would be left out or lose notes is an error.
    effects: audio effects and their probabilities (docs/data.md); None: none. The amplifier needs stems.

  Raises:
    UserError: a value is out of range.
  """

  sampling: str = RANDOM
  max_hop: int = 1
  prior_segments: int = 1
  memory_dropout: float = 0.0
  prior_drop: float = 0.0
  prior_replace: float = 0.0
  prior_inputs: bool = False
  shuffle_scope: str | None = None
  max_pieces_per_mix: int = 1
  stem_subset_rate: float = 0.0
  max_transposition: int = 0
  trim: bool = True
  granularity: str = 'full'
  rounded_order: bool = False
  on_overflow: str = 'skip'
  log_mel_on: str = 'host'
  length_block: int = 0
  length_group: int = 1
  strict: bool = False
  effects: EffectsConfig | None = None

  def __post_init__(self):
    self._check_choice('sampling', SAMPLINGS)
    self._check_choice('on_overflow', OVERFLOWS)
    self._check_choice('log_mel_on', LOG_MEL_ON)
    self._check_choice('granularity', tuple(vocabularies.PROGRAM_GRANULARITIES))
    if self.shuffle_scope is not None:
      self._check_choice('shuffle_scope', shuffling.SCOPES)
    for name in ('max_hop', 'prior_segments', 'max_pieces_per_mix'):
      value = getattr(self, name)
      if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f'ExampleConfig.{name} is {value!r}; it must be an integer of at least 1')
    transposition = self.max_transposition
    if not isinstance(transposition, int) or isinstance(transposition, bool) or not 0 <= transposition <= 12:
      raise UserError(
        f'ExampleConfig.max_transposition is {transposition!r}; it must be an integer number of semitones, 0 to 12'
      )
    for name in ('memory_dropout', 'prior_drop', 'prior_replace', 'stem_subset_rate'):
      value = getattr(self, name)
      if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UserError(f'ExampleConfig.{name} is {value!r}; it must be a probability, 0 to 1')
    if min(self.length_block, self.length_group - 1) < 0 or self.length_block % self.length_group:
      raise UserError(
        f'ExampleConfig.length_block is {self.length_block}; it must be a multiple of length_group, {self.length_group}'
      )
    if self.prior_drop + self.prior_replace > 1:
      raise UserError('ExampleConfig.prior_drop and prior_replace sum to more than 1; lower one of them')
    if self.composes and self.sampling not in (RANDOM, GRID):
      raise UserError(
        f'ExampleConfig.sampling is {self.sampling!r}; mixing, stem subsets and transposition need '
        f'{RANDOM!r} or {GRID!r}'
      )
    if self.effects is not None and not isinstance(self.effects, EffectsConfig):
      raise UserError(
        f'ExampleConfig.effects is {self.effects!r}; bind it to @effects.EffectsConfig() or leave it at None'
      )
    if self.effects is not None and self.sampling not in (RANDOM, GRID):
      raise UserError(f'ExampleConfig.sampling is {self.sampling!r}; effects need {RANDOM!r} or {GRID!r}')

  def _check_choice(self, name, choices):
    if getattr(self, name) not in choices:
      raise UserError(f'ExampleConfig.{name} is {getattr(self, name)!r}; it must be one of {", ".join(choices)}')

  @property
  def composes(self) -> bool:
    """Whether examples are composed: from stems, from several pieces, or transposed."""
    return self.max_pieces_per_mix > 1 or self.stem_subset_rate > 0 or self.max_transposition > 0

  @property
  def uses_stems(self) -> bool:
    """Whether examples are made from stems instead of mixes."""
    return self.stem_subset_rate > 0 or (self.effects is not None and bool(self.effects.active('stem')))

  @property
  def shuffle(self) -> shuffling.Shuffle | None:
    """The token shuffling, or None."""
    return None if self.shuffle_scope is None else shuffling.Shuffle(self.shuffle_scope)
