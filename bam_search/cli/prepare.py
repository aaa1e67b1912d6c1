"""From a request to what a run needs: resolved and checked, before data are read and anything is trained or written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bam_search.errors import UserError
from bam_search.model.attach import resolve
from bam_search.model.build import sites_of
from bam_search.model.sites import menu
from bam_search.score.cost_table import CostTable, cost_table
from bam_search.score.data import CLASSES, SHAPE, Source, locate
from bam_search.score.device import Device, choose, cores
from bam_search.search.study import Study, load_study
from bam_search.space.search_space import Menu, SearchSpace, Site, load_space


@dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    study: str
    device: str
    out: Path | None
    assignments: tuple[str, ...]
    flags: dict[str, Any]


@dataclass(frozen=True)
class Ready:
    """The request, resolved and checked, before data are read and anything is trained."""

    name: str
    device: Device
    study: Study
    source: Source
    space: SearchSpace
    sites: tuple[Site, ...]
    menu: Menu
    costs: CostTable

    @property
    def first_line(self) -> str:
        """Which variant runs, and why."""
        return f"{self.name}: the {self.device.variant} variant runs on {self.device.name}, because {self.device.reason}"

    @property
    def threads(self) -> int:
        """CPU threads of one worker: the cores are shared out evenly."""
        return max(1, cores() // self.study.workers)


def prepare(request: Request) -> Ready:
    """Resolve and check a request. Raises UserError."""
    device = choose(request.device)
    study = load_study(request.study, device, request.flags, request.assignments)
    source = locate(study.data.source)
    space = load_space(study.space)
    if (space.input_shape, space.classes) != (SHAPE, CLASSES):
        raise UserError(
            f"space {study.space!r} is for images of shape {space.input_shape} in {space.classes} classes", "a study trains on CIFAR-100"
        )
    sites = sites_of(space)
    offered = menu(space, sites)
    costs = cost_table(space, sites)
    for name, text in study.references.items():
        try:
            costs.cost(resolve(text, sites))
        except UserError as error:
            raise UserError(f"reference {name!r}: {error.message}", error.hint) from None
    return Ready(Path(request.study).stem, device, study, source, space, sites, offered, costs)
