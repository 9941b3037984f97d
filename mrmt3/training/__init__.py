"""The training loop behind `mrmt3.train`, and what evaluation and inference share with it."""
