"""A record: all that is known of one candidate, flat, as in a row of records.csv.

No torch, no optuna.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from bam_search.errors import UserError
from bam_search.space.placement import Placement
from bam_search.tasks.metric import Metric

RECORDS_FILE = "records.csv"
"""The file of a study's records, in its folder or beside a page that was published."""
STUDY_FILE = "study.json"
"""The file of what a study is, likewise."""
REFERENCE = "reference"
SEARCH = "search"
RANDOM = "random"
ABLATION = "ablation"
FIRST = {RANDOM: 1_000_000, ABLATION: 2_000_000}
"""Where the numbers of these origins begin, so that a study can be extended.

The references and the searched candidates are numbered from 0.
"""
ABLATIONS = 1000
"""How many numbers of ablations belong to one candidate: one for each of its sites."""


@dataclass(frozen=True)
class Record:
    """One candidate.

    Values of the metric are as the task measures them, overheads are in percent, counts are
    integers, seconds are wall time; None is "not known".

    Attributes:
        origin: "reference" (pinned by the study, `name` says which), "search", "random" (the random
            baseline) or "ablation" (the winner without one of its sites).
        metric_name, unit, larger_is_better, decimals: of the task's metric.
        macs_conv_fc: MACs by the published convention (see `bam_search.score.cost`).
        macs: MACs by the full count.
        activations: the number of output values of convolutions and linear layers.
        failure: a traceback, or what went wrong.
        stopped: why the candidate was not trained further.
        control: whether it would have been stopped, and was trained to the end for control.
        rung_metrics: after shorter trainings of `rung_epochs` epochs, each with a learning-rate
            decay of its own.
        epochs: of its training in the search; `final_epochs` are those of its final trainings,
            None for as many.
        scoring: how the search scored it: SCRATCH, by the metric, or WARM_START, by the loss of a
            short training from a trained backbone.
        val_metric: after `epochs` epochs, on `val_samples` samples held out of training; `val_loss`
            is the mean loss on these, None where the task measures none.
        epoch_metrics: after each of these epochs; of references only.
        micro_batches: 2 where the device's memory was too small for whole batches
            (`test_micro_batches`: in a final training).
        test_metrics: of final trainings with the fresh seeds `test_seeds`, each measured once on
            `test_samples` samples.
        train_metrics: of the same trainings, on as many of their training samples without
            augmentation, if the study asks for it.
        val_further, test_further: what the task measures beside its metric, by title; of each final
            training.
        test_by_class: the metric on the samples of each class, of each final training; None for a
            class without samples. `test_class_samples` is how many each class has.
        latency_overhead: the measured time of a forward pass as in training above the backbone's,
            on the study's device, with its 95 % interval (see `bam_search.score.latency`); of what
            is tested only.
        deployed_latency_overhead: the same, for one image at a time, as deployed.
        predicted_latency_overhead, predicted_deployed_latency_overhead: what these were expected to
            be before training, where the study needs that.
    """

    number: int
    origin: str
    name: str
    placement: str
    id: str
    data: str
    metric_name: str
    unit: str
    larger_is_better: bool
    decimals: int
    seed: int
    epochs: int
    params: int
    macs_conv_fc: int
    macs: int
    activations: int
    params_overhead: float
    macs_conv_fc_overhead: float
    macs_overhead: float
    activations_overhead: float
    by_operator: dict[str, int]
    uncounted: dict[str, int]
    failure: str = ""
    stopped: str = ""
    control: bool = False
    rung_epochs: tuple[int, ...] = ()
    rung_metrics: tuple[float, ...] = ()
    val_metric: float | None = None
    val_standard_error: float | None = None
    val_loss: float | None = None
    val_samples: int | None = None
    epoch_metrics: tuple[float, ...] = ()
    train_losses: tuple[float, ...] = ()
    seconds: float | None = None
    micro_batches: int | None = None
    test_metrics: tuple[float, ...] = ()
    test_standard_errors: tuple[float, ...] = ()
    train_metrics: tuple[float, ...] = ()
    test_seeds: tuple[int, ...] = ()
    test_samples: int | None = None
    test_seconds: float | None = None
    test_micro_batches: int | None = None
    test_failure: str = ""
    latency_overhead: float | None = None
    latency_interval: tuple[float, ...] = ()
    deployed_latency_overhead: float | None = None
    deployed_latency_interval: tuple[float, ...] = ()
    predicted_latency_overhead: float | None = None
    predicted_deployed_latency_overhead: float | None = None
    val_further: dict[str, float] = field(default_factory=dict)
    test_further: dict[str, tuple[float, ...]] = field(default_factory=dict)
    test_by_class: tuple[tuple[float | None, ...], ...] = ()
    test_class_samples: tuple[int, ...] = ()
    final_epochs: int | None = None
    scoring: str = "scratch"

    @property
    def complete(self) -> bool:
        """Whether the candidate was validated after the study's number of epochs."""
        return self.val_metric is not None

    @property
    def is_validated(self) -> bool:
        """Whether its validation is of a training from what finalists start from."""
        return self.complete and self.scoring == SCRATCH

    @property
    def is_reference(self) -> bool:
        """Whether the study pinned it."""
        return self.origin == REFERENCE

    @property
    def is_searched(self) -> bool:
        """Whether the search proposed it."""
        return self.origin == SEARCH

    @property
    def is_random(self) -> bool:
        """Whether it belongs to the random baseline."""
        return self.origin == RANDOM

    @property
    def is_ablation(self) -> bool:
        """Whether it is a recommended candidate without one of its sites."""
        return self.origin == ABLATION

    @property
    def has_attention(self) -> bool:
        """Whether its placement is another than none."""
        return self.placement != "none"

    @property
    def is_main(self) -> bool:
        """Whether it is a reference or was searched."""
        return self.is_reference or self.is_searched

    @property
    def is_tested(self) -> bool:
        """Whether it was tested: a finalist or an ablation."""
        return bool(self.test_metrics)

    @property
    def is_finalist(self) -> bool:
        """Whether it competes by its tests, after a search that trained it to the end."""
        return self.is_tested and self.complete and not self.is_ablation

    @property
    def ablation_of(self) -> int | None:
        """The number of the candidate that it is without a site; None if it is no ablation."""
        if not self.is_ablation:
            return None
        return (self.number - FIRST[ABLATION]) // ABLATIONS

    @property
    def generalisation_gaps(self) -> list[float]:
        """Test minus training metric by seed; empty where the fit was not measured."""
        if not self.train_metrics:
            return []
        both = zip(self.test_metrics, self.train_metrics, strict=True)
        return [test - train for test, train in both]

    @cached_property
    def parsed_placement(self) -> Placement:
        """The placement, parsed once.

        Raises UserError for a record whose text is no placement.
        """
        return Placement.parse(self.placement)

    @property
    def readable_placement(self) -> Placement | None:
        """The placement; None of a record that failed because its text is not a placement."""
        try:
            return self.parsed_placement
        except UserError:
            return None

    @cached_property
    def metric(self) -> Metric:
        """What the values of this record measure."""
        return Metric(self.metric_name, self.unit, self.larger_is_better, self.decimals)

    @property
    def score(self) -> float:
        """What the search minimises of a complete record."""
        if self.scoring == SCRATCH:
            return self.objective(METRIC)
        assert self.val_loss is not None  # else the record has failed
        return self.val_loss

    def with_score(self, score: float) -> "Record":
        """The record as if the search had scored it so."""
        if self.scoring == SCRATCH:
            return replace(self, val_metric=self.metric.minimised(score))
        return replace(self, val_loss=score)

    @property
    def rung_objectives(self) -> dict[int, float]:
        """What to minimise after each short training, by its epochs."""
        values = map(self.metric.minimised, self.rung_metrics)
        return dict(zip(self.rung_epochs, values, strict=True))

    @property
    def test_objectives(self) -> tuple[float, ...]:
        """What to minimise of each final training, in the order of `test_seeds`."""
        return tuple(map(self.metric.minimised, self.test_metrics))

    @property
    def trained_epochs(self) -> int:
        """The epochs that the search has trained it for, all rungs together: its training cost."""
        return sum(self.rung_epochs) + self.epochs * self.complete

    @property
    def tag(self) -> str:
        """'17'; 'R3' in the random search, 'A1' for an ablation."""
        first = FIRST.get(self.origin)
        if first is None:
            return str(self.number)
        return f"{self.origin[0].upper()}{self.number - first}"

    @property
    def label(self) -> str:
        """The name of a reference, the placement of any other."""
        return self.name or self.placement

    def value(self, key: str) -> float:
        """What OBJECTIVES calls `key`, as it was measured; only a complete record has all."""
        value = getattr(self, OBJECTIVES[key])
        assert isinstance(value, (int, float))
        return float(value)

    def objective(self, key: str) -> float:
        """The same as a value to minimise; of SCORE, that which the search minimises."""
        if key == SCORE:
            return self.score
        value = self.value(key)
        return self.metric.minimised(value) if key == METRIC else value

    def final_cost(self, key: str) -> float:
        """The overhead `key` of what is tested: a latency as it was measured, not as predicted.

        One that was not measured counts as infinite: nobody chooses what nobody knows.
        """
        if key not in LATENCIES:
            return self.objective(key)
        measured: float | None = getattr(self, key)
        return math.inf if measured is None else measured

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "Record":
        """The inverse of `to_dict`, also after JSON has made lists of the tuples."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: _with_tuples(table[name]) for name in names if name in table})


def _with_tuples(value: Any) -> Any:
    """The value with tuples for all lists in it."""
    if isinstance(value, list):
        return tuple(map(_with_tuples, value))
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return value


METRIC = "metric"
"""The objective that is measured; the others are costs."""
SCRATCH = "scratch"
WARM_START = "warm_start"
UNCOUNTED = "operators without a count, taken as 0 MACs"
"""What is said of what is in `Record.uncounted`."""
SCORE = "score"
"""In place of METRIC in a front of what the search has scored."""
OBJECTIVES = {
    METRIC: "val_metric",
    "params_overhead": "params_overhead",
    "macs_conv_fc_overhead": "macs_conv_fc_overhead",
    "macs_overhead": "macs_overhead",
    "activations_overhead": "activations_overhead",
    "latency_overhead": "predicted_latency_overhead",
    "deployed_latency_overhead": "predicted_deployed_latency_overhead",
}
"""What a study may search for -> the record's field that has it.

