"""Measures the page of `mrmt3 serve` in a browser: first paint, and the longest tasks with many notes.

  python benchmarks/page_speed.py --notes 10000 [--browser /usr/bin/chromium]

A song of that many notes is opened, played, scrolled, zoomed and edited. The browser's own trace has every task of the
page's main thread. Times are of the processor, so that other work on the machine does not count.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from mrmt3.notes.note_array import empty_notes, sort_notes
from mrmt3.web import jobs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests'))
from serving import serving, wav

SECONDS = 240.0
CATEGORIES = 'devtools.timeline,disabled-by-default-devtools.timeline,toplevel'
SETTLE_MS = 1500


def many_notes(count: int) -> np.ndarray:
  """Return random notes of eight instruments and drums in `SECONDS`."""
  rng = np.random.default_rng(0)
  notes = empty_notes(count)
  notes['onset'] = rng.random(count) * SECONDS
  notes['offset'] = notes['onset'] + 0.05 + rng.random(count)
  notes['pitch'] = rng.integers(30, 90, count)
  notes['velocity'] = 100
  notes['program'] = rng.choice([0, 4, 26, 33, 48, 52, 61, 73], count)
  notes['is_drum'] = rng.random(count) < 0.1
  notes['program'][notes['is_drum']] = 0
  return sort_notes(notes)


def tasks_during(browser, page, action) -> list[float]:
  """Return the lengths of the tasks of the page's main thread during an action, longest first, ms."""
  browser.start_tracing(page=page, categories=CATEGORIES.split(','))
  action()
  page.wait_for_timeout(SETTLE_MS)
  events = json.loads(browser.stop_tracing())['traceEvents']
  mains = {
    (event['pid'], event['tid'])
    for event in events
    if event.get('name') == 'thread_name' and event['args'].get('name') == 'CrRendererMain'
  }
  # Script and layout of a frame are inside FireAnimationFrame, EventDispatch, Layout and the like.
  names = {'FireAnimationFrame', 'EventDispatch', 'Layout', 'UpdateLayoutTree', 'FunctionCall', 'TimerFire'}
  found = [
    event.get('tdur', event['dur']) / 1000
    for event in events
    if event.get('ph') == 'X' and (event['pid'], event['tid']) in mains and event['name'] in names
  ]
  return sorted(found, reverse=True)


def main() -> None:
  """Measure and print."""
  from playwright.sync_api import sync_playwright

  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--notes', type=int, default=10000)
  parser.add_argument('--browser', default=shutil.which('chromium'))
  args = parser.parse_args()
  with serving(data=tempfile.mkdtemp()) as (client, server), sync_playwright() as playwright:
    folder = server.store.new_folder()
    (folder / 'audio').write_bytes(wav(SECONDS))
    job = jobs.Job('many.wav', folder, jobs.Options(), seconds=SECONDS)
    job.add(many_notes(args.notes), SECONDS)
    job.finish(jobs.DONE)
    server.worker._jobs[job.id] = job
    browser = playwright.chromium.launch(
      executable_path=args.browser, args=['--no-sandbox', '--autoplay-policy=no-user-gesture-required']
    )
    page = browser.new_page(viewport={'width': 1440, 'height': 900})
    page.goto(str(client.base_url))
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f'first contentful paint: {paint:.0f} ms')
    page.goto(f'{client.base_url}#{job.id}')
    page.reload()
    page.wait_for_selector('#song[data-sound=ready]', timeout=300_000)
    box = page.locator('#canvas').bounding_box()
    page.mouse.move(box['x'] + 300, box['y'] + 200)

    def scroll():
      for _ in range(60):
        page.mouse.wheel(200, 0)
        page.wait_for_timeout(16)

    def hover():
      for step in range(60):
        page.mouse.move(box['x'] + 100 + 5 * step, box['y'] + 100 + 3 * step)

    def zoom(key):
      return lambda: [page.keyboard.press(key) for _ in range(6)]

    page.locator('#scroller').focus()
    for name, action in (
      ('play', lambda: page.keyboard.press(' ')),
      ('pause', lambda: page.keyboard.press(' ')),
      ('scroll', scroll),
      ('hover', hover),
      ('zoom out to the whole song', zoom('-')),
      ('zoom in', zoom('+')),
      ('select all', lambda: page.keyboard.press('a')),
      ('move all', lambda: page.keyboard.press('ArrowUp')),
      ('undo', lambda: page.keyboard.press('Control+z')),
      ('mute', lambda: page.keyboard.press('1')),
    ):
      tasks = tasks_during(browser, page, action)
      print(f'{name}: longest {", ".join(f"{length:.1f}" for length in tasks[:3])} ms of {len(tasks)}', flush=True)
    browser.close()


if __name__ == '__main__':
  main()
