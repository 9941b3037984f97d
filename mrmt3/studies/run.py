"""Runs a study: trains its networks one after the other, scores them, and writes its report; goes on where it was stopped.

<out>/made_by.json              training studies: the settings; what was made is not taken up with others
<out>/results/NAME.json         each result, with what it was made with; what is there is not done again
<out>/results.jsonl             all of them, a line each
<out>/study.md, index.html, figures/*.svg
<out>/cells/NAME/               training studies: the network's folder, predictions and scores of each piece
<out>/data, notes, single, ...  training studies: the data sets that were made for it
"""

from pathlib import Path

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError
from mrmt3.studies import catalogue, probe_study
from mrmt3.studies.options import Options, moments
from mrmt3.studies.results import alone
from mrmt3.studies.training_study import TrainingStudy
from mrmt3.utils import files


def run(name: str, out: Path, options: Options) -> Path:
  """Runs a study of `catalogue.STUDIES` and returns the path of its page.

  Raises:
    UserError: options that do not go with the study, a training that failed, or another run that works in `out`.
  """
  study, trains = catalogue.STUDIES[name], catalogue.STUDIES[name].kind == catalogue.TRAINING
  if trains:
    moments(options.steps or study.steps, options.moments or study.moments)
  elif not options.checkpoint or options.data is None:
    raise UserError(f'{name} looks at a checkpoint on music: give --checkpoint DIR and --data DIR')
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
