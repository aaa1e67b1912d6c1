"""A study in miniature, to see that all of it works: `run --smoke`, or where no data are at hand.

Changes settings, reads no data. What the user has asked for stays.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bam_search.config import nested, overlay
from bam_search.search.study import Study, with_overrides
from bam_search.tasks.task import Split

SAMPLES = 600
"""Training samples; of many classes, as many as A_CLASS has for each."""
A_CLASS = 6
VALIDATED = 3
"""The search is scored on a VALIDATED-th as many samples."""
TESTED = 1000
"""Samples that test the finalists."""
SEARCHED = 3
"""Candidates beside the references."""
SETTINGS: Mapping[str, Any] = {
    "random_baseline": False,
    "startup": 1,
    "recipe.epochs": 1,
    "rungs.epochs": [],
    "finalists.seeds": 1,
    "finalists.most": 1,
    "finalists.extra": 0.0,
    "finalists.leave_one_out": False,
}
NOTE = "a smoke run, as small as a study can be: it shows that all works, its numbers say nothing"

IsAsked = Callable[[str], bool]
"""Whether the user has asked for a key of the study, such as "recipe.epochs", for this run."""


def in_miniature(study: Study, total: int, classes: int, is_asked: IsAsked) -> Study:
    """`study` for a run within a minute, of `total` training samples in so many classes."""
    samples = min(total, max(SAMPLES, A_CLASS * classes))
    wanted = {
        **SETTINGS,
        "trials": len(study.references) + (SEARCHED if study.searches else 0),
        "data.images": samples,
        "data.validation": max(1, samples // VALIDATED),
    }
    if is_asked("finalists.seeds"):
        wanted["finalists.most"] = study.finalists.seeds
    if is_asked("rungs.epochs"):
        wanted["recipe.epochs"] = max(study.rungs.epochs, default=0) + 1
    table: dict[str, Any] = {}
    for key, value in wanted.items():
        if not is_asked(key):
            table = overlay(table, nested(key, value))
    return with_overrides(study, table, ())


def with_few_tests(split: Split) -> Split:
    """`split` with at most TESTED of its test samples, at even distances."""
    samples = len(split.test)
    if samples <= TESTED:
        return split
    return replace(split, test=split.test.take(np.arange(TESTED) * samples // TESTED))
