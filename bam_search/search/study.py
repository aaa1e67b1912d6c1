"""A study file, resolved for a device, and checked.

The table of the device's variant ([cpu] or [gpu]) overrides the common part of the file, and the
command line overrides both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from bam_search.config import Table, assignment, build, find, flat, overlay, read_toml, strict
from bam_search.errors import UserError, nearest
from bam_search.model.start import StartPlan
from bam_search.score.device import Device
from bam_search.search.generator import SAMPLERS
from bam_search.search.scoring import SCORINGS
from bam_search.space.model_name import canonical_name
from bam_search.space.modules import EXAMPLE
from bam_search.space.placement import Option, Placement
from bam_search.space.search_space import SearchSpace
from bam_search.study.published import PublishedFigure
from bam_search.study.record import LATENCIES, METRIC, OBJECTIVES, SCORE, WARM_START, costs_of
from bam_search.tasks.reading import Progress, Reading, silent
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes

VARIANTS = ("cpu", "gpu")
LARGEST = {"cpu": 64, "cuda": 224}
"""Pixels a side: the largest working size that is chosen for pictures, by the kind of device."""
Side = Annotated[int, Ge(8), Le(4096)]
AUTO = "auto"
"""The `data.source` of a study that names none: the task's own, wherever it is found."""


@strict
@dataclass(frozen=True)
class DataPlan:
    """Which samples a study uses.

    `source` is as for --data. `images` of the training set train, and `validation` of it scores the
    search: a share of the whole training set, or a number of samples. Samples that train nobody
    come first; if there are too few, the search trains on so many fewer than `images`, and only
    finalists on all of these. `size` is the working size of images, in pixels: "auto", one number,
    or height and width; see `Reading`. `skip_unreadable` leaves unreadable files out, which are an
    error otherwise. `device_bytes` of the device's memory hold the training samples, and as many
    those that are measured; the default is a share of what is free. Where they are too few for all,
    samples pass through them ahead of the steps, which changes no result.
    """

    source: str = AUTO
    images: Annotated[int, Ge(1)] | Literal["all"] = "all"
    validation: Annotated[float, Gt(0), Lt(1)] | Annotated[int, Ge(1)] = 0.2
    size: Literal["auto"] | Side | tuple[Side, Side] = "auto"
    skip_unreadable: bool = False
    device_bytes: Annotated[int, Ge(1)] | None = None

    def reading(self, device: str, progress: Progress = silent) -> Reading:
        """How the data are read for a kind of device, "cpu" or "cuda"."""
        return Reading(self.size, LARGEST[device], self.skip_unreadable, progress)

    def sizes(self, total: int) -> SplitSizes:
        """The sizes of the split of `total` training samples. Raises UserError if it cannot be."""
        samples = None if self.images == "all" else self.images
        return SplitSizes.of(total, samples, self.validation)


FROM = "from"
"""The key of a module's table that names its file; all others are options."""


@strict
@dataclass(frozen=True)
class SearchPlan:
    """What a study searches. What is empty, the space says.

    `sites` are targets. `modules` has a table for each attention module, of the values to try for
    each option: `{"bam": {"r": [8, 16], "d": [1, 4]}}`. An option without values keeps its default.
    A module of the user's has a key `from`: `{"coord": {"from": "my_module.py:CoordAttention"}}`.
    """

    sites: tuple[str, ...] = ()
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, dict[str, tuple[Option, ...]]]:
        """The values to try for each option of each module."""
        return {
            name: {key: _values(value) for key, value in table.items() if key != FROM}
            for name, table in self.modules.items()
        }

    @property
    def sources(self) -> dict[str, str]:
        """Where the user's modules lie, by name: `{"coord": "my_module.py:CoordAttention"}`."""
        return {name: table[FROM] for name, table in self.modules.items() if FROM in table}

    def of(self, space: SearchSpace) -> SearchSpace:
        """`space` with the sites and modules of this plan, where it has any."""
        return replace(
            space, sites=self.sites or space.sites, modules=self.options or space.modules
        )


