"""Files, caches, locks and processes."""
