"""A report of scores as one HTML page that needs nothing else: no scripts, no fonts, no files beside it."""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.evaluation import breakdowns, confusion, statistics
from mrmt3.evaluation import summary as evaluation
from mrmt3.notes.note_array import empty_notes
from mrmt3.plots import charts, html_page
from mrmt3.utils import files

PAGE_NAME = 'index.html'
_WORST = 4  # pieces with a piano roll, for each system
_ROLL_SECONDS = 30.0
_ROLL_DPI = 90
_MOST_FAILED = 50

ROWS = {
  'onset_f1': ('Onset F1', 'right pitch, begun within 50 ms'),
  'onset_no_drums_f1': ('Onset F1, no drums', 'the same of pitched notes'),
  'onset_offset_no_drums_f1': ('Onset + offset F1, no drums', 'and ended in time'),
  'onset_program_f1': ('Onset + program F1', 'and on an instrument of the right family'),
  'onset_program_f1_full': ('Onset + program F1, full', 'and with the right program'),
  'onset_offset_program_f1': ('Onset + offset + program F1', 'all of it'),
  'leakage_ratio': ('Leakage ratio', 'instruments heard / instruments that play; 1 is right'),
  'log_leakage_ratio': ('|log leakage ratio|', 'how far from right, either way; 0 is right'),
  'leaked_note_ratio': ('Leaked notes', 'share of notes right but for their instrument; 0 is right'),
  'track_switches_per_minute': ('Track switches a minute', 'a line goes over to another instrument; 0 is right'),
  'instrument_detection_f1': ('Instrument F1', 'which instruments play'),
  'published_leakage_ratio': ('Leakage ratio, as published', 'raw programs, drums among them'),
  'published_instrument_detection_f1': ('Instrument F1, as published', 'raw programs, drums among them'),
}
_CARDS = ('onset_f1', 'onset_program_f1', 'leakage_ratio', 'instrument_detection_f1')


def write(
  folder: Path,
  summaries: Mapping[str, evaluation.Summary],
  references: Mapping,
  systems: Mapping[str, Mapping],
  *,
  title: str,
) -> Path:
  """Writes folder/index.html and returns its path.

  Args:
    folder: made where it is missing.
    summaries: by system, on the same pieces; the others are compared with the first. Six have a colour of their own.
    references: `evaluation_sets.Reference` by piece, for the piano rolls.
    systems: by system and piece, `evaluation_sets.Estimate` or None.
    title: of the page.

  Raises:
    UserError: it cannot be written.
  """
  page = files.make_folder(folder) / PAGE_NAME
  text = render(summaries, references, systems, title)
  with files.atomic_path(page) as temporary:
    temporary.write_text(text, encoding='utf-8')
  return page


def render(summaries, references, systems, title: str) -> str:
  """Returns the page; arguments as `write`'s."""
  count = len(next(iter(summaries.values())).pieces)
  parts = [
    f'<h1>{html.escape(title)}</h1>',
    f'<p class="sub">{count} piece{"" if count == 1 else "s"}; {html.escape(", ".join(summaries))}</p>',
    _keys(summaries),
    *(_cards(name, summary, len(summaries) > 1) for name, summary in summaries.items()),
    _failed(summaries),
    _scores_table(summaries),
    _leakage(summaries),
    _f1(summaries),
    _classes(summaries),
    _confusions(summaries),
    _worst(summaries, references, systems),
    _all_pieces(summaries),
    _EXPLANATION,
  ]
  return html_page.page(f'{title}: transcription scores', parts)


def _keys(summaries):
  if len(summaries) < 2:
    return ''
  keys = (
    f'<span class="key"><i class="{charts.system_class(number)}"></i>{html.escape(name)}</span>'
    for number, name in enumerate(summaries)
  )
  return f'<p>{"".join(keys)}</p>'


def _cards(name, summary, named):
  cells = (
    f'<div class="card"><small>{html.escape(ROWS[key][0])}</small><b>{summary.mean[key]:.3f}</b>{_interval(summary, key)}</div>'
    for key in _CARDS
  )
  heading = f'<h3>{html.escape(name)}</h3>' if named else ''
  return f'{heading}<div class="cards">{"".join(cells)}</div>'


def _interval(summary, key):
  low, high = summary.interval(key)
  return '' if np.isnan(low) else f'<small>{low:.3f} to {high:.3f}</small>'


def _failed(summaries):
  parts = []
  for name, summary in summaries.items():
    failed = list(summary.failed.items())
    if failed:
      items = ''.join(
        f'<li>{html.escape(piece)}: {html.escape(problem)}</li>' for piece, problem in failed[:_MOST_FAILED]
      )
      more = f'<li>and {len(failed) - _MOST_FAILED} more</li>' if len(failed) > _MOST_FAILED else ''
      number = f'{len(failed)} piece{" counts" if len(failed) == 1 else "s count"} as empty'
      parts.append(
        f'<details open><summary class="worse">{html.escape(name)}: {number}</summary><ul>{items}{more}</ul></details>'
      )
  return ''.join(parts)


