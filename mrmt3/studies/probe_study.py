"""Studies of an existing checkpoint: loads it and the music, and runs the probe."""

from pathlib import Path

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.inference.transcriber import Transcriber
from mrmt3.studies import catalogue, decoding_frontier, memory_probe, order_probe, probe_pieces, report
from mrmt3.studies.catalogue import Study
from mrmt3.studies.options import Options
from mrmt3.studies.references import references_of
from mrmt3.studies.results import Results
from mrmt3.utils import console


def run(name: str, study: Study, folder: Path, options: Options) -> Path:
  """Run a study that trains nothing and return the path of its HTML page; see `studies.run.run` for errors."""
  probe = {
    catalogue.MEMORY_PROBE: memory_probe.measure,
    catalogue.ORDER_PROBE: order_probe.measure,
    catalogue.DECODING: decoding_frontier.measure,
  }[study.kind]
  checkpoint = orbax_checkpoints.find_checkpoint(options.checkpoint)
  params, spec, step = orbax_checkpoints.restore_params(checkpoint)
  transcriber = Transcriber(params, spec)
  references = references_of(options.data, options.split, options.pieces)
  pieces = probe_pieces.load(references, spec)
  results = Results(
    folder,
    {
      'study': name,
      'checkpoint': str(checkpoint.resolve()),
      'changed': checkpoint.stat().st_mtime_ns,
      'data': str(options.data.resolve()),
      'pieces': list(references),
    },
  )
  tables, figures, remarks = probe(transcriber, params, pieces, results)
  results.write_lines()
  seconds = sum(piece.frames for piece in pieces) / float(spec.spectrogram.frame_rate)
  count = console.counted(len(pieces), 'piece')
  setup = f'{options.checkpoint} (step {step}) on {count} of {options.data}, {seconds:.0f} s of music.'
  return report.write(folder, name, study.question, tables, figures, [setup, *remarks])
