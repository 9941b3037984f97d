"""Spelling of pitches: the name that suits the key."""

STEPS = 'FCGDAEB'  # on the line of fifths
_SHARPEST_MAJOR, _SHARPEST_MINOR = 8, 9  # fifths above the signature's tonic in major, such as G# and D# for C


def spell(pitch: int, sharps: int, is_minor: bool) -> tuple[str, int, int]:
  """Return (step, alteration in semitones, octave) of a MIDI pitch in a key.

  The twelve names are a row of fifths: from the third flat degree to the raised fifth in major, and a fifth higher in
  minor, where the fourth degree is raised more often than the second is lowered.

  Args:
    pitch: MIDI pitch.
    sharps: of the key signature, negative for flats.
    is_minor: whether the key is minor.
  """
  highest = sharps + (_SHARPEST_MINOR if is_minor else _SHARPEST_MAJOR)
  fifths = 7 * pitch % 12  # modulo 12; C is 0
  fifths += 12 * ((highest - fifths) // 12)
  step = STEPS[(fifths + 1) % 7]
  alteration = (fifths + 1) // 7
  return step, alteration, (pitch - alteration) // 12 - 1