Costs are minimised, and the metric where smaller is better; else it is maximised. Latencies are
those that are predicted: the measured ones are known of finalists only.
"""
LATENCIES = {
    "latency_overhead": "latency_interval",
    "deployed_latency_overhead": "deployed_latency_interval",
}
"""The measured overheads in time -> the field of the interval: as trained, and as deployed."""


def costs_of(objectives: Sequence[str]) -> tuple[str, ...]:
    """The objectives beside the metric."""
    return tuple(key for key in objectives if key not in (METRIC, SCORE))


def ablation_number(number: int, index: int) -> int:
    """The number of the ablation that leaves out site `index` of candidate `number`."""
    return FIRST[ABLATION] + ABLATIONS * number + index


def main_records(records: Iterable[Record]) -> list[Record]:
    """The references and the searched records: all but the random baseline and the ablations."""
    return [record for record in records if record.is_main]


def startup_of(records: Iterable[Record], startup: int) -> list[Record]:
    """The first `startup` searched records, which were drawn at random."""
    main = main_records(records)
    end = startup + sum(record.is_reference for record in main)
    return [record for record in main if record.is_searched and record.number < end]


def search_epochs(records: Iterable[Record]) -> int:
    """The epochs that the search has trained its own candidates, references not counted."""
    return sum(record.trained_epochs for record in records if record.is_searched)


def trained_after_rung(records: Iterable[Record], epochs: int) -> list[Record]:
    """The complete records that had a shorter training of so many epochs before."""
    return [record for record in records if record.complete and epochs in record.rung_epochs]


def best_of(records: Iterable[Record]) -> Record | None:
    """The complete record of best score, the first of equals; None if there is none."""
    complete = [record for record in records if record.complete]
    return min(complete, key=lambda r: (r.score, r.number), default=None)
