"""ArrayRecord files and TFDS datasets."""
