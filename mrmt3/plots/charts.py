"""Small charts as SVG text, for a page without scripts: they scale with the page, and stay readable on a phone.

Every function returns one <svg>. Sizes are in CSS pixels of a column as wide as a phone; colours are classes s0 to s5
of the systems, which the page's style sheet sets, so that charts follow its light and dark theme. Further systems have
the same colours and the class `again`: hollow dots, dashed curves.

Charts are built with xml.etree, which escapes names. They are no templates, for almost all of a chart is computed
coordinates. matplotlib's SVG files are no replacement: they follow no style sheet, and have no tooltips.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from mrmt3.utils import console

WIDTH = 420
COLORS = 6
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 14, 42
_NOT_XML = re.compile('[\ufffe\uffff]')  # not allowed in XML, but in file names


def system_class(number: int) -> str:
  """Return the classes of the system of that number, counted from 0; they begin again after twice COLORS."""
  return f's{number % COLORS}' + (' again' if number // COLORS % 2 else '')


def standalone(svg: str, style: str) -> str:
  """Return an <svg> of this module as the text of an SVG file: with its namespace and a style sheet."""
  element = ET.fromstring(svg)
  element.set('xmlns', 'http://www.w3.org/2000/svg')
  sheet = ET.Element('style')
  sheet.text = style
  element.insert(0, sheet)
  return ET.tostring(element, encoding='unicode')


def _add(parent: ET.Element, tag: str, attributes: Mapping[str, float | str], title: str = '') -> ET.Element:
  """Add an element; numbers are rounded to a tenth of a pixel. The title becomes a tooltip."""
  texts = {name: _plain(value) if isinstance(value, str) else f'{value:.1f}' for name, value in attributes.items()}
  element = ET.SubElement(parent, tag, texts)
  if title:
    ET.SubElement(element, 'title').text = _plain(title)
  return element


def _plain(text: str) -> str:
  """Return a name without the characters that XML cannot hold or that hide what it is."""
  return _NOT_XML.sub('\N{REPLACEMENT CHARACTER}', console.printable(text))


def _svg(width: float, height: float, label: str, fixed: bool = False) -> ET.Element:
  attributes = {'viewBox': f'0 0 {width:.0f} {height:.0f}', 'role': 'img', 'aria-label': _plain(label)}
  return ET.Element('svg', {**attributes, **({'style': f'width:{width:.0f}px'} if fixed else {})})


def _to_text(svg: ET.Element) -> str:
  return ET.tostring(svg, encoding='unicode')


def _text(
  svg: ET.Element, x: float, y: float, text: str, anchor: str = 'middle', kind: str = 'axis', transform: str = ''
) -> None:
  rotation = {'transform': transform} if transform else {}
  _add(svg, 'text', {'x': x, 'y': y, 'text-anchor': anchor, 'class': kind, **rotation}).text = _plain(text)


def _line(svg: ET.Element, x1: float, y1: float, x2: float, y2: float, kind: str = 'grid') -> None:
  _add(svg, 'line', {'x1': x1, 'y1': y1, 'x2': x2, 'y2': y2, 'class': kind})


def _dot(svg: ET.Element, x: float, y: float, system: int, title: str, radius: float = 4) -> None:
  _add(svg, 'circle', {'cx': x, 'cy': y, 'r': f'{radius:g}', 'class': f'dot {system_class(system)}'}, title)


def _curve(svg: ET.Element, points: Sequence[tuple[float, float]], system: int) -> None:
  path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
  _add(svg, 'polyline', {'points': path, 'class': f'curve {system_class(system)}'})


def _upwards(y: float) -> str:
  """Return the transform of the label of a vertical axis whose middle is at `y`."""
  return f'rotate(-90 12 {y:.0f})'


def _ticks(most: int) -> list[int]:
  step = next(step for step in (1, 2, 5, 10, 20, 50) if most / step <= 8)
  return list(range(0, most + 1, step))


def leakage_scatter(systems: Mapping[str, Sequence[tuple[str, float, float]]]) -> str:
  """Plot each piece's (name, reference instruments, estimated instruments); leakage is above the diagonal."""
  points = [point for own in systems.values() for point in own]
  most = max(2, int(max((max(x, y) for _, x, y in points), default=2)) + 1)
  size, height = WIDTH - _LEFT - _RIGHT, WIDTH - 40

  def place(x, y):
    return _LEFT + x / most * size, height - _BOTTOM - y / most * (height - _BOTTOM - _TOP)

  svg = _svg(WIDTH, height, 'Detected vs. reference instruments, one dot per piece')
  for tick in _ticks(most):
    x, y = place(tick, tick)
    _line(svg, _LEFT, y, WIDTH - _RIGHT, y)
    _text(svg, _LEFT - 6, y + 4, str(tick), 'end')
    _text(svg, x, height - _BOTTOM + 16, str(tick))
  _line(svg, *place(0, 0), *place(most, most), 'diagonal')
  _text(svg, place(most * 0.03, 0)[0], place(0, most * 0.95)[1], 'leakage', 'start', 'faint')
  _text(svg, place(most * 0.97, 0)[0], place(0, most * 0.03)[1], 'instruments missing', 'end', 'faint')
  seen = {}
  for number, own in enumerate(systems.values()):
    for name, x, y in own:
      # Points of one place are drawn next to each other.
      rank = seen[x, y] = seen.get((x, y), -1) + 1
      column, row = rank % 5, rank // 5
      cx, cy = place(x, y)
      title = f'{name}: {y:g} instruments detected, {x:g} in the reference'
      cx, cy = cx + (column + 1) // 2 * 7 * (-1) ** column, cy + (row + 1) // 2 * 7 * (-1) ** row
      _dot(svg, cx, cy, number, title)
  _text(svg, _LEFT + size / 2, height - 6, 'reference instruments')
  _text(svg, 12, height / 2, 'detected instruments', transform=_upwards(height / 2))
  return _to_text(svg)


