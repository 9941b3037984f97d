"""The pages of reports: their frame, and their style sheet, light and dark, from a phone's width up."""

import html
import string
from collections.abc import Iterable

from mrmt3.plots.charts import COLORS

_TEMPLATE = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>$title</title><style>$style</style></head><body><main>
$body
</main></body></html>
""")

_RULES = """
:root {
  --ink: #1f2328; --faint: #656d76; --line: #d8dee4; --paper: #fff; --panel: #f6f8fa; --good: #2b8a3e; --bad: #d9480f;
  --s0: #2563eb; --s1: #d9480f; --s2: #2b8a3e; --s3: #9c36b5; --s4: #0b7285; --s5: #a61e4d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --paper: #0d1117; --panel: #161b22; --good: #51cf66; --bad: #ff922b;
    --s0: #6ea8fe; --s1: #ff922b; --s2: #69db7c; --s3: #da77f2; --s4: #3bc9db; --s5: #f783ac;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.2rem; margin: 44px 0 6px; }
h3 { font-size: 1rem; margin: 20px 0 4px; }
p { margin: 4px 0 12px; max-width: 70ch; }
.sub, .note { color: var(--faint); }
.note { font-size: .9rem; }
.grid, .stack { display: grid; gap: 16px; align-items: start; }
.grid { grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 12px 0; }
.card, figure { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px; margin: 0; }
figure + figure, .grid + figure { margin-top: 16px; }
.grid figure + figure, .stack figure + figure { margin-top: 0; }
.card b { display: block; font-size: 1.6rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card small { color: var(--faint); }
figcaption { font-weight: 600; margin-bottom: 8px; overflow-wrap: anywhere; }
figcaption small { display: block; font-weight: 400; color: var(--faint); }
svg { display: block; width: 100%; max-width: 560px; height: auto; margin: 0 auto; }
.wide, .roll { overflow-x: auto; }
.wide svg { max-width: none; margin: 0; }
.roll img { display: block; width: 100%; min-width: 640px; height: auto; background: #fff; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9.5em; }
td small, th small { display: block; color: var(--faint); font-weight: 400; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
.better, td small.better { color: var(--good); }
.worse, td small.worse { color: var(--bad); }
details { margin: 12px 0; }
summary { cursor: pointer; font-weight: 600; padding: 8px 0; }
li { margin: 2px 0; overflow-wrap: anywhere; }
.key { display: inline-block; margin: 0 14px 6px 0; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
text { font: 12px system-ui, sans-serif; fill: var(--ink); }
text.axis, text.faint { fill: var(--faint); }
text.faint { font-size: 11px; }
text.share { font-size: 10.5px; }
text.on { fill: var(--paper); }
line.grid { stroke: var(--line); }
line.diagonal { stroke: var(--faint); stroke-dasharray: 4 4; }
line.mean { stroke: var(--ink); stroke-width: 2; }
.dot { fill-opacity: .75; stroke: var(--paper); stroke-width: 1; }
.cell { fill: var(--line); fill-opacity: .45; }
.right { fill: var(--good); }
.wrong { fill: var(--bad); }
.missed { fill: var(--faint); }
"""
_COLOR = """
.s{n} {{ fill: var(--s{n}); }}
.s{n}.again {{ fill: var(--panel); stroke: var(--s{n}); stroke-width: 2; }}
.curve.s{n} {{ fill: none; stroke: var(--s{n}); stroke-width: 2.2; }}
.curve.s{n}.again {{ stroke-dasharray: 6 4; }}
i.s{n} {{ background: var(--s{n}); }}
i.s{n}.again {{ background: none; border: 2px solid var(--s{n}); }}
"""
STYLE = _RULES + ''.join(_COLOR.format(n=n) for n in range(COLORS))


def page(title: str, parts: Iterable[str]) -> str:
  """Returns a page that needs no other file; `parts` are HTML, empty ones are left out."""
  return _TEMPLATE.substitute(title=html.escape(title), style=STYLE, body='\n'.join(part for part in parts if part))


def figure(title: str, chart: str, note: str = '', wide: bool = False) -> str:
  """Returns a chart (HTML) with its caption; a wide one scrolls."""
  chart = f'<div class="wide">{chart}</div>' if wide else chart
  return f'<figure><figcaption>{html.escape(title)}<small>{html.escape(note)}</small></figcaption>{chart}</figure>'
