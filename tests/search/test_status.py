"""What a page says of a study that has not finished."""

import re
from concurrent.futures import Future
from pathlib import Path

import pytest

from bam_search.score.evaluate import Job, Result
from bam_search.search.status import FINISHED, Status, StatusFile, read_status, state_words

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


def test_a_process_that_has_ended_trains_nothing(tmp_path: Path) -> None:
    file = StatusFile(tmp_path, "run")
    jobs: list[Future[Result]] = []

    def submit(_job: Job) -> Future[Result]:
        jobs.append(Future())
        return jobs[-1]

    watched = file.watched(submit, workers=1)
    for seed in range(2):
        watched(Job("none", seed, 1))
    assert len(file.status.running) == 2
    file.tell(ended="interrupted by Ctrl-C")
    jobs[0].set_result(Result(None, "too late"))
    status = read_status(tmp_path)
    assert status
    assert status.running == ()


def test_before_its_first_stage_a_study_is_running_and_no_more() -> None:
    assert re.fullmatch(r"Running, at \S+ \S+", state_words(Status("h", 1, "run", 0.0), True))
    assert state_words(None, False) == ""
