"""The token vocabulary as a seqio.Vocabulary (imports seqio and TensorFlow)."""

import seqio
import tensorflow as tf

from mrmt3.special_tokens import DECODED_EOS_ID, DECODED_INVALID_ID, EOS_ID, SPECIAL_TOKENS, UNK_ID


class GenericTokenVocabulary(seqio.Vocabulary):
  """Maps regular ids 0..regular_ids-1 to model ids above the special tokens (as in MT3).

  Decoding gives `DECODED_EOS_ID` for the end of sequence, and `DECODED_INVALID_ID` for other ids that are not regular.
  """

  def __init__(self, regular_ids: int, extra_ids: int = 0):
    """Take the number of regular ids, and of further ids that are never used."""
    super().__init__(extra_ids=extra_ids)
    self._num_regular_ids = regular_ids

  @property
  def eos_id(self) -> int:
    """The model id of the end of sequence."""
    return EOS_ID

  @property
  def unk_id(self) -> int:
    """The model id of unknown ids."""
    return UNK_ID

  @property
  def _base_vocab_size(self) -> int:
    return SPECIAL_TOKENS + self._num_regular_ids

  def _encode(self, token_ids):
    bad = [token for token in token_ids if not 0 <= token < self._num_regular_ids]
    if bad:
      raise ValueError(f'token {bad[0]} is not a regular id 0..{self._num_regular_ids - 1}')
    return [token + SPECIAL_TOKENS for token in token_ids]

  def _decode(self, ids):
    return [self._decode_id(int(i)) for i in ids]

  def _decode_id(self, model_id: int) -> int:
    if model_id == EOS_ID:
      return DECODED_EOS_ID
    return model_id - SPECIAL_TOKENS if SPECIAL_TOKENS <= model_id < self._base_vocab_size else DECODED_INVALID_ID

  def _encode_tf(self, token_ids):
    in_range = tf.reduce_all((token_ids >= 0) & (token_ids < self._num_regular_ids))
    with tf.control_dependencies([tf.debugging.Assert(in_range, ['a token is not a regular id', token_ids])]):
      return token_ids + SPECIAL_TOKENS

  def _decode_tf(self, ids):
    ended = tf.cumsum(tf.cast(ids == EOS_ID, tf.int32), axis=-1) > 0
    known = (ids >= SPECIAL_TOKENS) & (ids < self._base_vocab_size)
    return tf.where(ended, DECODED_EOS_ID, tf.where(known, ids - SPECIAL_TOKENS, DECODED_INVALID_ID))

  def __eq__(self, other):
    return (
      isinstance(other, GenericTokenVocabulary)
      and self._num_regular_ids == other._num_regular_ids
      and self.extra_ids == other.extra_ids
    )

  def __hash__(self):
    return hash((GenericTokenVocabulary, self._num_regular_ids, self.extra_ids))
