"""seqio tasks, one module a data set. Imported as `mrmt3.tasks`."""
