"""From a request to what a run needs: resolved and checked, before data are read and anything is
trained or written.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attach import fit
from bam_search.model.build import sites_of
from bam_search.model.choice_space import choice_space_of
from bam_search.model.load import load
from bam_search.score.cost_table import CostTable, cost_table
from bam_search.score.data import CIFAR_INPUTS, Source, locate
from bam_search.score.device import Device, choose, threads_each
from bam_search.search.storage import StudyStorage
from bam_search.search.study import Study, load_study
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace, SearchSpace
from bam_search.space.sites import NoSuchSites, Sites

COMPILING = (
    "recipe.compile: nearly every candidate of a search compiles anew, as each site, r and d is code of its own; that takes up to a minute "
    "each, and pays only where a training takes much longer"
)


@dataclass(frozen=True)
class RunOptions:
    """Where and how long a study runs, and by whom: nothing that changes what comes out.

    Seconds; None is "no limit".
    """

    out: Path | None = None
    name: str | None = None
    storage: str | None = None
    executor: str = "local"
    address: str | None = None
    time_limit: float | None = None
    max_failures: int | None = None
    force_new: bool = False


@dataclass(frozen=True)
class Request:
    """What the command line asked for; `part` is the folder, below the study's, of one of its
    several spaces.
    """

    study: str
    device: str
    assignments: tuple[str, ...]
    flags: dict[str, Any]
    options: RunOptions = field(default_factory=RunOptions)
    part: str = ""

    @property
    def name(self) -> str:
        """The study's name."""
        return self.options.name or Path(self.study).stem


def one_per_space(request: Request) -> list[Request]:
    """The request for each of the study's spaces: a study of one space is one request.

    Raises UserError.
    """
    study = load_study(request.study, choose(request.device), request.flags, request.assignments)
    parts = {space: re.sub(r"[^\w.]+", "-", space).strip("-.") for space in study.spaces}
    return [
        replace(request, flags={**request.flags, "space": space}, part=part)
        for space, part in parts.items()
    ] or [request]


@dataclass(frozen=True)
class ResolvedRun:
    """The request, resolved and checked, before data are read and anything is trained."""

    name: str
    part: str
    options: RunOptions
    device: Device
    study: Study
    source: Source
    space: SearchSpace
    sites: Sites
    choice_space: ChoiceSpace
    costs: CostTable
    references: Mapping[str, Placement]
    notes: tuple[str, ...]

    @property
    def first_line(self) -> str:
        """Which variant runs, and why."""
        return f"{self.name}: the {self.device.variant} variant runs on {self.device.name}, because {self.device.reason}"

    @property
    def searches(self) -> bool:
        """Whether there is anything beside the references: a study of as many trials as references
        only compares these.
        """
        return self.study.trials > len(self.study.references)

    @property
    def advice(self) -> tuple[str, ...]:
        """What the user should know of the request before it runs."""
        compiling = (COMPILING,) if self.searches and self.study.recipe.compile else ()
        return (
            *compiling,
            *(
                [_left_out(self.choice_space.left_out)]
                if self.searches and self.choice_space.left_out
                else []
            ),
        )

    @property
    def threads(self) -> int:
        """CPU threads of one worker."""
        return threads_each(self.study.workers)


def resolve_run(request: Request) -> ResolvedRun:
    """Resolve and check a request. Raises UserError."""
    device = choose(request.device)
    study = load_study(request.study, device, request.flags, request.assignments)
    source = locate(study.data.source)
    _check_how(request.options)
    space = load(study.space, CIFAR_INPUTS)
    if (space.input_shape, space.classes) != (CIFAR_INPUTS.shape, CIFAR_INPUTS.classes):
        raise UserError(
            f"space {study.space!r} is for images of shape {space.input_shape} in {space.classes} classes",
            "a study trains on CIFAR-100",
        )
    sites = sites_of(space)
    offered = choice_space_of(space, sites)
    costs = cost_table(space, sites)
    _check_logits(costs.net, space)
    references, notes = _references(study, sites, costs)
    if study.trials == len(
        study.references
    ):  # a comparison stays one where references are left out: none is searched in their place
        if not references:
            raise UserError(f"no reference of the study fits {space.name}", notes[0])
        study = replace(study, trials=len(references))
    name = "/".join(filter(None, (request.name, request.part)))
    return ResolvedRun(
        name,
        request.part,
        request.options,
        device,
        study,
        source,
        space,
        sites,
        offered,
        costs,
        references,
        notes,
    )


def _left_out(sites: tuple[str, ...]) -> str:
    words = "1 site is" if len(sites) == 1 else f"{len(sites)} sites are"
    return f"{words} not searched, as no module with any of its options is legal there: {', '.join(sites)}"


def _check_how(how: RunOptions) -> None:
    StudyStorage.of(Path(), how.storage, "")  # a mistake in it is told before anything is read
    if how.address and how.executor != "ray":
        raise UserError(
            f"--address {how.address!r} is of a Ray cluster, and --executor is {how.executor}",
            "add --executor ray",
        )


def _references(
    study: Study, sites: Sites, costs: CostTable
) -> tuple[dict[str, Placement], tuple[str, ...]]:
    """The references as they fit this network, and what had to be changed or left out for that."""
    found: dict[str, Placement] = {}
    notes: list[str] = []
    for name, text in study.references.items():
        try:
            found[name], changes = fit(text, sites)
            costs.cost(found[name])  # raises for a `block` where the backbone has none to repeat
        except NoSuchSites as error:
            changes = (f"{error.message}; left out",)
        except UserError as error:
            raise UserError(f"reference {name!r}: {error.message}", error.hint) from None
        notes += [f"reference {name!r}: {change}" for change in changes]
    return found, (*notes, *_equal(found))


def _equal(references: Mapping[str, Placement]) -> Iterator[str]:
    first: dict[str, str] = {}
    for name, placement in references.items():
        if first.setdefault(placement.id, name) != name:
            yield f"reference {name!r} is the same placement as {first[placement.id]!r} here: {placement.text}"


def _check_logits(net: nn.Module, space: SearchSpace) -> None:
    with torch.no_grad():
        output = net.eval()(torch.zeros(2, *space.input_shape))
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (2, space.classes):
        raise UserError(
            f"the backbone of {space.name} returns {found} for 2 images",
            f"a study needs logits, one tensor (2, {space.classes})",
        )
