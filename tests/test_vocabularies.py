import subprocess
import sys

import numpy as np
import pytest

from mrmt3 import vocabularies
from mrmt3.event_codec import Event
from mrmt3.vocabularies import VocabularyConfig, build_codec


@pytest.mark.parametrize(
  ('bins', 'ranges', 'embeddings'),
  [
    (1, [(0, 1000), (1001, 1128), (1129, 1130), (1131, 1131), (1132, 1259), (1260, 1387)], 1536),
    (127, [(0, 1000), (1001, 1128), (1129, 1256), (1257, 1257), (1258, 1385), (1386, 1513)], 1664),
  ],
)
def test_id_blocks(bins, ranges, embeddings):
  config = VocabularyConfig(num_velocity_bins=bins)
  codec = build_codec(config)
  types = ['shift', 'pitch', 'velocity', 'tie', 'program', 'drum']
  assert [codec.event_type_range(t) for t in types] == ranges
  assert vocabularies.num_embeddings(codec) == vocabularies.num_embeddings(config) == embeddings
  assert vocabularies.num_velocity_bins_from_codec(codec) == bins


@pytest.mark.parametrize(
  'change', [{'num_velocity_bins': 0}, {'num_velocity_bins': 128}, {'steps_per_second': 0}, {'max_shift_seconds': 0}]
)
def test_nonsense_configurations_are_refused(change):
  with pytest.raises(ValueError, match='num_velocity_bins'):
    build_codec(VocabularyConfig(**change))


def test_abbreviations():
  assert VocabularyConfig(num_velocity_bins=1).abbrev_str == 'vb1'
  assert VocabularyConfig().abbrev_str == ''
  assert VocabularyConfig(50, 5, 4).abbrev_str == 'ss50ms5vb4'


@pytest.mark.parametrize('bins', [1, 2, 5, 32, 127])
def test_velocity_bins(bins):
  velocity = np.arange(128)
  velocity_bin = vocabularies.velocity_to_bin(velocity, bins)
  np.testing.assert_array_equal(velocity_bin, np.ceil(bins * velocity / 127))
  assert velocity_bin[0] == 0
  assert velocity_bin[1] == 1
  assert velocity_bin[127] == bins
  back = vocabularies.bin_to_velocity(np.arange(bins + 1), bins)
  assert back.tolist() == [int(127 * b / bins) for b in range(bins + 1)]
  np.testing.assert_array_equal(vocabularies.velocity_to_bin(back, bins), np.arange(bins + 1))


def test_model_ids_round_trip_and_end_at_the_first_eos():
  codec = build_codec(VocabularyConfig(num_velocity_bins=1))
  regular = np.arange(codec.num_classes)
  np.testing.assert_array_equal(vocabularies.decode_ids(vocabularies.encode_ids(regular), codec), regular)
  ids = np.array([[3, 0, 2, 1390, 1391, -7, 1, 9, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1], [4, 5, 6, 7, 8, 9, 1535, 3, 3]])
  expected = [[0, -2, -2, 1387, -2, -2, -1, -1, -1], [-1] * 9, [1, 2, 3, 4, 5, 6, -2, 0, 0]]
  np.testing.assert_array_equal(vocabularies.decode_ids(ids, codec), expected)


@pytest.mark.parametrize(('name', 'programs'), [('flat', []), ('midi_class', [0, 8, 120]), ('full', [7, 8, 127])])
def test_granularities_map_programs_only_and_are_idempotent(name, programs):
  codec = build_codec(VocabularyConfig(num_velocity_bins=1))
  events = [Event('program', 7), Event('pitch', 7), Event('program', 8), Event('drum', 7), Event('program', 127)]
  tokens = np.array([codec.encode_event(event) for event in events])
  granularity = vocabularies.PROGRAM_GRANULARITIES[name]
  mapped = granularity.tokens_map_fn(tokens, codec)
  decoded = [codec.decode_event_index(i) for i in mapped]
  assert [e.value for e in decoded if e.type == 'program'] == programs
  assert [e for e in decoded if e.type != 'program'] == [events[1], events[3]]
  np.testing.assert_array_equal(granularity.tokens_map_fn(mapped, codec), mapped)
  once = granularity.program_map_fn(np.arange(128))
  np.testing.assert_array_equal(granularity.program_map_fn(once), once)


def test_the_token_modules_load_no_heavy_library():
  code = (
    'import sys; from mrmt3 import note_sequences, vocabularies; from mrmt3.notes import midi; '
    'from mrmt3.tokens import segment_targets; '
    "heavy = {'tensorflow', 'seqio', 'jax', 'note_seq', 'pretty_midi', 'mido'} & set(sys.modules); "
    'sys.exit(str(heavy) if heavy else 0)'
  )
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
  assert result.returncode == 0, result.stderr


def test_unknown_module_attributes_are_errors():
  with pytest.raises(AttributeError, match='no attribute'):
    _ = vocabularies.NoSuchVocabulary


def test_what_was_decoded_can_be_encoded_again():
  codec = build_codec(VocabularyConfig(num_velocity_bins=1))
  decoded = vocabularies.decode_ids([5, 0, 700, 2, 1, 9], codec)
  encoded = vocabularies.encode_decoded_ids(decoded)
  assert encoded.tolist() == [5, 2, 700, 2, 1, 1] and encoded.dtype == np.int32
  np.testing.assert_array_equal(vocabularies.decode_ids(encoded, codec), decoded)
