"""What a training or evaluation example is made of: one frozen struct that gin binds, the same for every data set."""

import dataclasses

from mrmt3 import vocabularies
from mrmt3.errors import UserError
from mrmt3.tokens import shuffling

RANDOM, GRID, PIECES, CHUNKS_MR_MT3, CHUNKS_MT3 = 'random', 'grid', 'pieces', 'mr_mt3', 'mt3'
SAMPLINGS = (RANDOM, GRID, PIECES, CHUNKS_MR_MT3, CHUNKS_MT3)
OVERFLOWS = ('skip', 'error', 'cut')
LOG_MEL_ON = ('host', 'device')
CHUNK_FRAMES = 2000  # of the published codes' chunks


@dataclasses.dataclass(frozen=True)
class ExampleConfig:
  """How segments are cut from pieces and what goes with them. Raises UserError for values out of range.

  Attributes:
    sampling: where segments start. 'random': anywhere in the piece, its tail included, as many an epoch as fit in it.
      'grid': one after the other, as in inference. 'pieces': an example is a whole piece, all its segments in
      order. As published: 'mr_mt3' (chunks of 2000 frames, each once an epoch, the last one of a song left out, prior
      segments only from within the chunk, never from its first frame; the published code takes twelve chunks of each song) and 'mt3' (chunks with the tail; a segment may be cut short at
      either end of its chunk).
    max_hop: L_max_hop, the prior segment is 1..max_hop segments back (paper: 1, 3 or 8). Evaluation wants 1.
    prior_segments: how many prior segments the memory sees at once; the hop counts to the latest (paper: 1).
    memory_dropout: probability of empty prior segments (paper: 0).
    prior_drop: probability that an event of a prior segment is left out (paper: 0).
    prior_replace: probability that a pitch, drum or program of a prior segment is replaced by another (paper: 0).
    prior_inputs: whether to add the prior segment's own inputs, which models.MemoryEncoderDecoderModel needs to predict
      prior tokens itself (scheduled sampling).
    shuffle_scope: None, or how far events of one time step are permuted, see `token_shuffling`: 'paper' or 'mr_mt3'.
    max_pieces_per_mix: up to so many segments of pieces drawn at random are added up to one example (MT3's mixing; 1:
      none).
    stem_subset_rate: probability that only a random choice of the stems is heard and written (needs stems).
    max_transposition: each piece that is heard is played up to so many semitones higher or lower, as many as drawn, and faster or
      slower in proportion; drums keep their pitch in the tokens (0: none).
    trim: whether overlapping notes of one pitch and instrument are cut at the next onset (as MT3 trains on Slakh).
    granularity: 'flat', 'midi_class' or 'full' programs.
    rounded_order: whether times are rounded to steps before events are sorted by them (the papers: after). What is played together
      by hand begins within some 10 ms, in an order that nobody hears; sorted by time, a model has to guess it.
    on_overflow: what becomes of a segment with more tokens than fit: 'skip' leaves it out, named and counted, 'error'
      stops, 'cut' keeps what fits, without EOS (as published).
    log_mel_on: 'host' gives log-mels `[frames, mel]`, 'device' raw samples `[frames, hop]`, a quarter of the bytes,
      of which the model computes the log-mel.
    length_block: so many examples are sorted by the length of their targets, and batches of like length made of them (see
      `models.MemoryEncoderDecoderModel.length_multiple`); 0: none. They wait in memory.
    length_group: the batch size, where length_block is given; divides it.
    strict: whether a piece that would be left out, or of which notes would be dropped, is an error.
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
        raise UserError(f'ExampleConfig.{name} is {value!r}; it is a whole number of at least 1')
    transposition = self.max_transposition
    if not isinstance(transposition, int) or isinstance(transposition, bool) or not 0 <= transposition <= 12:
      raise UserError(
        f'ExampleConfig.max_transposition is {transposition!r}; it is a whole number of semitones, 0 to 12'
      )
    for name in ('memory_dropout', 'prior_drop', 'prior_replace', 'stem_subset_rate'):
      value = getattr(self, name)
      if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UserError(f'ExampleConfig.{name} is {value!r}; it is a probability, 0 to 1')
    if min(self.length_block, self.length_group - 1) < 0 or self.length_block % self.length_group:
      raise UserError(
        f'ExampleConfig.length_block is {self.length_block}; it must be a multiple of length_group, {self.length_group}'
      )
    if self.prior_drop + self.prior_replace > 1:
      raise UserError('ExampleConfig.prior_drop and prior_replace add up to more than 1')
    if self.composes and self.sampling not in (RANDOM, GRID):
      raise UserError("ExampleConfig: mixing, stem subsets and transposition go with sampling 'random' or 'grid' only")

  def _check_choice(self, name, choices):
    if getattr(self, name) not in choices:
      raise UserError(f'ExampleConfig.{name} is {getattr(self, name)!r}; it is one of {", ".join(choices)}')

  @property
  def composes(self) -> bool:
    """Whether an example is put together anew: from stems, from several pieces, or played otherwise."""
    return self.max_pieces_per_mix > 1 or self.stem_subset_rate > 0 or self.max_transposition > 0

  @property
  def shuffle(self) -> shuffling.Shuffle | None:
    """The token shuffling, or None."""
    return None if self.shuffle_scope is None else shuffling.Shuffle(self.shuffle_scope)
