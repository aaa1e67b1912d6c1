"""Two placement studies, each run as a user runs it.

One is short, on ResNet18; the other is planned for the time that is left.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bam_search.errors import last_line
from bam_search.report.verify import verify
from bam_search.search.store import read_records
from bam_search.study.record import Record
from benchmarks.gpu.commands import lines, started
from benchmarks.gpu.parts import Absent, Part, Unfinished, Work
from benchmarks.gpu.plan import HELD_OUT, plan, tiny
from benchmarks.gpu.stages import STUDY

ALWAYS = ("random_baseline=false", "finalists.leave_one_out=false", "finalists.extra=0.0")
TINY = ("data.images=200", "data.validation=100", "recipe.batch=50")
"""As many images as there must be, one a class in each part of the data of a test."""
IMAGES, TINY_IMAGES = 50_000, 200
ENDING = 25.0
"""Seconds that a study may need after its time limit: for its page and its closing lines."""
SHORT = 120.0
"""Seconds of the short study at most."""
PROGRESS = re.compile(r"\[ *\d+/\d+\]")
ABOUT = re.compile(r"about ([\d,.]+) (s|min|hours|days)\b")
UNIT = {"s": 1.0, "min": 60.0, "hours": 3600.0, "days": 86_400.0}
INTERRUPTED = 130
DEFAULT_TRIALS = 40
"""Candidates of the study whose time the dry run tells."""


def first(work: Work) -> list[Part]:
    """The stage of the short study, and of the dry run of a long one."""
    short = (
        "--space",
        work.space("resnet18"),
        "--epochs",
        "1",
        "--trials",
        "4" if work.tiny else "6",
        "--workers",
        "1",
    )
    seeds = ("startup=1", "finalists.seeds=1")
    return [
        Part("study", SHORT, lambda: one_epoch(work, [*short, *sets(*seeds)])),
        Part("dry run", 60, lambda: dry_run(work)),
    ]


def sets(*assignments: str) -> list[str]:
    """`--set` before each."""
    return [word for assignment in assignments for word in ("--set", assignment)]


def words(work: Work, out: Path, more: list[str], seconds: float) -> list[str]:
    """The command line of a placement study that writes into `out`.

    It is interrupted after so many seconds.
    """
    common = ["run", "--study", "placement", "--device", work.device, "--data", work.data]
    small = sets(*TINY) if work.tiny else []
    limit = ["--out", str(out), "--time-limit", f"{seconds:.0f}s"]
    return [*common, *sets(*ALWAYS), *more, *small, *limit]


def one_epoch(work: Work, more: list[str]) -> Iterator[dict[str, Any]]:
    """What the study left. Raises if a candidate failed, or the study."""
    folder = work.temporary / "first"
    found = _ran(
        words(work, folder, [*more, "--force-new"], max(10.0, min(SHORT, work.seconds) - ENDING))
    )
    images = TINY_IMAGES if work.tiny else IMAGES
    yield found | _left(folder) | _clocks(folder, found["seconds"], images)
    _check(found | _left(folder), folder)


def _ran(command: list[str]) -> dict[str, Any]:
    """The wall seconds of a study's command, its exit code and its output.

    The lines that it prints for each candidate are left out.
    """
    began = time.perf_counter()
    said: list[str] = []
    with started("bam_search", command) as process:
        said += [line for line in lines(process) if not PROGRESS.match(line)]
        code = process.wait()
    return {
        "exit_code": code,
        "seconds": round(time.perf_counter() - began, 2),
        "said": [*said[:1], *said[1:][-25:]],
    }


def _left(folder: Path) -> dict[str, Any]:
    """From the records of a study: how many trainings there were, and what failed."""
    records = _records(folder)
    failures = [record.failure or record.test_failure for record in records]
    last = [last_line(failure) for failure in failures if failure]
    trained = [record for record in records if record.seconds is not None]
    return {
        "candidates": len(trained),
        "finalists": sum(record.is_finalist for record in records),
        "trainings": len(trained) + sum(len(record.test_seeds) for record in records),
        "not_one_graph": any("cannot be one CUDA graph" in failure for failure in last),
        "failures": last,
    }


def _clocks(folder: Path, seconds: float, images: int) -> dict[str, float]:
    """The seconds of a search's training, and those beside all trainings.

    They are of a study that trains one candidate after the other.
    """
    records = _records(folder)
    searched = [record.seconds for record in records if record.seconds is not None]
    tested = [record.test_seconds for record in records if record.test_seconds is not None]
    return {
        "training_s": sum(searched) / max(1, len(searched)),
        "images_each": round((1 - HELD_OUT) * images),
        "beside_trainings_s": seconds - sum(searched) - sum(tested),
    }


def _records(folder: Path) -> list[Record]:
    return read_records(folder) if (folder / "study.db").exists() else []


def _check(found: Mapping[str, Any], folder: Path) -> int:
    """How many records the study's page carries, all of which follows from them.

    Raises if one does not, if a candidate failed, or the study.
    """
    if found["exit_code"] or found["failures"]:
        raise RuntimeError(
            f"the study ended with exit code {found['exit_code']}; failed: {found['failures']}"
        )
    verdict = verify(folder / "index.html")
    if verdict.wrong:
        raise RuntimeError(f"the page does not follow from its records: {verdict.wrong[0]}")
    return verdict.records


def dry_run(work: Work) -> dict[str, Any]:
    """The minutes that `--dry-run` states for a ResNet18 study of 40 candidates with finalists."""
    if work.tiny:
        raise Absent("a tiny run plans no such study")
    command = [
        "run",
        "--study",
        "placement",
        "--space",
        "resnet18",
        "--trials",
        str(DEFAULT_TRIALS),
    ]
    command += ["--device", work.device, "--data", work.data, "--dry-run"]
    with started("bam_search", command) as process:
        said = list(lines(process))
        code = process.wait()
    if code:
        raise RuntimeError(f"the dry run ended with exit code {code}")
    of_study = [line for line in said if line.startswith("the study")]
    return {
        "minutes": told_seconds(of_study) / 60,
        "said": [line for line in said if "about" in line],
    }


def told_seconds(said: list[str]) -> float:
    """The seconds that the first of these lines which tells a time tells.

    Raises ValueError if none does.
    """
    match = next(filter(None, map(ABOUT.search, said)), None)
    if match is None:
        raise ValueError("how long the study takes is not told")
    number, unit = match.groups()
    return float(number.replace(",", "")) * UNIT[unit]


def own_estimate(said: list[str]) -> float | None:
    """The seconds that a study says it takes in all; None if it cannot tell."""
    try:
        return told_seconds([line for line in said if line.startswith("about ")])
    except ValueError:
        return None


def planned(work: Work) -> list[Part]:
    """The stage of the long study.

    Its plan is kept, so that the study of an earlier call is continued as it was planned.
    """
    made: dict[str, Any] = dict(work.found(STUDY, "plan"))

    def planning() -> dict[str, Any]:
        made.update(
            asdict(tiny() if work.tiny else plan(work.known, work.seconds - ENDING, IMAGES))
        )
        return made

    return [
        Part("plan", 20, planning),
        Part("study", 7200, lambda: long(work, made)),
    ]


def long(work: Work, made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """How long the planned study took, relative to its plan and to its own estimate.

    Raises Unfinished.
    """
    if not made:
        raise RuntimeError("there is no plan")
    before = work.spent.get("study", 0.0)
    graph = f"recipe.cuda_graph={'true' if made['cuda_graph'] else 'false'}"
    startup = f"startup={max(1, made['trials'] // 4)}"
    more = [
        "--space",
        made["space"],
        "--epochs",
        str(made["epochs"]),
        "--trials",
        str(made["trials"]),
    ]
    more += [
        "--workers",
        str(made["workers"]),
        *sets(startup, f"finalists.seeds={made['seeds']}", graph),
    ]
    folder = work.temporary / STUDY
    found = _ran(words(work, folder, more, max(5.0, work.seconds - ENDING)))
    found["seconds"] += before
    found |= {"planned_s": made["seconds"], "took_of_plan": found["seconds"] / made["seconds"]}
    own = work.found(STUDY, "study").get("estimated_s") or own_estimate(found["said"])
    found |= {"estimated_s": own, "took_of_estimate": found["seconds"] / own} if own else {}
    yield found | _left(folder)
    if found["exit_code"] == INTERRUPTED:
        raise Unfinished(f"stopped after {found['seconds']:.0f} s; another call continues it")
    yield found | _left(folder) | {"verified_records": _check(found | _left(folder), folder)}
