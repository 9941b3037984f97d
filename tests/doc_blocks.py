"""The code blocks of a page of documentation, for tests that run them."""

import re
import textwrap
from pathlib import Path


def code_blocks(page: Path, heading: str, language: str = r'\w*') -> list[str]:
  """Return the fenced code blocks of a page's section, in order, without their indentation.

  Args:
    page: a Markdown file.
    heading: text of the section's heading (##); the section ends at the next one.
    language: of the blocks, a regular expression; by default any or none.

  Raises:
    ValueError: there is no such section.
  """
  sections = re.split(r'^## (.+)$', page.read_text(encoding='utf-8'), flags=re.MULTILINE)
  named = dict(zip(sections[1::2], sections[2::2], strict=True))
  if heading not in named:
    raise ValueError(f'{page} has no section {heading!r}; it has {", ".join(named)}')
  blocks = re.findall(rf'^( *)```{language}\n(.*?)^\1```$', named[heading], flags=re.MULTILINE | re.DOTALL)
  return [textwrap.dedent(block) for _, block in blocks]
