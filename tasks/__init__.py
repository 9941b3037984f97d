"""seqio tasks, one module a data set. Imported as `mrmt3.tasks`, which has the names of MT3's tasks module as well (`tasks.mt3`)."""

from mrmt3.tasks.mt3 import *  # noqa: F403
