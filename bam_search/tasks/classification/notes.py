"""Lines about a data set that a dry run and the first lines of a study tell."""

from collections.abc import Iterator, Sequence

import numpy as np

UNEVEN = 2
"""How many times the images of the smallest class the largest may have without a word."""
NAMED = 3
"""How many classes a line names."""


def class_notes(y_train: np.ndarray, y_test: np.ndarray, classes: Sequence[str]) -> Iterator[str]:
    """Yield lines about classes that are rare, or lack in the test set.

    The labels are the numbers of the classes.
    """
    counts = np.bincount(y_train, minlength=len(classes))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[most] > UNEVEN * counts[least]:
        yield (
            f"classes are uneven: {classes[most]} has {counts[most]:,} training images, "
            f"{classes[least]} has {counts[least]:,}"
        )
    there = set(y_test.tolist())
    missing = [name for number, name in enumerate(classes) if number not in there]
    if missing:
        more = ", ..." if len(missing) > NAMED else ""
        yield f"the test set has no image of {', '.join(missing[:NAMED])}{more}"
