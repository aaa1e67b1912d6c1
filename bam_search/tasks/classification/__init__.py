"""One class for each image: the first task. CIFAR-100 is a data set of it."""
