"""The code blocks of a page of documentation, for tests that run them."""

import re
from pathlib import Path


def code_blocks(page: Path, heading: str) -> list[str]:
  """Returns the Python blocks of a page's section, in order.

  Args:
    page: a Markdown file.
    heading: text of the section's heading (##); the section ends at the next one.

  Raises:
    ValueError: there is no such section.
  """
  sections = re.split(r'^## (.+)$', page.read_text(), flags=re.MULTILINE)
  named = dict(zip(sections[1::2], sections[2::2], strict=True))
  if heading not in named:
    raise ValueError(f'{page} has no section {heading!r}; it has {", ".join(named)}')
  return re.findall(r'^```python\n(.*?)^```$', named[heading], flags=re.MULTILINE | re.DOTALL)
