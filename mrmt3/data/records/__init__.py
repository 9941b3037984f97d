"""TFRecord files and the messages in MT3's and TensorFlow Datasets' records."""
