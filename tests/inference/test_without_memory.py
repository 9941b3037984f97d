"""`Transcriber.run` without memory: every segment is decoded as if it were the first one."""

import network_fixture as fixture
import numpy as np

from mrmt3.config import ModelSpec
from mrmt3.inference import batched_pieces
from mrmt3.inference.transcriber import Transcriber
from mrmt3.spectrograms import SpectrogramConfig


def tokens_of(transcriber, samples, **options):
  updates = transcriber.run([batched_pieces.Piece([samples])], hop=1, **options)
  return [segment.tokens for update in updates for segment in update.segments]


def test_as_in_evaluation():
  spec = ModelSpec(fixture.CONFIG, SpectrogramConfig(num_mel_bins=64), segment_frames=40, targets_length=48)
  transcriber = Transcriber(fixture.params(), spec)
  samples = np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32)
  with_memory, without = (tokens_of(transcriber, samples, has_memory=has) for has in (True, False))
  assert len(with_memory) == len(without) == 4
  np.testing.assert_array_equal(with_memory[0], without[0])
  assert any(not np.array_equal(one, other) for one, other in zip(with_memory, without, strict=True))
  # Each segment alone, with silence around it where the model sees context.
  frames = spec.segment_frames * spec.spectrogram.hop_width
  assert spec.decoding.context_frames == 0
  for number, tokens in enumerate(without):
    alone = tokens_of(transcriber, samples[number * frames : (number + 1) * frames])
    np.testing.assert_array_equal(tokens, alone[0])
