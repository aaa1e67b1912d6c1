"""What a page says of a study that has not finished."""

import re

import pytest

from bam_search.search.status import FINISHED, Status, state_words

STATUS = Status("host", 1, "run", 0.0, "search", 12, 40)


@pytest.mark.parametrize(
    ("ended", "runs", "said"),
    [
        ("", True, r"Running, 12 of 40 \(search\), at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"),
        ("", False, r"Its process died, 12 of 40 \(search\): the same command continues"),
        ("interrupted by SIGTERM", False, r"Interrupted by SIGTERM, 12 of 40 \(search\)"),
        ("failed: no disk", True, r"Failed: no disk, 12 of 40 \(search\)"),
        (FINISHED, False, ""),
    ],
)
def test_a_page_says_how_far_a_study_is_and_why_it_ended(ended: str, runs: bool, said: str) -> None:
    status = Status(**{**vars(STATUS), "ended": ended})
    assert re.fullmatch(said, state_words(status, runs))


def test_before_its_first_stage_a_study_is_running_and_no_more() -> None:
    assert re.fullmatch(r"Running, at \S+ \S+", state_words(Status("h", 1, "run", 0.0), True))
    assert state_words(None, False) == ""
