import collections

import numpy as np
import pytest

pytest.importorskip('seqio')

from seqio_records import records

from mrmt3.data import memory_context
from mrmt3.data.example_config import NO_PRIOR

FRAMES = 32


def test_hops_are_drawn_uniformly():
  found = memory_context.add_prior_segments(records(3000, start_frame=99 * FRAMES), segment_frames=FRAMES, max_hop=4)
  hops = collections.Counter()
  for record in found.as_numpy_iterator():
    assert record['prior_starts'].tolist() == [(99 - record['hop']) * FRAMES]
    hops[int(record['hop'])] += 1
  assert sorted(hops) == [1, 2, 3, 4]
  # Five standard deviations of a count of 3000 / 4.
  assert all(abs(count - 750) < 5 * np.sqrt(3000 * 0.25 * 0.75) for count in hops.values())


def test_memory_dropout_empties_prior_segments():
  found = memory_context.add_prior_segments(
    records(3000, start_frame=99 * FRAMES), segment_frames=FRAMES, max_hop=4, memory_dropout=0.25
  )
  empty = sum(record['prior_starts'][0] == NO_PRIOR for record in found.as_numpy_iterator())
  assert abs(empty - 750) < 5 * np.sqrt(3000 * 0.25 * 0.75)


def test_published_chunks_keep_hops_inside_and_off_their_first_frame():
  def starts(start, max_hop=1):
    dataset = records(200, start_frame=start, chunk_start=2000, chunk_end=4000)
    found = memory_context.add_prior_segments(dataset, segment_frames=256, max_hop=max_hop, sampling='mr_mt3')
    return {(int(record['hop']), *record['prior_starts'].tolist()) for record in found.as_numpy_iterator()}

  assert starts(2256) == {(1, NO_PRIOR)}
  assert starts(2257) == {(1, 2001)}
  assert starts(2100) == {(1, NO_PRIOR)}
  # Hops 7 and 8 never fit: a segment begins at most 1744 frames into its chunk.
  assert starts(3744, 8) == {(hop, 3744 - 256 * hop if hop < 7 else NO_PRIOR) for hop in range(1, 9)}
