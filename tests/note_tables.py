"""Small note arrays, written by hand and drawn by hypothesis."""

from hypothesis import strategies as st

from mrmt3.notes.note_array import as_notes


def note(onset, pitch, program=0, is_drum=0, offset=None, velocity=100):
  return (onset, onset + 0.5 if offset is None else offset, pitch, velocity, program, is_drum)


def table(*rows):
  return as_notes(list(rows))


@st.composite
def note_tables(draw, max_notes=25):
  # A coarse grid of times makes ties, repeated notes and distances exactly at the tolerance common.
  rows = draw(
    st.lists(
      st.tuples(
        st.integers(0, 60),
        st.integers(0, 30),
        st.sampled_from([60, 61, 62]),
        st.integers(1, 127),
        st.sampled_from([0, 1, 9, 33, 40]),
        st.booleans(),
      ),
      max_size=max_notes,
    )
  )
  notes = table(*((t / 40, (t + d) / 40, *rest) for t, d, *rest in rows))
  notes['program'][notes['is_drum']] = 0
  return notes
