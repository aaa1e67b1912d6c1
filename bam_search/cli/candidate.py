"""A candidate of a finished report as a model, and how its study trains it.

The report's `study.json` says which space the study searched, on which data, with which recipe.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from bam_search.errors import UserError, first_line, nearest
from bam_search.model.attach import attach
from bam_search.model.attention import use_module_files
from bam_search.model.build import backbone
from bam_search.model.load import Inputs, load
from bam_search.report.payload import read
from bam_search.report.tables import read_records
from bam_search.score.context import TrainingContext
from bam_search.score.device import Device, choose
from bam_search.search.store import MODULE_FILES_KEY
from bam_search.search.study import FROM, DataPlan
from bam_search.space.modules import files_of
from bam_search.space.search_space import SearchSpace
from bam_search.study.record import Record
from bam_search.tasks.load_task import load_task
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Dataset, Split, Task


@dataclass(frozen=True, eq=False)
class Candidate:
    """A record of a report, the name under which its space is loaded, and the space."""

    record: Record
    name: str
    space: SearchSpace

    def net(self, seed: int) -> nn.Module:
        """Return its model, untrained, with the weights that `seed` draws."""
        net = backbone(self.space, seed)
        attach(net, self.record.placement, self.space.input_shape, seed=seed)
        return net


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


def find(folder: Path, tag: str, modules: Mapping[str, str]) -> Candidate:
    """Return the candidate that the report in `folder` calls `tag`: 17, R3 or A5001.

    `modules` says where modules of the user's lie now, by name; the others are looked for where the
    study found them. Raises UserError.
    """
    records = {record.tag: record for record in read_records(folder)}
    if tag not in records:
        hint = nearest(tag, records) if records else "it has none"
        raise UserError(f"{folder} has no candidate {tag}", hint)
    identity = _identity(folder)
    _use_modules(identity, modules)
    name, task = str(identity["space"]), load_task(str(identity["task"]), _inputs(identity))
    return Candidate(records[tag], name, load(name, task.inputs))


def _inputs(identity: Mapping[str, Any]) -> Inputs | None:
    """What the study's data needed; None where study.json does not say it."""
    inputs = identity["data"].get("inputs")
    return Inputs(tuple(inputs["shape"]), inputs["classes"]) if inputs else None


def recommended(folder: Path) -> str:
    """Return what the report in `folder` calls the candidate that it recommends.

    Raises UserError if it recommends none.
    """
    _, _, found = read(folder / "index.html")
    if found.get("recommended") is None:
        raise UserError(f"the report in {folder} recommends nothing", "name one: --candidate 3")
    return str(found["recommended"]["tag"])


def setup(folder: Path, source: str, device: str) -> Setup:
    """Return how the study in `folder` trains.

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
    task = load_task(str(identity["task"]))
    located = task.locate(source)
    task = load_task(str(identity["task"]), located.inputs)
    data = located.load()
    if data.digest != digest:
        raise UserError(
            f"{data.name} ({data.origin}) is not what the study was run on: "
            f"sha256 {data.digest}, not {digest}",
            "name it with --data",
        )
    parts = task.split(data, plan.sizes(len(data.train)), seed)
    return Setup(task, data, parts, recipe, choose(device), seed)


def load_weights(net: nn.Module, path: Path) -> None:
    """Load the state dict at `path` into `net`.

    Raises UserError if the file is no state dict of this model.
    """
    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    # torch raises many types for a file that is not a state dict of this model.
    except Exception as error:
        raise UserError(
            f"{path} is no state dict of this candidate: {first_line(error)}",
            "save it with torch.save(net.state_dict(), path)",
        ) from None


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


def _identity(folder: Path) -> Mapping[str, Any]:
    """Return what identifies the study in `folder`, which names its task and its space.

    Raises UserError.
    """
    path = folder / "study.json"
    try:
        identity: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["identity"]
        identity["task"], identity["space"]
    except (OSError, ValueError, KeyError, TypeError):
        raise _unknown(folder) from None
    return identity


def _unknown(folder: Path) -> UserError:
    return UserError(
        f"{folder / 'study.json'} does not say what the study searched, and on which task",
        "name the folder of a report",
    )