def _scores_table(summaries):
  (first, base), *others = summaries.items()
  compared = {name: evaluation.compare(base, other, list(ROWS)) for name, other in others}
  head = ''.join(f'<th>{html.escape(name)}</th>' for name in summaries)
  lines = []
  for key, (title, meaning) in ROWS.items():
    cells = [f'<td>{base.mean[key]:.3f}{_interval(base, key)}</td>']
    for name, other in others:
      cells.append(
        f'<td>{other.mean[key]:.3f}{_interval(other, key)}{_verdict(key, base, other, compared[name][key])}</td>'
      )
    lines.append(f'<tr><td>{title}<small>{meaning}</small></td>{"".join(cells)}</tr>')
  versus = (
    f' p is how likely chance alone makes the difference to {html.escape(first)} (paired sign-flip test), of ratios in how far they are from 1.'
    if others
    else ''
  )
  return (
    '<h2>Scores</h2><p class="note">Means over pieces; below them, where the mean lies with 95 % confidence if other pieces of this '
    f'kind are drawn (bootstrap).{versus}</p><div class="wide"><table><thead><tr><th>score</th>{head}</tr></thead><tbody>'
    f'{"".join(lines)}</tbody></table></div>'
  )


def _verdict(key, base, other, test):
  """Returns the p-value, coloured where it is unlikely to be chance that one is better; of ratios, that one is nearer to 1."""
  if key in evaluation.TARGET_ONE:
    # 2/3 and 4/3 are as far away but for a rounding.
    distances = ([round(abs(value - 1), 9) for value in summary.values(key)] for summary in (base, other))
    test = statistics.paired_test(*distances)
  is_better = (test.difference < 0) == (key in (*evaluation.LOWER_IS_BETTER, *evaluation.TARGET_ONE))
  kind = f' class="{"better" if is_better else "worse"}"' if test.p_value < 0.05 else ''
  return f'<small{kind}>p {"&lt; 0.001" if test.p_value < 0.001 else f"= {test.p_value:.3f}"}</small>'


def _leakage(summaries):
  points = {
    name: [(p.name, p.scores['instruments_reference'], p.scores['instruments_estimate']) for p in summary.pieces]
    for name, summary in summaries.items()
  }
  leaked = {
    name: [(piece.name, piece.scores['leaked_note_ratio']) for piece in s.pieces] for name, s in summaries.items()
  }
  by_count = {name: _column(s.by_instruments(['leakage_ratio']), 'leakage_ratio') for name, s in summaries.items()}
  top = float(np.ceil(max(1.0, *(value for own in by_count.values() for value in own.values()))))
  bins = _bins(by_count, breakdowns.INSTRUMENT_LEVELS)
  by_instruments = charts.curves(by_count, bins, 'instruments that play', 'leakage ratio', top)
  figures = [
    html_page.figure('Instruments heard and instruments that play', charts.leakage_scatter(points), 'a dot is a piece'),
    html_page.figure(
      'Leaked notes',
      charts.strips(leaked, 'Share of leaked notes'),
      'share of a piece’s notes; the tick is the mean',
    ),
    html_page.figure('Leakage ratio by number of instruments', by_instruments, '1 is right'),
  ]
  both = f'{figures[0]}<div class="stack">{figures[1]}{figures[2]}</div>'
  return f'<h2>Leakage</h2><p class="note">{_LEAKAGE}</p><div class="grid">{both}</div>'


def _f1(summaries):
  strips = {
    key: charts.strips(
      {n: [(piece.name, piece.scores[key]) for piece in s.pieces] for n, s in summaries.items()}, ROWS[key][0]
    )
    for key in ('onset_f1', 'onset_program_f1')
  }
  levels = {
    name: {level: x.f1 for level, x in breakdowns.level_scores(s.polyphony).items()} for name, s in summaries.items()
  }
  by_count = {
    name: _column(s.by_instruments(['onset_program_f1']), 'onset_program_f1') for name, s in summaries.items()
  }
  bins, counts = _bins(levels, breakdowns.POLYPHONY_LEVELS), _bins(by_count, breakdowns.INSTRUMENT_LEVELS)
  polyphony = charts.curves(levels, bins, 'notes that sound at once', 'onset F1')
  by_instruments = charts.curves(by_count, counts, 'instruments that play', 'onset + program F1')
  figures = [
    *(html_page.figure(ROWS[key][0], strip, 'a dot is a piece; the tick is the mean') for key, strip in strips.items()),
    html_page.figure('Onset F1 by polyphony', polyphony, 'pitched notes of all pieces together'),
    html_page.figure('Onset + program F1 by number of instruments', by_instruments, 'means over pieces'),
  ]
  return f'<h2>Notes</h2><div class="grid">{"".join(figures)}</div>'


def _column(table, name):
  return {level: row[name] for level, row in table.items()}


def _bins(systems, levels):
  return [name for name in breakdowns.level_names(levels) if any(name in own for own in systems.values())]


