"""A candidate of a finished report as a model, and how its study trains it.

The report's `study.json` says which space the study searched, on which data, with which recipe.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from torch import nn

from bam_search.cli.progress import steps
from bam_search.errors import UserError
from bam_search.model.attention import use_module_files
from bam_search.model.build import build, sites_of, start_of
from bam_search.model.load import Inputs, load
from bam_search.model.start import SCRATCH, Start, StartPlan
from bam_search.report.page import PAGE
from bam_search.report.payload import read
from bam_search.report.tables import called, read_records
from bam_search.score.context import TrainingContext
from bam_search.score.device import Device, choose
from bam_search.search.store import MODULE_FILES_KEY, SOURCE_KEY
from bam_search.search.study import FROM, DataPlan
from bam_search.space.modules import files_of
from bam_search.space.search_space import SearchSpace
from bam_search.study.record import STUDY_FILE, Record
from bam_search.tasks.load_task import load_task, task_on
from bam_search.tasks.reading import Reading
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Dataset, Source, Split, Task

NAME_DATA = "name the data that the study was run on with --data"
HINT = "name the weights that the study started from with --weights"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A record of a report, the name under which its space is loaded, and the space.

    `plan` is what its study says of the start of trainings, and `digest` that of the weights.
    """

    record: Record
    name: str
    space: SearchSpace
    plan: StartPlan
    digest: str

    def net(self, seed: int, start: Start = SCRATCH) -> nn.Module:
        """Return its model, untrained, with the weights of `start`, else those of `seed`."""
        start = replace(start, init=self.plan.init)
        return build(self.space, sites_of(self.space), self.record.placement, seed, start)

    def start(self, weights: str) -> Start:
        """Return what the study's trainings start from, with the weights in a file.

        Raises UserError if these are not the study's.
        """
        start = start_of(self.space, replace(self.plan, weights=weights))
        if start.digest != self.digest:
            given = f"{weights}, sha256 {start.digest}" if weights else "none"
            ours = f"weights of sha256 {self.digest}" if self.digest else "none"
            raise UserError(f"the study started from {ours}, not from {given}", HINT)
        return start


@dataclass(frozen=True, eq=False)
class Setup:
    """How the study of a report trains.

    The data, split, recipe and seed are the study's; the device is the one asked for now.
    """

    task: Task
    data: Dataset
    parts: Split
    recipe: Recipe
    device: Device
    seed: int

    @property
    def context(self) -> TrainingContext:
        """The training context of final trainings."""
        return TrainingContext.of(self.task, self.device, self.recipe, self.parts.train)


def tag_of(folder: Path, name: str) -> str:
    """Return the tag of a candidate that page and `run` call `name`: 17, #17, or a reference's.

    Raises UserError if there is none.
    """
    return called(read_records(folder), name, folder).tag


def find(folder: Path, tag: str, modules: Mapping[str, str]) -> Candidate:
    """Return the candidate that the report in `folder` calls `tag`: 17, R3 or A5001.

    `modules` says where modules of the user's lie now, by name; the others are looked for where the
    study found them. Raises UserError.
    """
    records = {record.tag: record for record in read_records(folder)}
    identity = _identity(folder)
    _use_modules(identity, modules)
    name, task = str(identity["space"]), load_task(str(identity["task"]), _inputs(identity))
    plan, digest = _start_plan(folder, identity)
    return Candidate(records[tag], name, load(name, task.inputs), plan, digest)


def _inputs(identity: Mapping[str, Any]) -> Inputs | None:
    """What the study's data needed; None where study.json does not say it."""
    inputs = identity["data"].get("inputs")
    return Inputs(tuple(inputs["shape"]), inputs["classes"]) if inputs else None


def _located(folder: Path, source: str | None, identity: Mapping[str, Any]) -> tuple[Task, Source]:
    """The study's task, and the source of its data. Raises UserError."""
    task, reading = str(identity["task"]), _reading(identity)
    if source is not None:
        return task_on(task, source, reading)
    try:
        return task_on(task, _study_file(folder).get(SOURCE_KEY) or "auto", reading)
    except UserError as error:
        raise UserError(f"the study's data: {error.message}", NAME_DATA) from None


def _reading(identity: Mapping[str, Any]) -> Reading:
    """How the study read its data: at their size, and without what was unreadable."""
    inputs, size = _inputs(identity), Reading().size
    if inputs and len(inputs.shape) == 3:  # images
        _, height, width = inputs.shape
        size = height, width
    return Reading(size, skip_unreadable=True, progress=steps)


def recommended(folder: Path) -> str:
    """Return what the report in `folder` calls the candidate that it recommends.

    Raises UserError if it recommends none.
    """
    _, _, values = read(folder / PAGE)
    recommended = values["found"]["recommended"]
    if recommended is None:
        raise UserError(f"the report in {folder} recommends nothing", "name one: --candidate 3")
    return str(recommended["tag"])


def setup(folder: Path, source: str | None, device: str) -> Setup:
    """Return how the study in `folder` trains.

    `source` is where its data are; without it, they are looked for where the study found them.

    Raises UserError if the data at `source` are not the study's.
    """
    identity = _identity(folder)
    try:
        recipe = Recipe(**identity["recipe"])
        seed = int(identity["seed"])
        digest = identity["data"]["digest"]
        plan = DataPlan(
            images=identity["data"]["images"], validation=identity["data"]["validation"]
        )
    except (KeyError, TypeError, ValueError):
        raise _unknown(folder) from None
    task, located = _located(folder, source, identity)
    data = located.load()
    if data.digest != digest:
        raise UserError(
            f"{data.name} ({data.origin}) is not what the study was run on: "
            f"sha256 {data.digest}, not {digest}",
            NAME_DATA,
        )
    parts = task.split(data, plan.sizes(len(data.train)), seed)
    return Setup(task, data, parts, recipe, choose(device), seed)


def _use_modules(identity: Mapping[str, Any], modules: Mapping[str, str]) -> None:
    """Make the user's modules of a study known, and say which of their files have changed.

    Raises UserError.
    """
    tables = identity.get("search", {}).get("modules", {})
    searched = {name: table[FROM] for name, table in tables.items() if FROM in table}
    files = files_of({**searched, **modules})
    use_module_files(files)
    digests = identity.get(MODULE_FILES_KEY, {})
    for name, file in files.items():
        if digests.get(name, file.digest) != file.digest:
            click.echo(f"{name}: {file.path} is not the file that the study was run with", err=True)


def _start_plan(folder: Path, identity: Mapping[str, Any]) -> tuple[StartPlan, str]:
    """Return how a study's trainings start, without their weights, and the weights' digest.

    Raises UserError.
    """
    try:
        table = dict(identity.get("start", {}))
        digest = str(table.pop("weights", ""))
        return StartPlan(**table), digest
    except (TypeError, ValueError):
        raise _unknown(folder) from None


def _identity(folder: Path) -> Mapping[str, Any]:
    """Return what identifies the study in `folder`, which names its task and its space.

    Raises UserError.
    """
    try:
        identity: Mapping[str, Any] = _study_file(folder)["identity"]
        identity["task"], identity["space"]
    except (KeyError, TypeError):
        raise _unknown(folder) from None
    return identity


def _study_file(folder: Path) -> dict[str, Any]:
    """Return the table in study.json. Raises UserError if there is none."""
    try:
        return dict(json.loads((folder / STUDY_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise _unknown(folder) from None


def _unknown(folder: Path) -> UserError:
    return UserError(
        f"{folder / STUDY_FILE} does not say what the study searched, and on which task",
        "name the folder of a report",
    )
