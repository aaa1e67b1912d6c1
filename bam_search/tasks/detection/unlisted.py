"""Training and test pictures where a data set has no parts: chosen by the pictures' contents."""

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.detection.annotated import Annotated
from bam_search.tasks.pictures.encoded import Facts

SHARE = 5
"""One of so many different pictures is for the test."""
WORDS = "one in 5 to test, chosen by its contents, as there is no test part"


def split(data: Annotated, facts: Facts) -> tuple[np.ndarray, np.ndarray, str]:
    """The numbers of the training and of the test pictures, and how they were chosen, in words.

    The choice does not depend on names, equal pictures lie in one part, and the last picture of a
    class trains. Unreadable pictures train, where they are told. Raises UserError if no picture can
    be spared.
    """
    groups: dict[bytes, list[int]] = {}
    for number in np.flatnonzero([not problem for problem in facts.problems]).tolist():
        groups.setdefault(facts.hashes[number].tobytes(), []).append(number)
    left = np.zeros(data.labels.max(initial=0) + 1, np.int64)
    having = {key: np.unique(data.labels[data.objects(np.array(groups[key]))]) for key in groups}
    for labels in having.values():
        left[labels] += 1
    tested: list[int] = []
    wanted = max(1, round(len(groups) / SHARE))
    for key in sorted(groups):
        if wanted and (left[having[key]] > 1).all():
            left[having[key]] -= 1
            tested += groups[key]
            wanted -= 1
    if not tested:
        raise UserError(
            f"{len(groups)} different pictures can be read, too few to train and to test",
            "each class needs a picture to train and one to test",
        )
    is_test = np.zeros(len(data), bool)
    is_test[tested] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test), WORDS