def _values(value: Any) -> tuple[Option, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


@strict
@dataclass(frozen=True)
class Rungs:
    """Short trainings, of `epochs` each, before the full one; see `bam_search.search.pruner`.

    A candidate is stopped if it is worse than an equally cheap one by `margin` standard deviations.
    A share `control` of candidates is trained to the end all the same; it shows how often stopping
    is wrong.
    """

    epochs: tuple[Annotated[int, Ge(1)], ...] = ()
    margin: Annotated[float, Ge(0)] = 2.0
    control: Annotated[float, Ge(0), Le(1)] = 0.1

    def scaled(self, share: float, full: int) -> "Rungs":
        """The rungs at `share` of their epochs, as many as are shorter than `full` epochs."""
        epochs = sorted({max(1, round(share * rung)) for rung in self.epochs})
        return replace(self, epochs=tuple(rung for rung in epochs if rung < full))


@strict
@dataclass(frozen=True)
class FinalistPlan:
    """How finalists are trained again.

    Each has `seeds` fresh seeds, and up to `most` where the recommendation hangs on it.
    The further trainings are at most the share `extra` of the first ones. `leave_one_out` also
    trains what a search recommends without each of its sites; a comparison says itself what it
    compares. `train_metric` also measures each on
    as many of its training samples as there are test samples, or all if these are fewer, without
    augmentation: the difference of the two is the generalisation gap.
    """

    seeds: Annotated[int, Ge(1), Le(100)] = 3
    most: Annotated[int, Ge(1), Le(1000)] = 6
    extra: Annotated[float, Ge(0), Le(100)] = 0.25
    leave_one_out: bool = True
    train_metric: bool = False

    def further(self, finalists: int) -> int:
        """The most trainings of so many finalists beyond their first seeds."""
        share = round(self.extra * self.seeds * finalists)
        return min(share, (self.most - self.seeds) * finalists)


@strict
@dataclass(frozen=True)
class RecommendPlan:
    """How a placement is recommended.

    It is the cheapest that no tested one is measurably better than: cheapest in the first of the
    overheads `by`, of equals in the second, and so on.
    """

    by: tuple[str, ...] = ("macs_conv_fc_overhead", "params_overhead")


@strict
@dataclass(frozen=True)
class Study:
    """A question, resolved for one device.

        >>> from bam_search import Study, run_study
        >>> study = Study(
        ...     question="Does BAM help this network?",
        ...     space="small",
        ...     references={"no attention": "none", "BAM": "bottleneck=bam"},
        ...     trials=2,
        ... )
        >>> small = {"data.images": 500, "recipe.epochs": 1, "finalists.seeds": 1}
        >>> result = run_study(study, data="cifar100.npz", device="cpu", out="bam", overrides=small)
        >>> [(record.name, record.complete) for record in result.records]
        [('no attention', True), ('BAM', True)]

    Attributes:
        objectives: what fronts are of: "metric", which the task measures, and overheads.
        task: what models are trained for: a name in `bam_search.tasks.load_task.TASKS`, or the path
            of a Python file.
        space: the search space; empty in a study of several `spaces`, which runs once on each.
        references: pinned placements by name, trained before the search.
        search: the sites and modules that are searched instead of the space's own.
        claim, paper: what the paper says, for the report.
        trials: the number of candidates, references included.
        startup: the first searched candidates, which are random; the sampler proposes the rest.
        max_params_overhead, max_macs_overhead, max_latency_overhead,
            max_deployed_latency_overhead: in percent (MACs of conv + fc; time of a forward pass as
            in training, and of one image as deployed, both as they are predicted). Placements above
            are not trained, except for references.
        random_baseline: also run a random search of the same training cost, which shares the
            startup.
        workers: how many trainings run at the same time.
        scoring: how the search scores a candidate: "scratch", by the metric after a training as
            long as a finalist's, or "warm_start", by the loss after a training half as long, that
            starts from a backbone which is trained once.
        start: what trainings start from: pretrained weights, how attention is inserted, and whether
            the backbone trains.
    """

    question: str
    space: str
    references: dict[str, str]
    task: str = "classification"
    spaces: tuple[str, ...] = ()
    search: SearchPlan = field(default_factory=SearchPlan)
    claim: str = ""
    paper: tuple[PublishedFigure, ...] = ()
    objectives: tuple[str, ...] = (METRIC, "params_overhead", "macs_conv_fc_overhead")
    sampler: str = next(iter(SAMPLERS))
    trials: Annotated[int, Ge(1), Le(100_000)] = 40
    startup: Annotated[int, Ge(0)] = 10
    max_params_overhead: Annotated[float, Ge(0)] | None = None
    max_macs_overhead: Annotated[float, Ge(0)] | None = None
    max_latency_overhead: Annotated[float, Ge(0)] | None = None
    max_deployed_latency_overhead: Annotated[float, Ge(0)] | None = None
    random_baseline: bool = True
    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    workers: Annotated[int, Ge(1), Le(1024)] = 1
    data: DataPlan = field(default_factory=DataPlan)
    recipe: Recipe = field(default_factory=Recipe)
    scoring: str = next(iter(SCORINGS))
    start: StartPlan = field(default_factory=StartPlan)
    rungs: Rungs = field(default_factory=Rungs)
    finalists: FinalistPlan = field(default_factory=FinalistPlan)
    recommend: RecommendPlan = field(default_factory=RecommendPlan)

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives beside the metric."""
        return costs_of(self.objectives)

    @property
    def limits(self) -> dict[str, float]:
        """The largest overheads that are trained, by the objective; without those not limited."""
        given = {
            "params_overhead": self.max_params_overhead,
            "macs_conv_fc_overhead": self.max_macs_overhead,
            "latency_overhead": self.max_latency_overhead,
            "deployed_latency_overhead": self.max_deployed_latency_overhead,
        }
        return {key: limit for key, limit in given.items() if limit is not None}

    @property
    def latencies(self) -> tuple[str, ...]:
        """The overheads in time that must be known before training: objectives and limits."""
        return tuple(key for key in LATENCIES if key in self.costs or key in self.limits)

    @property
    def search_epochs(self) -> int:
        """The epochs of a candidate's full training in the search."""
        return SCORINGS[self.scoring].epochs(self.recipe.epochs)

    @property
    def backbone_epochs(self) -> int:
        """The epochs of the backbone that candidates start from; 0 if there is none."""
        return SCORINGS[self.scoring].backbone * self.recipe.epochs

    @property
    def search_objectives(self) -> tuple[str, ...]:
        """The objectives with what the search minimises in place of the metric."""
        return tuple(SCORE if key == METRIC else key for key in self.objectives)

    @property
    def budgets(self) -> tuple[int, ...]:
        """The epochs of a candidate's trainings, in order; the last is the full one."""
        return (*self.rungs.epochs, self.search_epochs)

    @property
    def searches(self) -> bool:
        """Whether it has trials beside its references; otherwise it only compares these."""
        return self.trials > len(self.references)

    @property
    def ablates(self) -> bool:
        """Whether it also trains what it recommends without each of its sites."""
        return self.searches and self.finalists.leave_one_out

    def with_references_of_modules(self) -> "Study":
        """The study with each module of the user's in every block as a reference.

        A module that a reference has already gets none, nor does any where the study would have no
        trials left to search with. A comparison gets a trial more for each.
        """
        if not self.search.sources:
            return self
        placements = map(Placement.parse, self.references.values())
        had = {choice.module for placement in placements for _, choice in placement.choices}
        new = [name for name in self.search.sources if name not in had]
        references = {f"{name} in every block": f"every-block={name}" for name in new}
        references = {**self.references, **references}
        if not self.searches:
            return replace(self, references=references, trials=len(references))
        return replace(self, references=references) if self.trials > len(references) else self

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def load_study(name: str, device: Device, flags: Table, assignments: Sequence[str]) -> Study:
    """The study `name` (in studies/, or a path to a TOML file), resolved for `device`.

    `assignments` and then `flags`, both of the command line, override the file. Raises UserError,
    listing every mistake of the file at once.
    """
    path = find("studies", name, ".toml")
    table = read_toml(path)
    common = {key: value for key, value in table.items() if key not in VARIANTS}
    missing = [variant for variant in VARIANTS if not isinstance(table.get(variant), Mapping)]
    if missing:
        raise UserError(
            f"{path} has no table [{missing[0]}]",
            "a study says what it does on a CPU and on a GPU, in [cpu] and [gpu]",
        )
    # Both variants are checked, so that a mistake in the other one shows on this machine too.
    for variant in VARIANTS:
        build(Study, _filled(_merged(common, table[variant])), f"{path}, variant {variant},")
    resolved = _merged(common, table[device.variant])
    where = "the study with the options of the command line"
    return _overridden(resolved, flags, assignments, where)


def with_overrides(study: Study, flags: Table, assignments: Sequence[str]) -> Study:
    """The study with other values; as in `load_study`, `assignments` and then `flags` override it.

    Raises UserError, listing every mistake at once.
    """
    return _overridden(study.to_dict(), flags, assignments, "the study")


def _overridden(table: Table, flags: Table, assignments: Sequence[str], where: str) -> Study:
    """The study of a table with other values, checked; `where` names it in a mistake."""
    overrides = (*map(assignment, assignments), flags)
    for override in overrides:
        table = _merged(table, override)
    study = _with_most_seeds(build(Study, _filled(table), where), overrides)
    spaces = tuple(map(canonical_name, study.spaces))
    study = replace(study, space=canonical_name(study.space), spaces=spaces)
    _check(study)
    return study


def _with_most_seeds(study: Study, overrides: Sequence[Table]) -> Study:
    """The study, whose `finalists.most` follows where `finalists.seeds` alone was raised."""
    overridden = {key for override in overrides for key in flat(override)}
    if "finalists.seeds" not in overridden or "finalists.most" in overridden:
        return study
    plan = study.finalists
    return replace(study, finalists=replace(plan, most=max(plan.most, plan.seeds)))


def _merged(table: Table, override: Table) -> Table:
    """`table` with the values of `override`, whose `space` or `spaces` replace both of `table`."""
    if "space" in override or "spaces" in override:
        table = {key: value for key, value in table.items() if key not in ("space", "spaces")}
    return overlay(table, override)


def _filled(table: Table) -> Table:
    """The table with an empty `space` if it has `spaces`.

    A table with neither stays as it is, for its mistake to show.
    """
    return {"space": "", **table} if table.get("spaces") else table


def _check(study: Study) -> None:
    """Raise UserError where settings do not fit together."""
    _check_spaces_and_paper(study)
    _check_searched(study.search)
    _check_objectives(study)
    _check_recommend(study.recommend)
    if study.sampler not in SAMPLERS:
        raise UserError(f"there is no sampler {study.sampler!r}", nearest(study.sampler, SAMPLERS))
    _check_scoring(study)
    check_amounts(study)
    if study.recipe.fuse and study.start.backbone == "frozen":
        raise UserError(
            'recipe.fuse is true and start.backbone is "frozen"',
            "a frozen normalisation is not fused; set recipe.fuse to false",
        )


def _check_searched(plan: SearchPlan) -> None:
    """Raise UserError for a value that no option can have, or for none at all."""
    for module, table in plan.modules.items():
        if not isinstance(table.get(FROM, ""), str):
            raise UserError(f"search.modules.{module}.from = {table[FROM]!r}", EXAMPLE)
        for option, values in plan.options.get(module, {}).items():
            usable = [isinstance(value, (bool, int, float, str)) for value in values]
            if not usable or not all(usable) or len(set(values)) < len(values):
                raise UserError(
                    f"search.modules.{module}.{option} = {list(values)}",
                    "give a list of values, each once: numbers, true, false or words",
                )


def _check_objectives(study: Study) -> None:
    for key in study.objectives:
        if key not in OBJECTIVES:
            raise UserError(f"there is no objective {key!r}", nearest(key, OBJECTIVES))
    different = len(set(study.objectives))
    repeated = different < len(study.objectives)
    if METRIC not in study.objectives or different < 2 or repeated:
        raise UserError(
            f"objectives = {list(study.objectives)}",
            f"a front needs {METRIC!r} and at least one overhead, each once",
        )


def _check_recommend(plan: RecommendPlan) -> None:
    overheads = [key for key in OBJECTIVES if key != METRIC]
    for key in plan.by:
        if key not in overheads:
            raise UserError(f"recommend.by = {list(plan.by)}: no {key!r}", nearest(key, overheads))
    if not plan.by or len(set(plan.by)) < len(plan.by):
        raise UserError(
            f"recommend.by = {list(plan.by)}",
            f"name the overheads to be cheap in, each once: {', '.join(overheads)}",
        )


def _check_scoring(study: Study) -> None:
    """Raise UserError for an unknown scoring, or one that does not fit the other settings."""
    if study.scoring not in SCORINGS:
        raise UserError(f"there is no scoring {study.scoring!r}", nearest(study.scoring, SCORINGS))
    if study.scoring != WARM_START:
        return
    if study.rungs.epochs:
        raise UserError(
            f"rungs.epochs = {list(study.rungs.epochs)} with scoring = {WARM_START!r}",
            "rungs forecast the metric of a training from scratch; leave one of the two out",
        )
    if study.start.insertion == "identity":
        raise UserError(
            f'start.insertion = "identity" with scoring = {WARM_START!r}',
            "a short training hardly opens a gate that starts at 0, and all placements score alike",
        )


def check_amounts(study: Study) -> None:
    """Raise UserError for rungs, seeds or trials that do not go together."""
    if list(study.budgets) != sorted(set(study.budgets)):
        raise UserError(
            f"rungs.epochs = {list(study.rungs.epochs)} with recipe.epochs = {study.recipe.epochs}",
            "rungs ascend, each shorter than the full training",
        )
    if study.finalists.most < study.finalists.seeds:
        raise UserError(
            f"finalists.most = {study.finalists.most} is less than "
            f"finalists.seeds = {study.finalists.seeds}",
            "raise the one or lower the other",
        )
    if study.trials < len(study.references):
        raise UserError(
            f"trials = {study.trials}, but the study pins {len(study.references)} "
            "reference placements, which count",
            f"use --trials {len(study.references)} or more",
        )


def _check_spaces_and_paper(study: Study) -> None:
    if study.spaces and (study.space or len(set(study.spaces)) < len(study.spaces)):
        raise UserError(
            f"spaces = {list(study.spaces)}, space = {study.space!r}",
            "give one space, or several, each once",
        )
    for entry in study.paper:
        if entry.reference not in study.references:
            raise UserError(
                f"paper: there is no reference {entry.reference!r}",
                nearest(entry.reference, study.references),
            )
