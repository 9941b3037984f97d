"""Draws training.svg of the logs beside this file: python docs/model-card/plot.py"""

import json
from pathlib import Path

import matplotlib

matplotlib.use('svg')
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
STAGES = ('frames', 'model')
EXAMPLES_A_STEP = 16
PANELS = (
  ('loss per token, nats', (('loss', 'all'), ('frame_loss', 'frame loss'))),
  (
    'share right, of true tokens',
    (('accuracy/time', 'time'), ('accuracy/pitch', 'pitch'), ('accuracy/program', 'program'), ('accuracy/drum', 'drum')),
  ),
)


def read(name: str) -> list[dict]:
  """Returns a log's records, one for each line."""
  return [json.loads(line) for line in (HERE / f'{name}.jsonl').read_text().splitlines()]


def main() -> None:
  """Writes training.svg: left the losses of both stages, right what the second gets right; dots are the validation set's."""
  plt.rcParams['svg.hashsalt'] = 'mrmt3'  # the same file for the same logs
  figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout='constrained')
  for axis, (title, curves) in zip(axes, PANELS, strict=True):
    for color, (key, label) in enumerate(curves):
      for stage, name in enumerate(STAGES):
        if stage == 0 and key != 'frame_loss':  # the first stage has no other loss, and no tokens
          continue
        begin = 0 if stage == 0 else read(STAGES[0])[-1]['step']
        for kind, style in (('train', '-'), ('validation', '.')):
          records = [record for record in read(f'{name}.{kind}') if key in record] if kind != 'train' else read(name)
          x = [(begin + record['step']) * EXAMPLES_A_STEP / 1000 for record in records]
          axis.plot(
            x, [record[key] for record in records], style, color=f'C{color}',
            label=label if stage == 1 and kind == 'train' else None,
          )  # fmt: skip
    axis.set(title=title, xlabel='examples, thousands', ylim=(0, None))
    axis.legend()
    axis.grid(alpha=0.3)
  figure.savefig(HERE / 'training.svg', metadata={'Date': None})


if __name__ == '__main__':
  main()
