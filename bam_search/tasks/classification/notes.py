"""Lines about a data set that a dry run and the first lines of a study tell."""

from collections.abc import Iterator, Sequence

import numpy as np

from bam_search.tasks.classification.sizing import text
from bam_search.words import counted

UNEVEN = 2
"""How many times the images of the smallest class the largest may have without a word."""
NAMED = 3
"""How many classes a line names."""


def sizes_words(sizes: np.ndarray) -> str:
    """A line about the sizes of pictures, (N, 2): height and width."""
    by_area = sizes[np.argsort(sizes.astype(np.int64).prod(1), kind="stable")]
    least, most = (text((int(h), int(w))) for h, w in (by_area[0], by_area[-1]))
    if (sizes == sizes[0]).all():
        return f"all pictures are {least} px"
    middle = text((int(np.median(sizes[:, 0])), int(np.median(sizes[:, 1]))))
    return f"pictures are {least} to {most} px, height x width; the median is {middle}"


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


def twice_notes(names: Sequence[str]) -> Iterator[str]:
    """Yield a line about the test pictures of these names, which are training pictures too."""
    if names:
        verb = "is a training picture" if len(names) == 1 else "are training pictures"
        pictures = counted(len(names), "test picture")
        yield f"{pictures} {verb} too, byte for byte, such as {names[0]}"
