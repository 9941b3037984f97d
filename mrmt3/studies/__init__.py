"""The questions of the paper, each as one command: `mrmt3 study NAME`. `catalogue` declares them, `run` runs them."""
