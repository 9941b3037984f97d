"""The seqio preprocessor that samples the prior segments, whose tokens the memory holds (MR-MT3, section 3.2)."""

import seqio
import tensorflow as tf

from mrmt3.data.example_config import CHUNKS_MR_MT3, NO_PRIOR, RANDOM
from mrmt3.data.record_randomness import Stream, chance, uniform


@seqio.map_over_dataset
def add_prior_segments(
  record,
  segment_frames: int,
  max_hop: int,
  prior_segments: int = 1,
  memory_dropout: float = 0.0,
  sampling: str = RANDOM,
):
  """Add hop and prior_starts, the start frames of the prior segments.

  The latest prior segment begins `hop` segments before the example, with hop drawn uniformly from 1..max_hop. Earlier
  prior segments precede it directly. A prior segment can begin anywhere in the piece, its first frame included; with
  sampling 'mr_mt3' only within the chunk and not at its first frame (as published).

  Args:
    record: a record with start_frame, or a block of them; see `seqio_preprocessors`.
    segment_frames: length of a segment in frames.
    max_hop: L_max_hop.
    prior_segments: number of prior segments.
    memory_dropout: probability that all prior segments are missing (not in the paper).
    sampling: see above.

  Returns:
    the record with hop (int32, as drawn) and prior_starts (int32 `[prior_segments]`, earliest first, NO_PRIOR for a
    missing segment).
  """
  hop = uniform(record, Stream.HOP, 1, tf.constant(max_hop + 1))
  back = hop[..., None] + tf.range(prior_segments - 1, -1, -1)
  starts = record['start_frame'][..., None] - back * segment_frames
  wanted = starts > record['chunk_start'][..., None] if sampling == CHUNKS_MR_MT3 else starts >= 0
  if memory_dropout:
    wanted &= chance(record, Stream.MEMORY_DROPOUT)[..., None] >= memory_dropout
  return {**record, 'hop': hop, 'prior_starts': tf.where(wanted, starts, NO_PRIOR)}
