"""HTML pages from Jinja2 templates, with one style sheet: light and dark, from a phone's width up.

A page's template is in the folder `templates` of the package that writes it, and may use those of this package:
page.html (the frame), parts.html (figures, tables) and style.css. Values are escaped, except charts, which are SVG text
already.
"""

import functools
from typing import NamedTuple

from mrmt3.plots import charts
from mrmt3.utils import console


class Figure(NamedTuple):
  """A chart with its caption.

  Attributes:
    title: first line of the caption.
    svg: the chart, see `charts`.
    note: second line of the caption.
    keys: what its colours stand for, in their order; empty for no legend.
  """

  title: str
  svg: str
  note: str = ''
  keys: tuple[str, ...] = ()


def render(package: str, template: str, **values) -> str:
  """Return a page that needs no other file.

  Args:
    package: the package whose folder `templates` holds the template, such as 'mrmt3.evaluation'.
    template: its file name.
    **values: the template's variables; one that is missing is an error (jinja2.UndefinedError).
  """
  return _environment(package).get_template(template).render(values)


def style() -> str:
  """Return the style sheet, for charts in files of their own."""
  return _environment(__package__).get_template('style.css').render()


def _readable(value):
  """Escape what a name may hide; text that is HTML already has no names that are not escaped."""
  return console.printable(value) if type(value) is str else value


@functools.cache
def _environment(package):
  import jinja2

  loaders = [jinja2.PackageLoader(name) for name in dict.fromkeys((package, __package__))]
  environment = jinja2.Environment(
    loader=jinja2.ChoiceLoader(loaders),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_readable,
  )
  environment.globals |= {'colors': charts.COLORS, 'system_class': charts.system_class}
  return environment
