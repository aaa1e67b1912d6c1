"""What the project wants of a GPU, and whether it was measured to be so."""

import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.parts import Known

ENGINE, USUAL = "the engine", "usual loop"
AS_IT_IS = re.compile(rf"{ENGINE}, (\d+ process(es)? at once, (under MPS, )?)?batch \d+")
"""The parts that measure what a study does by default, in one process or several, and not another
form of the engine.
"""
SAME_BATCH = "batch 128"
"""Of the usual loop, and of the engine where the two are compared."""
DETECTOR, SHORT_TRAINING = "fcos_resnet50_gn", 5_000 * 12
"""The detector of the study of detection, and the images of a short training of it."""
RESNET50, RESNET50_H200 = 18_000, 24_000
"""Images a second on an H100, and where the memory is as fast as an H200's."""


@dataclass(frozen=True)
class Goal:
    """A goal for a measured value.

    `value` gives the measured value, None if there is none. The goal is reached at a value of at
    least `least`, or at most `most`.
    """

    text: str
    value: Callable[[Known], float | None]
    least: float | None = None
    most: float | None = None
    form: str = ",.0f"
    remark: Callable[[Known], str] = lambda _known: ""

    def line(self, known: Known) -> str:
        """The goal, what was measured, and whether that reaches it."""
        bound = (
            f"at least {self.least:{self.form}}"
            if self.least is not None
            else f"at most {self.most:{self.form}}"
        )
        value = self.value(known)
        said = (
            "not measured"
            if value is None
            else f"{value:{self.form}}  {'reached' if self._reached(value) else 'MISSED'}"
        )
        return f"  {self.text:52} {bound:>18}   {said}{self.remark(known)}"

    def _reached(self, value: float) -> bool:
        return value >= self.least if self.least is not None else value <= (self.most or 0.0)


def goals(device: str) -> list[Goal]:
    """The goals on a card of this name."""
    resnet50 = RESNET50_H200 if "H200" in device else RESNET50
    return [
        Goal("ResNet-18, images/s", lambda known: best(known, "resnet18"), least=60_000),
        Goal("ResNet-18, times the usual loop, batch 128", times_usual, least=4, form=".2f"),
        Goal("ResNet-50, images/s", lambda known: best(known, "resnet50"), least=resnet50),
        Goal("the small net, packed, images/s", lambda known: best(known, "packed"), least=300_000),
        Goal(
            "from a placement to full speed, s (median of ResNet-18)",
            to_full_speed,
            most=2,
            form=".2f",
        ),
        Goal(
            "a study's time off its own estimate, %",
            lambda known: off(known, "estimate"),
            most=25,
            form=".0f",
            remark=length,
        ),
        Goal(
            "the same study's time off its plan here, %",
            lambda known: off(known, "plan"),
            most=25,
            form=".0f",
        ),
        Goal("40 candidates of ResNet-18 with finals, min (dry run)", forty, most=40, form=".1f"),
        Goal("a detector on 5,000 images, 12 epochs, min", detector, most=3, form=".1f"),
    ]


def best(known: Known, stage: str) -> float | None:
    """The most images a second of the engine as it is."""
    parts = known.get(stage, {}).items()
    return max(
        (found["images_per_s"] for name, found in parts if AS_IT_IS.fullmatch(name)), default=None
    )


def detector(known: Known) -> float | None:
    """The minutes of a short training of the study's detector."""
    found = known.get("detectors", {}).get(DETECTOR)
    return SHORT_TRAINING / found["images_per_s"] / 60 if found else None


def usual(known: Known, stage: str) -> float | None:
    """The most images a second of the usual loop, whatever its workers."""
    parts = known.get(stage, {}).items()
    return max(
        (found["images_per_s"] for name, found in parts if name.startswith(USUAL)), default=None
    )


def times_usual(known: Known) -> float | None:
    """The images a second of the engine, divided by those of the usual loop.

    Both train ResNet18 with the same batches in one process.
    """
    ours, theirs = (
        known.get("resnet18", {}).get(f"{ENGINE}, {SAME_BATCH}"),
        usual(known, "resnet18"),
    )
    return ours["images_per_s"] / theirs if ours and theirs else None


def to_full_speed(known: Known) -> float | None:
    """The median seconds until a candidate of ResNet18 trains at full speed.

    The first candidate of the process is left out.
    """
    parts = known.get("kernels", {}).values()
    times = [
        found["to_full_speed_s"]
        for found in parts
        if found.get("net") == "resnet18" and "to_full_speed_s" in found
    ]
    return statistics.median(times[1:]) if times[1:] else None


def _study(known: Known) -> Mapping[str, Any]:
    """The planned study, if it came to its end."""
    found = known.get("study", {}).get("study") or {}
    return found if found.get("exit_code") == 0 else {}


def off(known: Known, said: str) -> float | None:
    """By how many percent the study took longer or shorter than its "estimate" or "plan" said."""
    took = _study(known).get(f"took_of_{said}")
    return None if took is None else 100 * abs(took - 1)


def length(known: Known) -> str:
    """How long the study took."""
    found = _study(known)
    return (
        f"  ({found['seconds'] / 60:.1f} min for {found['estimated_s'] / 60:.1f})"
        if "estimated_s" in found
        else ""
    )


def forty(known: Known) -> float | None:
    """The minutes that a dry run tells."""
    found = known.get("first-study", {}).get("dry run") or {}
    return found.get("minutes")
