"""seqio tasks, one module a data set. Imported as `mrmt3.tasks`, which has MT3's tasks and names as well (`mt3_tasks`)."""

from mrmt3.tasks.mt3 import *  # noqa: F403
