"""The tests that only a GPU can pass or fail, all in one process, and what each came to."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.commands import lines, started
from benchmarks.gpu.parts import Part, Work

TESTS = "tests/score/test_gpu.py"
PART = "test_gpu.py"
OPTIONS = (
    *("-c", "pyproject.toml"),
    *("-p", "no:xdist", "-p", "no:cacheprovider"),
    *("-o", "addopts="),  # the project's own want pytest-xdist
    *("-o", "filterwarnings=default"),  # a new torch's advice is no failure
    *("-v", "-rA", "--durations=10", "--color=no"),
)
OUTCOME = re.compile(r"(?P<name>\S*::.+?) (?P<outcome>PASSED|FAILED|ERROR|SKIPPED)\b")
REASON = re.compile(r"(?P<outcome>FAILED|ERROR) (?P<name>\S+?)(?: - (?P<why>.*))?$")
RAN = (0, 1)
"""pytest's exit codes for tests that all ran."""


def parts(_work: Work) -> list[Part]:
    """The stage."""
    return [Part(PART, 600, results)]


def results(tests: str = TESTS) -> Iterator[dict[str, Any]]:
    """The outcome of each test as it ends, and why it failed. Raises if one did."""
    found = Results()
    with started("pytest", [*OPTIONS, tests]) as process:
        for line in lines(process):
            if found.hear(line):
                yield found.told()
        code = process.wait()
    yield {**found.told(), "exit_code": code}
    if code not in RAN:
        raise RuntimeError(f"pytest ended with exit code {code}, and not all tests ran")
    if failed := found.failed():
        raise RuntimeError(
            f"{len(failed)} of {len(found.outcomes)} tests failed: {', '.join(failed)}"
        )


class Results:
    """What pytest has said so far."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.why: dict[str, str] = {}

    def hear(self, line: str) -> bool:
        """Take a line of pytest's; whether it tells anything."""
        if outcome := OUTCOME.match(line):
            self.outcomes[_short(outcome["name"])] = outcome["outcome"]
        elif reason := REASON.match(line):
            name = _short(reason["name"])
            self.outcomes[name] = reason["outcome"]
            self.why[name] = reason["why"] or ""
        return bool(outcome or REASON.match(line))

    def failed(self) -> list[str]:
        """The tests that failed."""
        return [name for name, said in self.outcomes.items() if said in ("FAILED", "ERROR")]

    def told(self) -> dict[str, Any]:
        """For JSON."""
        counts = Counter(outcome.lower() for outcome in self.outcomes.values())
        return {**counts, "outcomes": dict(self.outcomes), "why": dict(self.why)}


def _short(name: str) -> str:
    return name.partition("::")[2] or name
