import numpy as np
import pytest

from mrmt3 import vocabularies

tf = pytest.importorskip('tensorflow')
pytest.importorskip('seqio')


def test_size_counts_special_and_extra_ids():
  codec = vocabularies.build_codec(vocabularies.VocabularyConfig(num_velocity_bins=1))
  vocabulary = vocabularies.vocabulary_from_codec(codec)
  assert isinstance(vocabulary, vocabularies.GenericTokenVocabulary)
  assert vocabulary.vocab_size == 3 + 1388 + 100
  assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)


def test_encoding_adds_the_special_ids():
  vocabulary = vocabularies.GenericTokenVocabulary(5, extra_ids=10)
  assert vocabulary.encode([0, 4, 2]) == [3, 7, 5]
  np.testing.assert_array_equal(vocabulary.encode_tf(tf.constant([0, 4, 2])), [3, 7, 5])


@pytest.mark.parametrize('bad', [[0, 5], [-1]])
def test_encoding_refuses_what_is_not_a_regular_id(bad):
  vocabulary = vocabularies.GenericTokenVocabulary(5)
  with pytest.raises(ValueError, match='not a regular id'):
    vocabulary.encode(bad)
  with pytest.raises(tf.errors.InvalidArgumentError, match='not a regular id'):
    vocabulary.encode_tf(tf.constant(bad))


def test_decoding_keeps_the_end_of_sequence_and_marks_other_ids():
  vocabulary = vocabularies.GenericTokenVocabulary(5, extra_ids=10)
  assert vocabulary.decode([3, 7, 0, 2, 8, 17, 4, 1, 3]) == [0, 4, -2, -2, -2, -2, 1, -1]
  decoded = vocabulary.decode_tf(tf.constant([[3, 7, 0, 2, 8, 17, 1, 3, 0], [3] * 9]))
  np.testing.assert_array_equal(decoded, [[0, 4, -2, -2, -2, -2, -1, -1, -1], [0] * 9])


def test_both_decoders_agree():
  codec = vocabularies.build_codec(vocabularies.VocabularyConfig(num_velocity_bins=1))
  ids = np.random.default_rng(0).integers(0, 1600, (20, 50))
  expected = vocabularies.decode_ids(ids, codec)
  np.testing.assert_array_equal(vocabularies.vocabulary_from_codec(codec).decode_tf(tf.constant(ids)), expected)


def test_vocabularies_compare_by_content():
  assert vocabularies.GenericTokenVocabulary(5, 10) == vocabularies.GenericTokenVocabulary(5, 10)
  assert vocabularies.GenericTokenVocabulary(5, 10) != vocabularies.GenericTokenVocabulary(6, 10)
  assert len({vocabularies.GenericTokenVocabulary(5, 10), vocabularies.GenericTokenVocabulary(5, 10)}) == 1
