"""Drum notation: where the sounds of a General MIDI kit stand on a percussion staff, and with which notehead."""

# pitch: (step, octave, notehead)
PLACES = {
  35: ('E', 4, 'normal'),
  36: ('F', 4, 'normal'),
  37: ('C', 5, 'x'),
  38: ('C', 5, 'normal'),
  39: ('C', 5, 'diamond'),
  40: ('C', 5, 'normal'),
  41: ('G', 4, 'normal'),
  42: ('G', 5, 'x'),
  43: ('A', 4, 'normal'),
  44: ('D', 4, 'x'),
  45: ('B', 4, 'normal'),
  46: ('G', 5, 'circle-x'),
  47: ('D', 5, 'normal'),
  48: ('D', 5, 'normal'),
  49: ('A', 5, 'x'),
  50: ('E', 5, 'normal'),
  51: ('F', 5, 'x'),
  52: ('B', 5, 'x'),
  53: ('F', 5, 'diamond'),
  54: ('E', 5, 'x'),
  55: ('B', 5, 'x'),
  56: ('E', 5, 'triangle'),
  57: ('A', 5, 'x'),
  59: ('F', 5, 'x'),
}
ELSEWHERE = ('E', 5, 'diamond')
_STEPS = 'CDEFGAB'
_LOWEST, _HIGHEST = 7 * 3 + 5, 7 * 6 + 2  # A3 to E6, steps from C0
NAMES = {
  35: 'Acoustic Bass Drum',
  36: 'Bass Drum',
  37: 'Side Stick',
  38: 'Snare Drum',
  39: 'Hand Clap',
  40: 'Electric Snare',
  41: 'Low Floor Tom',
  42: 'Closed Hi-Hat',
  43: 'High Floor Tom',
  44: 'Pedal Hi-Hat',
  45: 'Low Tom',
  46: 'Open Hi-Hat',
  47: 'Low-Mid Tom',
  48: 'Hi-Mid Tom',
  49: 'Crash Cymbal',
  50: 'High Tom',
  51: 'Ride Cymbal',
  53: 'Ride Bell',
  54: 'Tambourine',
  56: 'Cowbell',
}


def name(pitch: int) -> str:
  """Return the name of a drum sound."""
  return NAMES.get(pitch, f'Percussion {pitch}')


def places(pitches: list[int]) -> dict[int, tuple[str, int, str]]:
  """Return the place of each sound of a part, no two at one: a taken place gives way to the nearest free one.

  Args:
    pitches: General MIDI drum pitches.

  Returns:
    {pitch: (step, octave, notehead)}.
  """
  found, taken = {}, set()
  for pitch in sorted(pitches, key=lambda pitch: (pitch not in PLACES, pitch)):
    step, octave, head = PLACES.get(pitch, ELSEWHERE)
    wanted = _STEPS.index(step) + 7 * octave
    free = [line for line in range(_LOWEST, _HIGHEST + 1) if line not in taken]
    line = min(free, key=lambda line: (abs(line - wanted), line)) if free else wanted
    taken.add(line)
    found[pitch] = (_STEPS[line % 7], line // 7, head)
  return found
