"""The model ids that are no events, and the decoded ids that stand for them (as in MT3).

A model id below `SPECIAL_TOKENS` is special; from there on it is a regular id of the codec plus `SPECIAL_TOKENS`.
"""

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
SPECIAL_TOKENS = 3  # how many there are

START_ID = PAD_ID  # the decoder's input before the first token

# Regular ids that decoding returns in place of model ids that are no events.
DECODED_EOS_ID = -1
DECODED_INVALID_ID = -2
