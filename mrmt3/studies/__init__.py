"""The experiments of the paper, one command each: `mrmt3 study NAME`. `catalogue` declares them, `run` runs them."""