def curves(
  systems: Mapping[str, Mapping[str, float]], bins: Sequence[str], x_label: str, y_label: str, top: float = 1.0
) -> str:
  """Draw a value, 0..top, over named bins, one curve per system; bins that a system lacks are left out of its curve."""
  height = 270
  inner, step = height - _TOP - _BOTTOM, (WIDTH - _LEFT - _RIGHT) / max(len(bins), 1)

  def place(bin_name, value):
    return _LEFT + (bins.index(bin_name) + 0.5) * step, _TOP + (1 - min(value, top) / top) * inner

  svg = _svg(WIDTH, height, f'{y_label} by {x_label}')
  for part in range(6):
    y = _TOP + part / 5 * inner
    _line(svg, _LEFT, y, WIDTH - _RIGHT, y)
    _text(svg, _LEFT - 6, y + 4, f'{top * (1 - part / 5):.1f}', 'end')
  for name in bins:
    _text(svg, place(name, 0)[0], height - _BOTTOM + 16, name)
  for number, values in enumerate(systems.values()):
    points = [(name, *place(name, values[name])) for name in bins if name in values]
    _curve(svg, [(x, y) for _, x, y in points], number)
    for name, x, y in points:
      _dot(svg, x, y, number, f'{name}: {values[name]:.3f}')
  _text(svg, _LEFT + (WIDTH - _LEFT - _RIGHT) / 2, height - 6, x_label)
  return _to_text(svg)


def strips(systems: Mapping[str, Sequence[tuple[str, float]]], label: str) -> str:
  """Draw the pieces' values, 0..1, as one dot each on one line per system, with a tick at the mean."""
  height = 34 + 54 * len(systems)
  size = WIDTH - 2 * _RIGHT

  svg = _svg(WIDTH, height, label)
  for part in range(6):
    x = _RIGHT + part / 5 * size
    _line(svg, x, 6, x, height - 22)
    _text(svg, x, height - 6, f'{part / 5:.1f}')
  for number, (name, values) in enumerate(systems.items()):
    y = 40 + 54 * number
    _text(svg, _RIGHT, y - 20, name, 'start', 'label')
    bins = {}
    for piece, value in sorted(values, key=lambda pair: pair[1]):
      rank = bins[round(value * 60)] = bins.get(round(value * 60), -1) + 1
      cy = y + (rank + 1) // 2 * 3 * (-1) ** rank
      _dot(svg, _RIGHT + value * size, max(y - 14, min(y + 14, cy)), number, f'{piece}: {value:.3f}', 3.5)
    mean = _RIGHT + size * sum(value for _, value in values) / max(len(values), 1)
    _line(svg, mean, y - 16, mean, y + 16, 'mean')
  return _to_text(svg)


