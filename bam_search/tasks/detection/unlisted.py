"""Training and test pictures where a data set has no parts: chosen by the pictures' contents."""

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.detection.annotated import Annotated
from bam_search.tasks.pictures.encoded import Facts
from bam_search.words import counted

SHARE = 5
"""One of so many different pictures with objects of a class is for the test."""
WORDS = "one in 5 to test, chosen by its contents, as there is no test part"


def split(data: Annotated, facts: Facts) -> tuple[np.ndarray, np.ndarray, str]:
    """The numbers of the training and of the test pictures, and how they were chosen, in words.

    Classes get their share in turn, rare ones first, and so do pictures without objects. A class
    keeps a picture that trains. The choice does not depend on names, and equal pictures lie in one
    part. Unreadable pictures train, where they are told. Raises UserError if no picture can be
    spared.
    """
    groups = _equal(facts)
    keys = sorted(groups)
    has = np.zeros((len(keys), int(data.labels.max(initial=0)) + 1), bool)
    for row, key in enumerate(keys):
        has[row, data.labels[data.objects(np.array(groups[key]))]] = True
    has[:, 0] = ~has.any(1)
    tests = _chosen(has)
    if not tests.any():
        raise UserError(
            f"{counted(len(keys), 'different picture')} can be read, too few to train and to test",
            "each class needs a picture to train and one to test",
        )
    is_test = np.zeros(len(data), bool)
    is_test[[number for row in np.flatnonzero(tests) for number in groups[keys[row]]]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test), WORDS


def _equal(facts: Facts) -> dict[bytes, list[int]]:
    """The numbers of the readable pictures, by their contents."""
    groups: dict[bytes, list[int]] = {}
    for number, problem in enumerate(facts.problems):
        if not problem:
            groups.setdefault(facts.hashes[number].tobytes(), []).append(number)
    return groups


def _chosen(has: np.ndarray) -> np.ndarray:
    """(n,) bool: which of n pictures test; `has` is (n, classes) bool: which classes they have."""
    tests = np.zeros(len(has), bool)
    totals = has.sum(0)
    left = totals.copy()
    for number in np.argsort(totals, kind="stable"):
        wanted = max(1, round(totals[number] / SHARE)) - (totals - left)[number]
        for row in np.flatnonzero(has[:, number] & ~tests):
            if wanted > 0 and (left[has[row]] > 1).all():
                tests[row] = True
                left -= has[row]
                wanted -= 1
    return tests
