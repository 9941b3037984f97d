import matplotlib.colors
import numpy as np
import pytest
from matplotlib.image import imread

from mrmt3.errors import UserError
from mrmt3.notes.instruments import DRUM_COLOR, SLAKH_CLASSES
from mrmt3.notes.note_array import as_notes, empty_notes
from mrmt3.plots import piano_roll


def music(seconds=20.0, programs=(0, 40), drums=True):
  times = np.arange(0, seconds - 0.5, 0.5)
  rows = [(t, t + 0.1, 36 + 6 * (i % 2), 100, 0, 1) for i, t in enumerate(times) if drums]
  for k, program in enumerate(programs):
    rows += [(t, t + 0.45, 50 + 10 * k + i % 7, 100, program, 0) for i, t in enumerate(times)]
  return as_notes(rows)


def texts(figure):
  return [text.get_text() for text in figure.texts]


def bars(axes):
  """Return {color: [n, 4] rectangles left, low, right, high} of a roll's notes, without the marks of onsets."""
  found = {}
  for collection in axes.collections:
    color = matplotlib.colors.to_hex(collection.get_facecolor()[0]) if len(collection.get_facecolor()) else None
    if color and color != piano_roll._INK:
      corners = np.array([path.vertices[:4] for path in collection.get_paths()])
      found[color] = np.concatenate([corners.min(1), corners.max(1)], axis=1)
  return found


def test_writes_a_picture_with_both_panels(tmp_path):
  path = tmp_path / 'new' / 'roll.png'
  reference, estimate = music(), music(programs=(0, 40, 68))
  figure = piano_roll.piano_roll(path, reference, estimate, title='A song')
  image = imread(path)
  assert image.shape[1] == round(figure.get_figwidth() * piano_roll._DPI) and image.shape[2] == 4
  drawn = {tuple(np.round(255 * pixel).astype(int)) for pixel in image[::2, ::2, :3].reshape(-1, 3)}
  assert len(drawn) > 20
  for text in ('A song', 'Reference', 'Transcription', '117 notes, 3 instruments', '156 notes, 4 instruments'):
    assert text in texts(figure)
  for text in ('Acoustic Piano', 'Violin', 'Oboe (transcription only)', 'Drums'):
    assert text in texts(figure)
  assert [p.name for p in path.parent.iterdir()] == ['roll.png']


def test_notes_are_where_they_sound_in_the_same_colours():
  reference, estimate = music(), music(programs=(40, 0))
  figure = piano_roll.piano_roll(None, reference, estimate)
  above, lane_above, below, lane_below = figure.axes
  assert above.get_position().y0 > lane_above.get_position().y0 > below.get_position().y0 > lane_below.get_position().y0
  colors = piano_roll.instrument_colors([(0, False), (40, False)])
  for axes, notes in ((above, reference), (below, estimate)):
    drawn = bars(axes)
    assert drawn.keys() == set(colors.values())
    for (program, _), color in colors.items():
      own = notes[(notes['program'] == program) & ~notes['is_drum']]
      np.testing.assert_allclose(drawn[color][:, 0], own['onset'])
      np.testing.assert_allclose(drawn[color][:, 2], own['offset'], atol=0.03)
      np.testing.assert_allclose(drawn[color][:, [1, 3]].mean(1), own['pitch'])
  assert [label.get_text() for label in lane_above.get_yticklabels()] == ['kick', 'hi-hat']
  (strokes,) = lane_above.collections
  np.testing.assert_allclose([s[0, 0] for s in strokes.get_segments()], reference['onset'][reference['is_drum']])


def test_all_panels_share_their_scales():
  figure = piano_roll.piano_roll(None, music(20, programs=(0,)), music(30, programs=(0, 16, 24)))
  last = 29.6  # the last chord starts at 29.0 and lasts 0.45 s, the reference ends earlier
  assert [axes.get_xlim() for axes in figure.axes] == [(0, pytest.approx(last, abs=0.2))] * 4
  assert figure.axes[0].get_ylim() == figure.axes[2].get_ylim()


def test_without_reference_and_without_drums():
  figure = piano_roll.piano_roll(None, None, music(drums=False))
  assert len(figure.axes) == 1
  assert 'Reference' not in texts(figure) and not any('only)' in text for text in texts(figure))
  assert [label.get_text() for label in figure.axes[0].get_xticklabels()][:2] == ['0:00', '0:02']


def test_what_to_show():
  figure = piano_roll.piano_roll(None, music(40), music(40), seconds=10)
  assert figure.axes[0].get_xlim() == (0, 10)
  assert '60 notes, 3 instruments' in texts(figure)
  wide = piano_roll.piano_roll(None, music(240), music(240))
  assert 2 * figure.get_figwidth() >= wide.get_figwidth() > figure.get_figwidth()


@pytest.mark.parametrize('reference', [empty_notes(), None, music()])
def test_silence_can_be_drawn(tmp_path, reference):
  figure = piano_roll.piano_roll(tmp_path / 'a.png', reference, empty_notes())
  assert '0 notes, 0 instruments' in texts(figure)
  assert imread(tmp_path / 'a.png').size


def test_every_text_is_inside_the_picture():
  everything = tuple(SLAKH_CLASSES.values())
  reference, estimate = music(30, programs=everything[:20]), music(30, programs=everything[10:])
  figure = piano_roll.piano_roll(None, reference, estimate, title='All of them')
  for text in figure.texts:
    box = text.get_window_extent()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, text.get_text()


def test_colours_differ_and_stay():
  programs = sorted(SLAKH_CLASSES.values())
  alone = {program: piano_roll.instrument_colors([(program, False)])[program, False] for program in programs}
  for first in range(0, len(programs) - 12):
    group = [(program, False) for program in programs[first : first + 12]]
    colors = piano_roll.instrument_colors([*group, (0, True)])
    assert len(set(colors.values())) == 13 and colors[0, True] == DRUM_COLOR
    assert all(color == alone[program] for (program, is_drum), color in colors.items() if not is_drum)
  assert len(piano_roll.instrument_colors([(program, False) for program in programs])) == len(programs)


def test_long_pieces_are_drawn_fast(tmp_path):
  import time

  notes = music(240, programs=(0, 16, 24, 33, 40, 56))
  start = time.perf_counter()
  piano_roll.piano_roll(tmp_path / 'a.png', notes, notes)
  assert time.perf_counter() - start < 15


def test_failing_to_write_is_one_clear_line(tmp_path):
  (tmp_path / 'file').touch()
  for path in (tmp_path / 'file' / 'a.png', tmp_path):
    with pytest.raises(UserError) as caught:
      piano_roll.piano_roll(path, None, music())
    assert '\n' not in str(caught.value)
  for name in ('a.xyz', 'a'):
    with pytest.raises(UserError, match='unknown picture format'):
      piano_roll.piano_roll(tmp_path / name, None, music())
  assert [p.name for p in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('title', ['a$b_{c$', 'caf\udce9.wav', '日本 \\frac{', 'tab\there'])
def test_any_file_name_is_a_title(tmp_path, title):
  piano_roll.piano_roll(tmp_path / 'roll.svg', None, music(), title=title)
  assert (tmp_path / 'roll.svg').stat().st_size > 1000