def bars(rows: Mapping[str, Sequence[float | None]], label: str) -> str:
  """Draw horizontal bars, 0..1, of named rows: one for each system, None where it has none."""
  systems = max((len(values) for values in rows.values()), default=1)
  row_height, name_width = 10 + 11 * systems, 166
  height, size = 22 + row_height * len(rows), WIDTH - name_width - 40

  svg = _svg(WIDTH, height, label)
  for part in range(5):
    x = name_width + part / 4 * size
    _line(svg, x, 0, x, height - 18)
    _text(svg, x, height - 4, f'{part / 4:g}')
  for row, (name, values) in enumerate(rows.items()):
    top = row * row_height + 4
    _text(svg, name_width - 8, top + (row_height - 10) / 2 + 4, name, 'end', 'label')
    for number, value in enumerate(values):
      if value is None:
        continue
      y = top + 11 * number
      box = {'x': f'{name_width}', 'y': y, 'width': max(value * size, 1), 'height': '9', 'rx': '2'}
      _add(svg, 'rect', {**box, 'class': system_class(number)})
      _text(svg, name_width + value * size + 4, y + 8, f'{value:.2f}', 'start', 'faint')
  return _to_text(svg)


def heat_map(
  counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], missed: str, label: str
) -> str:
  """Draw counts as shades of their row's sum, with the share in percent where it is 1 or more.

  Where a row meets the column of its name all is right; the column `missed` has a colour of its own.
  """
  longest = 6.4 * max(map(len, columns))  # pixels of the longest name, which leans over by 60 degrees
  cell, left, top = 30, 166, int(0.87 * longest) + 20
  width, height = left + cell * len(columns) + int(0.5 * longest), top + cell * len(rows) + 8
  svg = _svg(width, height, label, fixed=True)
  for number, name in enumerate(columns):
    x = left + (number + 0.5) * cell + 4
    _text(svg, x, top - 8, name, 'start', 'label', f'rotate(-60 {x:.0f} {top - 8})')
  for row, name in enumerate(rows):
    y, total = top + row * cell, max(sum(counts[row]), 1)
    _text(svg, left - 8, y + cell / 2 + 4, name, 'end', 'label')
    for column, count in enumerate(counts[row]):
      share = count / total
      kind = 'right' if columns[column] == name else 'missed' if columns[column] == missed else 'wrong'
      side = f'{cell - 2}'
      box = {'x': f'{left + column * cell}', 'y': f'{y}', 'width': side, 'height': side, 'rx': '3'}
      as_what = columns[column] if columns[column] == missed else f'detected as {columns[column]}'
      _add(svg, 'rect', {**box, 'class': 'cell'})
      shade = {'class': kind, 'style': f'fill-opacity:{share**0.6:.2f}'}
      _add(svg, 'rect', {**box, **shade}, f'{name}, {as_what}: {count} notes, {share:.1%}')
      if share >= 0.01:
        on = 'on' if share > 0.45 else 'off'
        x = left + (column + 0.5) * cell - 1
        _text(svg, x, y + cell / 2 + 3, f'{100 * share:.0f}', kind=f'share {on}')
  return _to_text(svg)


def frontier(systems: Mapping[str, Sequence[tuple[str, float, float]]], x_label: str, y_label: str) -> str:
  """Draw points (name, x, y), 0..1, of each system, joined in their order; right and up is better."""
  height, size = 330, WIDTH - _LEFT - _RIGHT
  inner = height - _TOP - _BOTTOM
  svg = _svg(WIDTH, height, f'{y_label} vs. {x_label}')
  for part in range(6):
    x, y = _LEFT + part / 5 * size, _TOP + part / 5 * inner
    _line(svg, _LEFT, y, WIDTH - _RIGHT, y)
    _text(svg, _LEFT - 6, y + 4, f'{1 - part / 5:.1f}', 'end')
    _text(svg, x, height - _BOTTOM + 16, f'{part / 5:.1f}')
  for number, points in enumerate(systems.values()):
    places = [(name, _LEFT + x * size, _TOP + (1 - y) * inner, x, y) for name, x, y in points]
    _curve(svg, [(x, y) for _, x, y, _, _ in places], number)
    for name, x, y, a, b in places:
      _dot(svg, x, y, number, f'{name}: {x_label} {a:.3f}, {y_label} {b:.3f}')
  _text(svg, _LEFT + size / 2, height - 6, x_label)
  _text(svg, 12, _TOP + inner / 2, y_label, transform=_upwards(_TOP + inner / 2))
  return _to_text(svg)
