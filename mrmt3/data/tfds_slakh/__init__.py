"""TensorFlow Datasets builder of sharded records from a folder in the Slakh2100 layout; see `slakh_records`."""
