"""Times run-length encoding and removal of redundant state changes of a segment, compared with magenta/mt3's functions.

    python benchmarks/segment_encoding.py

Prints milliseconds per segment of 1000 events: mrmt3 on arrays and on a seqio data set. If magenta/mt3 and its
dependencies (see input_pipeline.py) are on PYTHONPATH, it also prints MT3's time on the same data set and the ratios,
and checks that the tokens are equal. The bound is 1 ms for mrmt3 on arrays.
"""

import importlib.util
import time

import numpy as np

EVENTS = 1000
REPEATS = 30
SEGMENTS = 200  # of a data set
PEER_SEGMENTS = 3
BOUND_MS = 1.0


def single_step_tokens(codec) -> np.ndarray:
  """Return a segment before run-length encoding, int32 ids: single-step shifts, and three ids per event."""
  from mrmt3.event_codec import Event

  rng = np.random.default_rng(0)
  names = ('program', 'velocity', 'pitch')
  tokens = []
  for _ in range(EVENTS):
    tokens += [codec.encode_event(Event('shift', 1))] * int(rng.random() < 0.2)
    tokens += [codec.encode_event(Event(n, int(rng.integers(0, 2)) + 32 * (n != 'velocity'))) for n in names]
  return np.array(tokens, np.int32)


def milliseconds(function, repeats: int) -> float:
  """Return the median time of a call, ms."""
  function()
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    function()
    times.append(time.perf_counter() - start)
  return 1e3 * float(np.median(times))


def over_data_set(module, codec, tokens, segments: int):
  """Return a function that encodes a data set of segments with a module's functions and return the last one."""
  import tensorflow as tf

  dataset = tf.data.Dataset.from_tensors({'targets': tokens}).repeat(segments)
  dataset = module.run_length_encode_shifts_fn(codec)(dataset)
  types = ['velocity', 'program']
  dataset = module.remove_redundant_state_changes_fn(codec, state_change_event_types=types)(dataset)

  def run():
    for example in dataset.as_numpy_iterator():
      last = example['targets']
    return last

  return run


def main() -> None:
  """Measure and print."""
  from mrmt3 import run_length_encoding as ours
  from mrmt3.vocabularies import VocabularyConfig, build_codec

  codec = build_codec(VocabularyConfig(num_velocity_bins=1))
  tokens = single_step_tokens(codec)

  def on_arrays():
    return ours.remove_redundant_state_changes(ours.run_length_encode_shifts(tokens, codec), codec)

  arrays = milliseconds(on_arrays, REPEATS)
  print(f'{len(tokens)} ids to {len(on_arrays())} tokens')
  print(f'mrmt3, arrays    {arrays:8.3f} ms per segment, {arrays / BOUND_MS:.2f} of the bound of {BOUND_MS:g} ms')
  data_set = over_data_set(ours, codec, tokens, SEGMENTS)
  seqio_ms = milliseconds(data_set, 3) / SEGMENTS
  print(f'mrmt3, data set  {seqio_ms:8.3f} ms per segment')
  if importlib.util.find_spec('mt3') is None:
    print('magenta/mt3 is not on PYTHONPATH: not measured')
    return
  from mt3 import run_length_encoding as theirs
  from mt3 import vocabularies

  their_codec = vocabularies.build_codec(vocabularies.VocabularyConfig(num_velocity_bins=1))
  peer = over_data_set(theirs, their_codec, tokens, PEER_SEGMENTS)
  if not np.array_equal(peer(), data_set()):
    raise SystemExit('the tokens of magenta/mt3 and mrmt3 differ')
  peer_ms = milliseconds(peer, 1) / PEER_SEGMENTS
  print(
    f'magenta/mt3      {peer_ms:8.3f} ms per segment, {peer_ms / seqio_ms:.0f} times mrmt3 on the data set, '
    f'{peer_ms / arrays:.0f} times mrmt3 on arrays'
  )


if __name__ == '__main__':
  main()
