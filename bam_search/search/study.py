"""A study file, resolved: the part for this device laid on the common part, the command line on
top, all checked at once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from bam_search.config import Table, assignment, build, find, overlay, read_toml, strict
from bam_search.errors import UserError, nearest
from bam_search.score.device import Device
from bam_search.score.recipe import Recipe
from bam_search.search.published import PublishedFigure
from bam_search.search.record import OBJECTIVES, costs_of
from bam_search.search.sampler import SAMPLERS

VARIANTS = ("cpu", "gpu")


@strict
@dataclass(frozen=True)
class DataPlan:
    """`source` as for --data; `images` of the training set are used, and the share `validation` of
    these is held out for the search.
    """

    source: str = "auto"
    images: Annotated[int, Ge(1)] | Literal["all"] = "all"
    validation: Annotated[float, Gt(0), Lt(1)] = 0.1

    @property
    def limit(self) -> int | None:
        """The number of images, None for all."""
        return None if self.images == "all" else self.images


@strict
@dataclass(frozen=True)
class Rungs:
    """Shorter trainings of `epochs` each come before the full one; see `bam_search.search.pruner`.

    A candidate is stopped that is worse than an equally cheap one by `margin` standard deviations;
    a share `audit` of candidates is trained to the end all the same, to see how often that is
    wrong.
    """

    epochs: tuple[Annotated[int, Ge(1)], ...] = ()
    margin: Annotated[float, Ge(0)] = 2.0
    control: Annotated[float, Ge(0), Le(1)] = 0.1


@strict
@dataclass(frozen=True)
class FinalistPlan:
    """How finalists are trained again: with `seeds` fresh seeds each, those that cannot be told
    apart with up to `most`.

    The further trainings are at most the share `extra` of the first ones. `leave_one_out` also
    trains the winner without each of its sites.
    """

    seeds: Annotated[int, Ge(1), Le(100)] = 3
    most: Annotated[int, Ge(1), Le(1000)] = 6
    extra: Annotated[float, Ge(0), Le(100)] = 0.25
    leave_one_out: bool = True


@strict
@dataclass(frozen=True)
class Study:
    """A question, resolved for one device.

    `references` are pinned placements by name, trained before anything is searched.

    `trials` is the total of candidates, references included; the first `startup` searched ones are
    drawn at random over the number of sites, the sampler chooses the rest. Placements above
    `max_params_overhead` or `max_macs_overhead` (conv + fc), in percent, are not trained, but for
    pinned references. `random_baseline` adds a random search of the same training cost, which
    shares the startup. `workers` train at the same time. A study of several `spaces` has no
    `space`: it runs once on each. `paper` and `claim` are what the paper says, for the report.
    """

    question: str
    space: str
    references: dict[str, str]
    spaces: tuple[str, ...] = ()
    claim: str = ""
    paper: tuple[PublishedFigure, ...] = ()
    objectives: tuple[str, ...] = ("error", "params_overhead", "macs_conv_fc_overhead")
    sampler: str = next(iter(SAMPLERS))
    trials: Annotated[int, Ge(1), Le(100_000)] = 40
    startup: Annotated[int, Ge(0)] = 10
    max_params_overhead: Annotated[float, Ge(0)] | None = None
    max_macs_overhead: Annotated[float, Ge(0)] | None = None
    random_baseline: bool = True
    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    workers: Annotated[int, Ge(1), Le(1024)] = 1
    data: DataPlan = field(default_factory=DataPlan)
    recipe: Recipe = field(default_factory=Recipe)
    rungs: Rungs = field(default_factory=Rungs)
    finalists: FinalistPlan = field(default_factory=FinalistPlan)

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives beside the error."""
        return costs_of(self.objectives)

    @property
    def limits(self) -> dict[str, float]:
        """The largest overheads that are trained, by the field of a record; infinite without a
        limit.
        """
        given = {
            "params_overhead": self.max_params_overhead,
            "macs_conv_fc_overhead": self.max_macs_overhead,
        }
        return {key: math.inf if limit is None else limit for key, limit in given.items()}

    @property
    def budgets(self) -> tuple[int, ...]:
        """The epochs of a candidate's trainings, one after the other; the last is the full one."""
        return (*self.rungs.epochs, self.recipe.epochs)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def load_study(name: str, device: Device, flags: Table, assignments: Sequence[str]) -> Study:
    """The study `name` (in studies/, or a path to a TOML file) for `device`, with the command
    line's flags and assignments on it.

    Raises UserError, listing every mistake of the file at once.
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
    # Both variants are checked, so that a mistake in the other one does not wait for another
    # machine.
    for variant in VARIANTS:
        build(Study, _filled(_laid(common, table[variant])), f"{path}, variant {variant},")
    resolved = _laid(common, table[device.variant])
    for over in (*map(assignment, assignments), flags):
        resolved = _laid(resolved, over)
    study = build(Study, _filled(resolved), "the study with the options of the command line")
    _check(study)
    return study


def _laid(base: Table, over: Table) -> Table:
    """`over` laid on `base`: where it names a space or several, these take the place of what `base`
    names.
    """
    named = {"space", "spaces"}
    return overlay(
        {key: value for key, value in base.items() if key not in named or not named & set(over)},
        over,
    )


def _filled(table: Table) -> Table:
    """The table as it is, with no space where it has several; a table with neither keeps its
    mistake.
    """
    return {"space": "", **table} if table.get("spaces") else table


def _check(study: Study) -> None:
    _check_spaces_and_paper(study)
    for key in study.objectives:
        if key not in OBJECTIVES:
            raise UserError(f"there is no objective {key!r}", nearest(key, OBJECTIVES))
    if "error" not in study.objectives or len(set(study.objectives)) < max(
        2, len(study.objectives)
    ):
        raise UserError(
            f"objectives = {list(study.objectives)}",
            "a front needs 'error' and at least one overhead, each once",
        )
    if study.sampler not in SAMPLERS:
        raise UserError(f"there is no sampler {study.sampler!r}", nearest(study.sampler, SAMPLERS))
    if list(study.budgets) != sorted(set(study.budgets)):
        raise UserError(
            f"rungs.epochs = {list(study.rungs.epochs)} with recipe.epochs = {study.recipe.epochs}",
            "rungs ascend, each shorter than the full training",
        )
    if study.finalists.most < study.finalists.seeds:
        raise UserError(
            f"finalists.most = {study.finalists.most} is less than finalists.seeds = {study.finalists.seeds}",
            "raise the one or lower the other",
        )
    if study.trials < len(study.references):
        raise UserError(
            f"trials = {study.trials}, but the study pins {len(study.references)} reference placements, which count",
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
