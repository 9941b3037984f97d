"""Entry point of studies: trains networks or examines a checkpoint, scores pieces and writes a report.

A stopped study resumes when it is run again. Files in the output folder:

    made_by.json              training studies: the settings; a run with other settings is refused
    results/NAME.json         one finished result and its settings; it is not computed again
    results.jsonl             all results, one per line
    study.md, index.html, figures/*.svg
    cells/NAME/               training studies: the network's folder, predictions and scores of each piece
    data, notes, single, ...  training studies: data sets built for the study
"""

from pathlib import Path

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError
from mrmt3.studies import catalogue, probe_study
from mrmt3.studies.options import Options, eval_steps
from mrmt3.studies.results import alone
from mrmt3.studies.training_study import TrainingStudy
from mrmt3.utils import files


def run(name: str, out: Path, options: Options) -> Path:
  """Run a study of `catalogue.STUDIES` and return the path of its HTML page.

  Args:
    name: name of the study.
    out: output folder.
    options: options of the study.

  Raises:
    UserError: the options do not suit the study, a training failed, or another study is running in `out`.
  """
  study, trains = catalogue.STUDIES[name], catalogue.STUDIES[name].kind == catalogue.TRAINING
  if trains:
    eval_steps(options.steps or study.steps, options.eval_points or study.eval_points)
  elif not options.checkpoint or options.data is None:
    raise UserError(f'{name} examines a checkpoint on music: give --checkpoint DIR and --data DIR')
  for path in (options.data, options.single, options.notes):
    if path is not None and not path.exists():
      raise UserError(f'no such file or folder: {path}')
  if options.init_from is not None:
    orbax_checkpoints.find_checkpoint(options.init_from)
  folder = files.make_folder(out)
  with alone(folder) as lock:
    if trains:
      return TrainingStudy(name, study, folder, options, lock).run()
    return probe_study.run(name, study, folder, options)
