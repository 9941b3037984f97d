"""Pages of MusicXML: PDF through MuseScore, SVG through verovio."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_path

MUSESCORE = ('mscore', 'musescore', 'mscore4portable', 'musescore4', 'musescore3', 'mscore3')
_TIMEOUT_SECONDS = 300
_PAGE = {'pageWidth': 2100, 'pageHeight': 2970, 'scale': 40, 'footer': 'none', 'breaks': 'auto'}


def musescore() -> str | None:
  """Return the path of the MuseScore program; None if it is not installed."""
  return next((path for name in MUSESCORE if (path := shutil.which(name))), None)


def check_pdf() -> None:
  """Raise UserError if MuseScore is missing."""
  if musescore() is None:
    raise UserError(
      '--pdf needs MuseScore; install it (Debian: apt-get install musescore3), or use --svg or --musicxml'
    )


def check_svg() -> None:
  """Raise UserError if verovio is missing."""
  try:
    import verovio  # noqa: F401
  except ModuleNotFoundError as error:
    raise UserError("--svg needs verovio; install it with: pip install 'mrmt3[score]'") from error


def write_pdf(musicxml: str, path: str | os.PathLike) -> None:
  """Engrave MusicXML text as a PDF file; UserError if MuseScore is missing or fails."""
  check_pdf()
  with tempfile.TemporaryDirectory(prefix='mrmt3-score-') as folder, atomic_path(path) as temporary:
    source, target = Path(folder) / 'sheet.musicxml', Path(folder) / 'sheet.pdf'
    source.write_text(musicxml, encoding='utf-8')
    environment = {**os.environ, 'QT_QPA_PLATFORM': 'offscreen', 'XDG_RUNTIME_DIR': folder}
    command = [musescore(), '-o', str(target), str(source)]
    try:
      done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
      )
    except (OSError, subprocess.TimeoutExpired) as error:
      raise UserError(f'{path}: MuseScore failed ({type(error).__name__}); try --svg instead') from error
    if done.returncode or not target.is_file():
      reason = ' '.join(done.stderr.decode(errors='replace').split())[-120:]
      raise UserError(f'{path}: MuseScore failed ({reason or f"code {done.returncode}"}); try --svg instead')
    shutil.copyfile(target, temporary)


def write_svg(musicxml: str, path: str | os.PathLike) -> None:
  """Engrave MusicXML text as one SVG file with its pages below each other; UserError if verovio is missing or fails."""
  text = svg(musicxml)
  with atomic_path(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


def svg(musicxml: str) -> str:
  """Return MusicXML text engraved as SVG text; see `write_svg`."""
  pages = svg_pages(musicxml)
  sizes = [
    tuple(float(size) for size in re.search(r'width="([\d.]+)px" height="([\d.]+)px"', page).groups()) for page in pages
  ]
  width, height = max(size[0] for size in sizes), sum(size[1] for size in sizes)
  out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" style="background:white">']
  top = 0.0
  for page, size in zip(pages, sizes, strict=True):
    page = page[page.index('<svg') :]
    out.append(page.replace('<svg', f'<svg y="{top:.0f}"', 1))
    top += size[1]
  return '\n'.join([*out, '</svg>\n'])


def svg_pages(musicxml: str) -> list[str]:
  """Return each page as SVG text; UserError if verovio is missing or cannot read the text."""
  check_svg()
  import verovio

  verovio.enableLog(verovio.LOG_OFF)
  toolkit = verovio.toolkit()
  toolkit.setOptions(_PAGE)
  if not toolkit.loadData(musicxml):
    raise UserError('verovio could not engrave the score; try --musicxml and another program')
  return [toolkit.renderToSVG(page) for page in range(1, toolkit.getPageCount() + 1)]
