"""The report in a real browser: no overflow on a phone, images load, text is legible, and nothing is fetched."""

import json
import re
import subprocess

import numpy as np
import pytest
from browser import find_browser
from evaluate_command import piece, run
from matplotlib.image import imread

from mrmt3.notes.midi import write_midi

# The page is in a frame, which can be as narrow as a phone, unlike a window.
PROBE = """<!doctype html><html><body style="margin:0">
<iframe id="f" style="border:0;width:%(width)dpx;height:2000px"></iframe>
<pre id="found"></pre><script>
const frame = document.getElementById('f');
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  const sizes = [...page.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height);
  const narrow = [...page.querySelectorAll('svg')].filter(svg => !svg.closest('.wide'));
  const out = narrow.filter(svg => svg.getBoundingClientRect().right > %(width)d);
  const cut = [...page.querySelectorAll('svg text')].filter(t => {
    const own = t.getBoundingClientRect(), box = t.ownerSVGElement.getBoundingClientRect();
    return own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1;
  });
  document.getElementById('found').textContent = JSON.stringify({
    overflow: root.scrollWidth - root.clientWidth, smallest: Math.min(...sizes), texts: sizes.length, out: out.length,
    cut: cut.map(t => t.textContent), images: [...page.images].map(i => i.complete && i.naturalWidth),
    fetched: frame.contentWindow.performance.getEntriesByType('resource')
      .filter(r => !r.name.startsWith('data:')).length,
    h2: page.querySelectorAll('h2').length,
  });
};
frame.srcdoc = %(page)s;
</script></body></html>"""


@pytest.fixture(scope='module')
def browser():
  return find_browser()


@pytest.fixture(scope='module')
def report(tmp_path_factory):
  """A report of two systems on five pieces with many instruments, one of them not transcribed, with long names."""
  folder = tmp_path_factory.mktemp('report')
  rng = np.random.default_rng(0)
  for number in range(5):
    notes = np.concatenate(
      [piece(program=program, pitches=range(40 + number, 70, 3)) for program in (0, 29, 33, 40, 52, 64)]
    )
    leaked = notes.copy()
    leaked['program'] = np.where(
      rng.random(len(notes)) < 0.3, rng.choice([26, 46, 60, 73], len(notes)), leaked['program']
    )
    name = f'a_piece_with_a_long_name_{number}'
    write_midi(notes, folder / 'ref' / f'{name}.mid')
    write_midi(notes, folder / 'right' / f'{name}.mid')
    if number:
      write_midi(leaked, folder / 'a system that leaks' / f'{name}.mid')
  run(folder / 'ref', folder / 'right', folder / 'a system that leaks', '--report', folder / 'page')
  return folder / 'page' / 'index.html'


def _chromium(browser, *arguments):
  # No sandbox: tests may run as root, and the page is ours.
  command = [
    browser,
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--hide-scrollbars',
    '--virtual-time-budget=10000',
    *arguments,
  ]
  result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
  assert result.returncode == 0, result.stderr[-2000:]
  return result.stdout


@pytest.mark.parametrize('width', [360, 1200])
def test_fits_and_can_be_read(browser, report, tmp_path, width):
  probe = tmp_path / 'probe.html'
  page = json.dumps(report.read_text()).replace('</', '<\\/')
  probe.write_text(PROBE % {'width': width, 'page': page})
  dom = _chromium(browser, '--dump-dom', f'--window-size={max(width, 600)},2000', f'file://{probe}')
  found = re.search(r'<pre id="found">(.+?)</pre>', dom, re.DOTALL)
  assert found, dom[-1000:]
  found = json.loads(found[1].replace('&amp;', '&').replace('&lt;', '<'))
  assert found['overflow'] <= 0 and found['out'] == 0 and found['cut'] == []
  assert found['texts'] > 100 and found['smallest'] >= 9  # px
  assert len(found['images']) == 8 and all(found['images']) and found['fetched'] == 0 and found['h2'] == 7


def test_is_painted_in_light_and_dark(browser, report, tmp_path):
  brightness = {}
  for theme, more in (('light', ()), ('dark', ('--blink-settings=preferredColorScheme=0',))):
    picture = tmp_path / f'{theme}.png'
    _chromium(browser, f'--screenshot={picture}', '--window-size=1200,2400', *more, f'file://{report}')
    pixels = imread(picture)[..., :3]
    assert (
      pixels.shape[:2] == (2400, 1200) and len(np.unique((pixels * 255).astype(np.uint8).reshape(-1, 3), axis=0)) > 100
    )
    brightness[theme] = float(np.median(pixels))
  assert brightness['light'] > 0.9 and brightness['dark'] < 0.2
