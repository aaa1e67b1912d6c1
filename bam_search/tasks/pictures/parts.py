"""What the training and the test part of a data set are called, in any case."""

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
"""Of several test parts the first one is taken."""
