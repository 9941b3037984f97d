"""Code blocks of the documentation, so that tests can run them."""

import re
import textwrap
from pathlib import Path


def code_blocks(page: Path, heading: str) -> list[str]:
  """Returns the fenced code blocks of a section, in order, without their indentation.

  Raises:
    ValueError: the page has no such heading.
  """
  text = page.read_text(encoding='utf-8')
  sections = re.split(r'^## (.+)$', text, flags=re.MULTILINE)
  found = dict(zip(sections[1::2], sections[2::2], strict=True))
  if heading not in found:
    raise ValueError(f'{page}: no section {heading!r}')
  blocks = re.findall(r'^( *)```\w*\n(.*?)^\1```$', found[heading], flags=re.MULTILINE | re.DOTALL)
  return [textwrap.dedent(block) for _, block in blocks]