def _classes(summaries):
  scores = [confusion.class_scores(summary.confusion) for summary in summaries.values()]
  # Only classes that play: what is merely heard has an F1 of 0 and is seen in the confusion.
  reference = next(iter(summaries.values())).confusion.sum(axis=1)
  names = [name for name, notes in zip(confusion.CLASS_NAMES, reference, strict=False) if notes]
  if not names:
    return ''
  rows = {name: [own[name].f1 if name in own else None for own in scores] for name in names}
  means = {name: f'{confusion.macro_f1(summary.confusion):.3f}' for name, summary in summaries.items()}
  macro = ', '.join(f'{mean} ({name})' if len(means) > 1 else mean for name, mean in means.items())
  chart = charts.bars(rows, 'F1 of each instrument')
  note = f'onset, pitch and Slakh class right; notes of all pieces together. Mean over instruments: {macro}'
  return f'<h2>Instruments</h2><div class="grid">{html_page.figure("F1 of each instrument", chart, note)}</div>'


def _confusions(summaries):
  parts = []
  for name, summary in summaries.items():
    matrix = summary.confusion
    rows = [i for i in range(confusion.NOBODY) if matrix[i].sum()]
    columns = [j for j in range(confusion.NOBODY) if matrix[:, j].sum()]
    if not rows:
      continue
    names = (*confusion.CLASS_NAMES, 'not heard')
    shown = [*columns, confusion.NOBODY]
    counts = matrix[np.ix_(rows, shown)].tolist()
    labels = [names[i] for i in rows], [names[j] for j in shown]
    chart = charts.heat_map(counts, *labels, names[-1], 'Confusion of instruments')
    invented = int(matrix[confusion.NOBODY].sum())
    note = f'percent of the notes of each row; besides, {invented:,} notes were heard that nobody plays'
    parts.append(html_page.figure(f'What is heard as what: {name}', chart, note, wide=True))
  return ''.join(parts)


def _worst(summaries, references, systems):
  parts = []
  for name, summary in summaries.items():
    for piece in summary.worst(most=_WORST):
      picture = _roll(references[piece.name], systems[name].get(piece.name))
      scores = ', '.join(f'{ROWS[key][0].lower()} {piece.scores[key]:.3f}' for key in _CARDS)
      who = f'{name}: ' if len(summaries) > 1 else ''
      caption = f'{html.escape(who + piece.name)}<small>{html.escape(scores)}</small>'
      image = (
        f'<img alt="Piano roll of {html.escape(piece.name)}" src="data:image/png;base64,{picture}">' if picture else ''
      )
      parts.append(f'<figure><figcaption>{caption}</figcaption><div class="roll">{image}</div></figure>')
  note = f'Lowest onset + program F1; the first {_ROLL_SECONDS:.0f} seconds, reference above, transcription below.'
  return f'<h2>The worst pieces</h2><p class="note">{note}</p>{"".join(parts)}'


def _roll(reference, estimate) -> str:
  """Returns a picture as base64, '' where the notes can no longer be read."""
  from mrmt3.plots import piano_roll

  try:
    notes = reference.read()
  except UserError:
    return ''
  try:
    said = estimate.read() if estimate else empty_notes()
  except UserError:
    said = empty_notes()
  end = float(max(notes['offset'].max(initial=0), said['offset'].max(initial=0), 1.0))
  figure = piano_roll.piano_roll(None, notes, said, seconds=min(end, _ROLL_SECONDS))
  file = io.BytesIO()
  figure.savefig(file, format='png', dpi=_ROLL_DPI)
  return base64.b64encode(file.getvalue()).decode()


def _all_pieces(summaries):
  which = {name: f'<small>{html.escape(name)}</small>' if len(summaries) > 1 else '' for name in summaries}
  head = ''.join(f'<th>{html.escape(ROWS[key][0])}{which[name]}</th>' for name in summaries for key in _CARDS)
  rows = zip(*(summary.pieces for summary in summaries.values()), strict=True)
  lines = []
  for results in rows:
    cells = ''.join(f'<td>{result.scores[key]:.3f}</td>' for result in results for key in _CARDS)
    lines.append(f'<tr><td>{html.escape(results[0].name)}</td>{cells}</tr>')
  return (
    '<h2>All pieces</h2><details><summary>Scores of each piece</summary><div class="wide"><table><thead><tr><th>piece</th>'
    f'{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div></details>'
  )


_LEAKAGE = (
  'A note leaks when it is heard right but given to an instrument that does not play it. Many leaked notes make instruments '
  'appear that are not in the music: then more are heard than play.'
)
_EXPLANATION = """<h2>What is counted</h2>
<p>Two notes match when their pitch is the same and their onsets are within 50 ms (mir_eval); where ends count, these must be within the
larger of 50 ms and a fifth of the note. Instruments are the 34 classes of Slakh, on both sides, and drums; “as published” counts raw
program numbers, drums among them, as MR-MT3’s script does. Every score is computed per piece, then averaged; a piece that was not
transcribed counts as an empty one. What is by polyphony or by instrument pools the notes of all pieces.</p>"""
