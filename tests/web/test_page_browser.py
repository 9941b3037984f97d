"""The page in a real browser: from a dropped file to an exported MIDI file."""

import base64
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from browser import find_browser
from serving import FakeTranscriber, finished, notes_of_second, serving, submit, wav

from mrmt3.notes.midi import midi_bytes
from mrmt3.notes.note_array import NOTE_DTYPE, sort_notes
from mrmt3.web import song_page

SECONDS = 12
DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const moved = new DataTransfer();
  moved.items.add(new File([bytes], name, {type: 'audio/wav'}));
  document.getElementById('drop').dispatchEvent(
    new DragEvent('drop', {dataTransfer: moved, bubbles: true, cancelable: true}));
}"""
GAINS = """() => {
  const player = mrmt3.view.player;
  const tracks = Object.fromEntries([...player.tracks].map(([key, track]) => [key, track.gain.gain.value]));
  return {...tracks, original: player.originalGain.gain.value, mix: player.mixGain.gain.value};
}"""
AXE = os.environ.get('MRMT3_AXE')  # axe.min.js of the npm package axe-core


@pytest.fixture(scope='module')
def chromium():
  path = find_browser()
  sync_api = pytest.importorskip('playwright.sync_api')
  with sync_api.sync_playwright() as playwright:
    # No sandbox: tests may run as root, and the page is ours.
    options = ['--no-sandbox', '--disable-gpu', '--autoplay-policy=no-user-gesture-required']
    options += ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']
    browser = playwright.chromium.launch(executable_path=path, args=options)
    yield browser
    browser.close()


@pytest.fixture
def new_page(chromium):
  """Opens pages; at the end, the browser must have had nothing to complain about."""
  contexts, complaints = [], []

  def listen(message):
    if message.type == 'error' and not message.text.startswith('Failed to load resource'):  # answers with a status
      complaints.append(message.text)

  def make(width=1440, height=900, scheme='light'):
    context = chromium.new_context(viewport={'width': width, 'height': height}, color_scheme=scheme)
    contexts.append(context)
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.on('console', listen)
    return page

  yield make
  for context in contexts:
    context.close()
  assert complaints == []


@pytest.fixture
def served():
  with serving(FakeTranscriber(delay=0.08)) as (client, _):
    yield client


@pytest.fixture(scope='module')
def expected():
  return sort_notes(np.concatenate([notes_of_second(second) for second in range(SECONDS)]))


def drop(page, name='song.wav', seconds=SECONDS):
  page.evaluate(DROP, [base64.b64encode(wav(seconds)).decode(), name])


def wait(check, what, seconds=20):
  end = time.monotonic() + seconds
  while not check():
    assert time.monotonic() < end, what
    time.sleep(0.05)


def exported(page, kind):
  with page.expect_download() as download:
    page.click(f'[data-kind={kind}]')
  return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_from_drop_to_export(new_page, served, expected):
  page = new_page()
  page.goto(str(served.base_url))
  drop(page)
  page.wait_for_selector('#song:not([hidden])')
  counts = []
  while page.evaluate('!mrmt3.view.isDone'):
    counts.append(page.evaluate('mrmt3.view.roll.notes.length'))
    time.sleep(0.05)
  assert len(set(counts)) >= 4 and counts == sorted(counts) and counts[0] < len(expected)  # the roll grows
  page.wait_for_selector('#song[data-sound=ready]')
  assert '48 notes, 4 instruments' in page.text_content('#song-facts')
  (job,) = served.get('/api/jobs').json()['jobs']
  name, midi = exported(page, 'midi')
  assert name == 'song.mid' and midi == midi_bytes(expected) == served.get(f'/api/jobs/{job["id"]}/midi').content

  page.click('#play')
  wait(lambda: page.evaluate('mrmt3.view.player.position') > 0.5, 'it does not play')
  page.click('li[data-key="33"] .mute')
  wait(lambda: page.evaluate(GAINS)['33'] < 0.01, 'not muted')
  assert page.evaluate(GAINS)['0'] > 0.99
  page.click('li[data-key="48"] .solo')
  wait(lambda: page.evaluate(GAINS)['0'] < 0.01 and page.evaluate(GAINS)['48'] > 0.99, 'not alone')
  page.click('li[data-key="48"] .solo')
  page.locator('#fade').fill('0')
  wait(lambda: page.evaluate(GAINS)['original'] > 0.99 and page.evaluate(GAINS)['mix'] < 0.01, 'no crossfade')
  page.locator('#fade').fill('1')
  wait(lambda: page.evaluate(GAINS)['original'] < 0.01 and page.evaluate(GAINS)['mix'] > 0.99, 'no crossfade')
  frame = page.locator('#canvas').bounding_box()
  page.mouse.click(frame['x'] + 300, frame['y'] + 10)  # 60 px a second
  assert 4.9 < page.evaluate('mrmt3.view.player.position') < 5.6
  page.mouse.move(frame['x'] + 60, frame['y'] + 10)
  page.mouse.down()
  page.mouse.move(frame['x'] + 120, frame['y'] + 10, steps=4)
  page.mouse.up()
  assert page.is_checked('#loop')
  time.sleep(1.5)
  assert 1 <= page.evaluate('mrmt3.view.player.position') <= 2
  page.click('#play')

  page.select_option('li[data-key="33"] select', '32')  # relabel
  page.wait_for_selector('li[data-key="32"]')
  page.wait_for_selector('#song[data-sound=ready]')
  relabelled = expected.copy()
  relabelled['program'][(expected['program'] == 33)] = 32
  assert exported(page, 'midi')[1] == midi_bytes(sort_notes(relabelled))
  page.select_option('li[data-key="32"] select', '0')  # merge
  assert page.locator('#tracks li').count() == 3
  page.click('#undo')
  page.click('#undo')
  assert exported(page, 'midi')[1] == midi_bytes(expected)
  page.click('#redo')
  page.reload()
  page.wait_for_selector('#song[data-sound=ready]')
  assert exported(page, 'midi')[1] == midi_bytes(sort_notes(relabelled))  # edits are kept
  page.click('#revert')

  for kind, begin in (('musicxml', b'<?xml'), ('csv', b'onset,'), ('json', b'{'), ('sound', b'fLaC')):
    assert exported(page, kind)[1].startswith(begin)
  page.click('#sheet-button')
  page.wait_for_selector('#sheet img, #sheet p:has-text("verovio")')


def test_memory_switch(new_page, served, expected):
  page = new_page()
  page.goto(str(served.base_url))
  drop(page)
  page.wait_for_selector('#song[data-sound=ready]')
  page.click('#memory')
  page.wait_for_selector('#memory-text:has-text("changed hands")')
  text = page.text_content('#memory-text')
  assert text.startswith('4 instruments with memory, 5 without. 6 of 48 notes changed hands (outlined).')
  assert 'frame-level model' in text
  assert page.locator('#tracks li').count() == 5 and page.locator('#jobs li').count() == 1
  page.click('#memory')
  assert page.locator('#tracks li').count() == 4
  page.fill('#only', 'piano,bass')
  page.click('#again')
  wait(lambda: page.locator('#jobs li').count() == 2, 'not decoded again')
  page.wait_for_selector('#jobs li:first-child .state:has-text("only piano,bass")')


def test_keyboard_only(new_page, served, expected):
  page = new_page()
  page.goto(str(served.base_url))
  submit(served, wav(SECONDS), 'song.wav')
  page.reload()
  page.wait_for_selector('.open-song')
  for _ in range(30):
    page.keyboard.press('Tab')
    if page.evaluate('document.activeElement.className') == 'open-song':
      break
  page.keyboard.press('Enter')
  page.wait_for_selector('#song[data-sound=ready]')
  for _ in range(40):
    page.keyboard.press('Tab')
    if page.evaluate('document.activeElement.id') == 'scroller':
      break
  assert page.evaluate('document.activeElement.id') == 'scroller'
  page.keyboard.press(' ')
  wait(lambda: page.evaluate('mrmt3.view.player.position') > 0.3, 'it does not play')
  page.keyboard.press(' ')
  page.keyboard.press('Home')
  page.keyboard.press('n')
  assert '1 note selected' in page.text_content('#selection')
  page.keyboard.press('ArrowUp')
  page.keyboard.press('ArrowRight')
  page.keyboard.press('Shift+ArrowRight')
  moved = expected.copy()
  moved['pitch'][0] += 1
  moved['onset'][0] += 0.11
  first = page.evaluate('mrmt3.view.song.notes.find((note) => note.id === 0)')
  assert first['pitch'] == 51 and first['onset'] == pytest.approx(0.11)
  page.keyboard.press('Delete')
  assert '47 notes' in page.text_content('#song-facts')
  for _ in range(4):
    page.keyboard.press('Control+z')
  assert exported(page, 'midi')[1] == midi_bytes(expected)
  page.keyboard.press('Escape')
  page.keyboard.press('Shift+2')
  assert page.get_attribute('li[data-key="33"] .solo', 'aria-pressed') == 'true'
  page.keyboard.press('?')
  assert page.is_visible('#keys')
  page.keyboard.press('Escape')
  assert not page.is_visible('#keys')


@pytest.mark.parametrize('width', [390, 1440])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_fits_and_is_accessible(new_page, served, width, scheme):
  page = new_page(width, 844, scheme)
  job = finished(served, submit(served, wav(SECONDS), 'a_file_with_a_very_long_name_without_any_space_in_it.wav'))
  page.goto(f'{served.base_url}#{job["id"]}')
  page.wait_for_selector('#song[data-sound=ready]')
  assert page.evaluate('document.documentElement.scrollWidth - innerWidth') <= 0
  background = page.evaluate('getComputedStyle(document.body).backgroundColor')
  assert (background == 'rgb(255, 255, 255)') == (scheme == 'light')
  small = page.evaluate("""() => [...document.querySelectorAll('button, select, input')]
    .filter((element) => element.checkVisibility() && element.id !== 'files')
    .map((element) => [element.id || element.className, element.getBoundingClientRect()])
    .filter(([, box]) => box.height < 12 || box.width < 12).map(([name]) => name)""")
  assert small == []
  if AXE is None:
    pytest.skip('axe-core is not named: MRMT3_AXE=axe.min.js (npm install axe-core)')
  page.evaluate(Path(AXE).read_text())
  found = page.evaluate('axe.run()')
  serious = [
    (one['id'], [node['html'] for node in one['nodes']])
    for one in found['violations']
    if one['impact'] in ('serious', 'critical')
  ]
  assert serious == [] and len(found['passes']) > 20


def test_recording(new_page, served):
  page = new_page()
  page.goto(str(served.base_url))
  page.click('#record')
  page.wait_for_selector('#record[aria-pressed=true]')
  time.sleep(1.2)
  page.click('#record')
  page.wait_for_selector('#song[data-sound=ready]')
  (job,) = served.get('/api/jobs').json()['jobs']
  assert job['state'] == 'done' and 0.8 < job['seconds'] < 4 and job['name'].startswith('recording')
  assert not job['is_silent']  # the fake device beeps


def test_refused_files_are_explained(new_page, served):
  page = new_page()
  page.goto(str(served.base_url))
  name = '<img src=x onerror=alert(1)>.wav'
  page.evaluate(DROP, [base64.b64encode(b'no audio').decode(), name])
  page.wait_for_selector('#jobs .state.bad')
  assert 'cannot read' in page.text_content('#jobs .state.bad') and page.locator('#jobs img').count() == 0
  page.click('#jobs .remove')
  assert page.locator('#jobs li').count() == 0


@pytest.mark.parametrize('has_confidence', [False, True])
def test_single_file(new_page, expected, tmp_path, monkeypatch, has_confidence):
  notes = expected
  if has_confidence:
    descr = [column for column in NOTE_DTYPE.descr if column[0] != 'confidence']
    notes = np.zeros(len(expected), np.dtype([*descr, ('confidence', np.float32)]))
    for field, _ in descr:
      notes[field] = expected[field]
    notes['confidence'] = np.where(np.arange(len(notes)) % 2, 0.25, 0.75)
  (tmp_path / 'song.wav').write_bytes(wav(SECONDS))
  name = '</script><script>alert(1)</script> & "song".wav'
  song_page.write(tmp_path / 'song.html', notes, float(SECONDS), name, tmp_path / 'song.wav')
  page = new_page()
  requests = []
  page.on('request', lambda request: requests.append(request.url))
  page.goto(f'file://{tmp_path}/song.html')
  page.wait_for_selector('#song[data-sound=ready]')
  assert [url for url in requests if not url.startswith('data:')] == [f'file://{tmp_path}/song.html']
  assert page.text_content('#song-name') == name and page.locator('#tracks li').count() == 4
  page.click('#play')
  wait(lambda: page.evaluate('mrmt3.view.player.position') > 0.3, 'it does not play')
  page.click('li[data-key="33"] .mute')
  wait(lambda: page.evaluate(GAINS)['33'] < 0.01, 'not muted')
  assert exported(page, 'midi')[1] == midi_bytes(expected)
  assert page.is_disabled('#confidence') != has_confidence
  assert page.is_visible('#confidence-reason') != has_confidence
  if has_confidence:
    page.locator('#confidence').fill('0.5')
    assert '24 notes' in page.text_content('#song-facts')
    assert len(json.loads(exported(page, 'json')[1])['notes']) == 24
  assert page.evaluate('document.documentElement.scrollWidth - innerWidth') <= 0
