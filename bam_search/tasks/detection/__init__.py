"""Detection: boxes around objects and their classes, on pictures of any sizes."""
