"""seqio tasks, one module a data set. Imported as `mrmt3.tasks`, which has MT3's tasks and names as well (`mt3_tasks`)."""

from mrmt3.mt3_tasks import *  # noqa: F403
