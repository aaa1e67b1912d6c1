"""A finished study of invented numbers.

It has references, rungs, a random baseline, finalists on three seeds, and one without each of its
sites.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from conftest import make_record
from scipy import stats

from bam_search.analysis.findings import Findings
from bam_search.report.commands import Origin
from bam_search.report.page import page, write_report
from bam_search.report.payload import ReportContext
from bam_search.space.search_space import ChoiceSpace
from bam_search.space.sites import Site, Sites
from bam_search.study.record import ABLATION, FIRST, RANDOM, REFERENCE, Record
from bam_search.tasks.classification.task import TOP1_ERROR
from bam_search.tasks.metric import binomial

OBJECTIVES = ("metric", "params_overhead", "macs_conv_fc_overhead")
CHOICE_SPACE = ChoiceSpace(
    {f"layer{i}": {"bam": {"r": (8, 16), "d": (4,)}} for i in range(1, 10)},
    {"bam": {"r": 16, "d": 4}},
)


def site(name: str, stage: int, *roles: str) -> Site:
    """A site of (16, 8, 8) in the one block of its stage."""
    block = f"layer{stage + 1}.0"
    return Site(name, 16, 8, 8, stage=stage, block=block, roles=roles)


SITES = Sites(
    (
        site("layer1.0.bn2", 0, "every-block"),
        site("layer1.0", 0),
        site("layer1", 0, "stage-ends", "bottleneck"),
        site("layer2.0.bn2", 1, "every-block"),
        site("layer2.0", 1),
        site("layer2", 1, "stage-ends", "bottleneck"),
    ),
    blocks=("layer1.0", "layer2.0"),
)


def context(**fields: object) -> ReportContext:
    """What the page is about, of these fields."""
    values: dict[str, object] = {
        "title": "a study",
        "metric": TOP1_ERROR,
        "sample": "image",
        "objectives": OBJECTIVES,
        "warning": "",
        "about": {},
        "choice_space": CHOICE_SPACE,
        "recommend_by": ("macs_conv_fc_overhead", "params_overhead"),
        "sites": SITES,
        "origin": Origin("DIR", "small", "cifar100.npz"),
    }
    return ReportContext(**{**values, **fields})  # type: ignore[arg-type]


def found(records: Sequence[Record], **fields: object) -> Findings:
    """The findings of these records, in the context of these fields."""
    return Findings.of(records, context(**fields))


def written(folder: Path, records: Sequence[Record], **fields: object) -> Path:
    """The page of these records, written into the folder, in the context of these fields."""
    about = context(**fields)
    return write_report(folder, about, Findings.of(records, about))


def html_of(records: Sequence[Record], plotlyjs: str = "inline", **fields: object) -> str:
    """The page of these records as HTML, in the context of these fields."""
    about = context(**fields)
    return page(about, Findings.of(records, about), plotlyjs)


def measured(*values: float) -> dict[str, object]:
    """The fields of a record with these tests."""
    return {
        "test_metrics": values,
        "test_standard_errors": tuple(binomial(value, 1000) for value in values),
        "test_seeds": tuple(range(100, 100 + len(values))),
        "test_samples": 1000,
        "test_seconds": 3.0,
    }


def final(
    number: int,
    errors: Sequence[float] | np.ndarray,
    cost: float = 1.0,
    first: int = 0,
    **fields: object,
) -> Record:
    """A record with these test errors, at seeds from `first` on."""
    return make_record(
        number,
        70.0,
        cost,
        test_metrics=tuple(map(float, errors)),
        test_seeds=tuple(range(first, first + len(errors))),
        **fields,
    )


def rungs(*values: float, **fields: object) -> dict[str, object]:
    """The fields of a record with these values at rungs of 1 and 2 epochs, of 4."""
    return {"epochs": 4, "rung_epochs": (1, 2)[: len(values)], "rung_metrics": values, **fields}


BASE = make_record(
    0,
    80.0,
    0.0,
    origin=REFERENCE,
    name="no attention",
    placement="none",
    **rungs(95.0, 90.0),
    **measured(81.0, 81.5, 81.4),
)
PAPER = make_record(
    1,
    75.0,
    1.0,
    origin=REFERENCE,
    name="BAM in front",
    placement="layer1=bam",
    **rungs(92.0, 85.0),
    **measured(76.3, 76.0, 76.3),
)
WINNER = make_record(
    2,
    70.0,
    1.5,
    placement="layer1=bam layer2=bam(r=8)",
    **rungs(86.0, 80.0),
    **measured(72.0, 72.1, 72.5),
)
RISKY = make_record(3, 74.0, 1.2, **rungs(87.0, 83.5, control=True))
STOPPED = make_record(
    4, None, 1.4, **rungs(94.0, stopped="after 1 epoch: 79.0 % to expect after all")
)
LATER = make_record(
    5, None, 2.0, **rungs(88.0, 87.0, stopped="after 2 epochs: 77.0 % to expect after all")
)
FAILED = make_record(6, None, 0.1, epochs=4, failure="Traceback\nValueError: no")
WORSE = make_record(7, 78.0, 3.0, **rungs(91.0, 88.0, control=True))
DRAWN = make_record(
    FIRST[RANDOM], 79.0, 0.5, epochs=4, origin=RANDOM, placement="layer8=bam", id="r0"
)
LUCKY = make_record(
    FIRST[RANDOM] + 1,
    73.0,
    2.5,
    epochs=4,
    origin=RANDOM,
    placement="layer9=bam",
    id="r1",
    **measured(74.1, 74.2, 74.4),
)
WITHOUT = [
    make_record(
        FIRST[ABLATION] + 2000 + i,
        None,
        cost,
        origin=ABLATION,
        name=f"#2 without layer{i + 1}",
        placement=text,
        **measured(*errors),
    )
    for i, (cost, text, errors) in enumerate(
        [(0.5, "layer2=bam(r=8)", (75.1, 75.0, 75.5)), (1.0, "layer1=bam", (72.1, 72.2, 72.3))]
    )
]
RECORDS = [BASE, PAPER, WINNER, RISKY, STOPPED, LATER, FAILED, WORSE, DRAWN, LUCKY, *WITHOUT]


def half_width() -> float:
    """Half of a difference's 95 % interval.

    From the residuals of a two-way layout: the six that were tested, on three seeds.
    """
    errors = np.array([record.test_metrics for record in RECORDS if record.test_metrics])
    residuals = errors - errors.mean(1, keepdims=True) - errors.mean(0) + errors.mean()
    degrees = (6 - 1) * (3 - 1)
    noise = np.sqrt((residuals**2).sum() / degrees)
    return float(stats.t.ppf(0.975, degrees) * noise * np.sqrt(2 / 3))
