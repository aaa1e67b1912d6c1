"""The table of stages, most valuable first. Imports no torch."""

from dataclasses import dataclass

from bam_search.errors import UserError, nearest

FIGURES, KERNELS = "gpu-figures.json", "gpu-kernels.json"
"""Where what was found is kept."""
STUDY = "study"


@dataclass(frozen=True)
class Stage:
    """`limit`: the most seconds that it gets; `least`: with fewer it is not begun.

    `share` is the part of a call's whole time that stages before it must leave to it. `target` is
    the function, "module:function", that gives its parts; `file` is where what they find is kept.
    """

    name: str
    question: str
    limit: float
    target: str
    share: float = 0.0
    least: float = 12.0
    file: str = FIGURES


STAGES = (
    Stage("machine", "is all there that it needs?", 60, "benchmarks.gpu.machine:parts"),
    Stage("tests", "do the tests pass that need a GPU?", 150, "benchmarks.gpu.suite:parts"),
    Stage(
        "first-study",
        "does a whole study run, one epoch on ResNet18?",
        150,
        "benchmarks.gpu.studies:first",
    ),
    Stage("parity", "does a GPU compute what a CPU computes?", 60, "benchmarks.gpu.parity:parts"),
    Stage(
        "kernels",
        "where does a candidate's time go?",
        120,
        "benchmarks.gpu.candidate:parts",
        file=KERNELS,
    ),
    Stage("attention", "what do passes of attention cost?", 90, "benchmarks.gpu.modules:parts"),
    Stage(
        "resnet18",
        "the usual loop against the engine's forms",
        220,
        "benchmarks.gpu.speeds:resnet18",
    ),
    Stage(
        STUDY,
        "does a study keep to its estimate?",
        3600,
        "benchmarks.gpu.studies:planned",
        share=0.5,
        least=90,
    ),
    Stage(
        "packed",
        "small nets, several processes at once",
        160,
        "benchmarks.gpu.speeds:packed",
        share=0.06,
    ),
    Stage(
        "resnet50",
        "ResNet50 with its four references",
        200,
        "benchmarks.gpu.speeds:resnet50",
        share=0.1,
    ),
    Stage("detectors", "how fast do detectors train?", 130, "benchmarks.gpu.detectors:parts"),
)


def named(names: list[str]) -> list[Stage]:
    """The stages of these names, in the order of the table. Raises UserError."""
    known = [stage.name for stage in STAGES]
    for name in names:
        if name not in known:
            raise UserError(
                f"--stages: there is no stage {name!r}",
                f"{nearest(name, known)} all: {' '.join(known)}",
            )
    return [stage for stage in STAGES if stage.name in names]


def allowed(stage: Stage, later: list[Stage], left: float, whole: float) -> float:
    """The seconds that a stage may take; 0 if too few are left.

    They are what is left of the call's `whole` time, less what belongs to `later` stages.
    """
    shares = [other.share * whole for other in later if other.share * whole >= other.least]
    seconds = min(stage.limit, left - sum(shares))
    return seconds if seconds >= stage.least else 0.0
