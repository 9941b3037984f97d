"""seqio tasks, one module per data set. `mrmt3.tasks` also has MT3's tasks and names (`tasks.mt3`)."""

from mrmt3.tasks.mt3 import *  # noqa: F403
