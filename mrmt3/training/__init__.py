"""The training loop behind `mrmt3.train`, and the parts that `mrmt3.eval` and `mrmt3.infer` share with it."""
