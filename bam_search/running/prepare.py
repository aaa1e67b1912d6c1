"""Resolve and check a request before a run reads data, trains or writes anything."""

import functools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bam_search.config import assignment, flat, known
from bam_search.errors import UserError, first_line, nearest
from bam_search.model.attach import fit_to_sites
from bam_search.model.attention import defaults, module_files, origin, use_module_files
from bam_search.model.build import sites_of, start_of
from bam_search.model.choice_space import choice_space_of
from bam_search.model.detector import is_detector
from bam_search.model.load import Inputs, load, load_once
from bam_search.model.start import SCRATCH, Start
from bam_search.running.fit import Fitted, fit, size_advice
from bam_search.running.smoke import NOTE, in_miniature
from bam_search.score.cost_table import CostTable, cost_table
from bam_search.score.device import Device, choose, threads_each
from bam_search.search.executors import EXECUTORS
from bam_search.search.storage import StudyStorage
from bam_search.search.study import AUTO, Study, load_study, with_overrides
from bam_search.space.modules import ModuleFile, files_of
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace, SearchSpace
from bam_search.space.sites import NoSuchSites, Site, Sites
from bam_search.space.user_file import Code, code_of
from bam_search.tasks.load_task import task_on
from bam_search.tasks.outputs import Outputs
from bam_search.tasks.reading import Progress, silent
from bam_search.tasks.recipe import Augment
from bam_search.tasks.task import Dataset, Source, Task
from bam_search.words import duration

COMPILING = (
    "recipe.compile: nearly every candidate of a search compiles anew, "
    "as each site, r and d is code of its own; "
    "that takes up to a minute each, and pays only where a training takes much longer"
)
IN_TRAINING = " in training"
NO_GRAPH = (
    "a detector's steps are no CUDA graph: "
    "it finds more in one image than in another, and asks the host how much"
)

STAND_IN_SIZES = {"classification": 64}
"""The working size of generated data that stand in for photographs: generated images of 32 pixels
leave the networks for photographs no map.
"""
OPEN = ("space", "question")
"""What of a smoke run is fitted to its data, where the user has not set it."""


@dataclass(frozen=True)
class RunOptions:
    """Options that do not change a study's results: where it writes, how long it runs, who trains.

    `time_limit` is in seconds. For `time_limit` and `max_failures` None means no limit; for the
    other options it means the default. `budget` is the seconds that a plan is made for; see
    `bam_search.running.plan`.
    """

    out: Path | None = None
    name: str | None = None
    storage: str | None = None
    executor: str = "local"
    address: str | None = None
    time_limit: float | None = None
    budget: float | None = None
    max_failures: int | None = None
    force_new: bool = False


@dataclass(frozen=True)
class Request:
    """What the command line, or Python, asked for.

    `study` is the name of a study, the path of its file, or the study itself, whose `flags` and
    `assignments` then override it. `device` is one of `score.device.DEVICES`, or a device that is
    not here, to plan for it.
    `part` is the folder, below the study's, of one of several spaces; it is empty for one space.
    `progress` is told how far reading the data is. `smoke`: as small as a study can be.
    """

    study: str | Study
    device: str | Device
    assignments: tuple[str, ...]
    flags: dict[str, Any]
    options: RunOptions = field(default_factory=RunOptions)
    part: str = ""
    progress: Progress = silent
    smoke: bool = False

    def __post_init__(self) -> None:
        if self.smoke and self.options.budget:
            raise UserError(
                f"a smoke run is as short as it can be, and has a budget of "
                f"{duration(self.options.budget)}",
                "leave one of the two out",
            )

    @property
    def name(self) -> str:
        """The study's name."""
        if self.options.name:
            return self.options.name
        return "study" if isinstance(self.study, Study) else Path(self.study).stem

    def folder(self, data: Dataset) -> Path:
        """The study's folder: the one asked for, or that of its name."""
        words = [self.name]
        words += ["generated"] if data.stands_in_for else []
        words += ["smoke"] if self.smoke else []
        return self.options.out or Path("reports") / "-".join(words)

    def study_on(self, device: Device) -> Study:
        """The study, resolved for `device`. Raises UserError, listing every mistake at once."""
        if isinstance(self.study, str):
            return load_study(self.study, device, self.flags, self.assignments)
        return with_overrides(self.study, self.flags, self.assignments)

    @property
    def found_device(self) -> Device:
        """The device. Raises UserError if it is not here."""
        return choose(self.device) if isinstance(self.device, str) else self.device

    def is_set(self, key: str) -> bool:
        """Whether `key`, such as "recipe.epochs", was asked for; in a study of one's own all is."""
        return self.study not in known("studies", ".toml") or self.is_asked(key)

    def is_asked(self, key: str) -> bool:
        """Whether `key` was asked for beside the study."""
        asked = [self.flags, *map(assignment, self.assignments)]
        return any(key in flat(table) for table in asked)


def one_per_space(request: Request) -> list[Request]:
    """Return a request for each of the study's spaces, or `request` itself for one space.

    Raises UserError.
    """
    study = request.study_on(request.found_device)
    folders = _folders(study.spaces)
    flags = {key: value for key, value in request.flags.items() if key != "spaces"}
    requests = [
        replace(request, flags={**flags, "space": space}, part=folder)
        for space, folder in folders.items()
    ]
    return requests or [request]


def _folders(spaces: Sequence[str]) -> dict[str, str]:
    """The name of a folder for each space; where names are alike, with a number."""
    folders: dict[str, str] = {}
    for space in spaces:
        plain = name = re.sub(r"[^\w.]+", "-", space).strip("-.")
        while name in folders.values():
            name = f"{plain}-{len(folders) + 1}"
        folders[space] = name
    return folders


@dataclass(frozen=True)
class ResolvedRun:
    """The request, resolved and checked, before data are read and anything is trained.

    `augment` is the augmentation as it was asked for; the study has what it means for its data.
    """

    name: str
    part: str
    options: RunOptions
    device: Device
    study: Study
    task: Task
    source: Source
    space: SearchSpace
    sites: Sites
    choice_space: ChoiceSpace
    costs: CostTable
    references: Mapping[str, Placement]
    notes: tuple[str, ...]
    start: Start = SCRATCH
    code: Code = ()
    fitted: tuple[str, ...] = ()
    smoke: bool = False
    augment: Augment = "auto"

    def with_study(self, study: Study) -> "ResolvedRun":
        """The same with another length of trainings, and number of candidates and seeds."""
        return replace(self, study=_with_augment(study, self.task, self.augment))

    @property
    def first_line(self) -> str:
        """Which variant runs, and why."""
        device = self.device
        return (
            f"{self.name}: the {device.variant} variant runs on {device.name}, "
            f"because {device.reason}"
        )

    @property
    def advice(self) -> tuple[str, ...]:
        """What the user should know of the request before it runs."""
        recipe = self.study.recipe
        advice = [NOTE] if self.smoke else []
        if self.start.note:
            advice.append(self.start.note)
        if self.fitted:
            advice.append(f"fitted to the data: {'; '.join(self.fitted)}")
        if self.device.type == "cuda" and is_detector(self.costs.net):
            advice.append(NO_GRAPH)
        if self.study.searches and recipe.compile:
            advice.append(COMPILING)
        if recipe.compile or recipe.fuse:
            key = "compile" if recipe.compile else "fuse"
            advice.append(f"recipe.{key}: the time told is that of steps without it")
        if self.study.searches:
            advice += _left_at_defaults(self.study)
        if self.study.searches and self.choice_space.left_out:
            advice.append(_left_out(self.choice_space.left_out))
        if self.study.searches and (unused := self.choice_space.unused(self.space.modules)):
            advice.append(f"not searched, as legal at no site that is: {', '.join(unused)}")
        return (*advice, *size_advice(self.study, self.task.inputs, self.candidate_sites))

    @functools.cached_property
    def natural_space(self) -> SearchSpace:
        """The space as it is without these data; loaded once, as its file may change meanwhile."""
        return load(self.study.space)

    def opening_lines(self, data: Dataset | None) -> tuple[str, ...]:
        """What is said of the data, the references and the request before anything is trained."""
        of_data = data.notes if data else ()
        return (*self.source.notes, *of_data, *self.notes, *self.advice)

    @property
    def candidate_sites(self) -> list[Site]:
        """The sites that the space names, those at which nothing is legal included."""
        named = {*self.choice_space.sites, *self.choice_space.left_out}
        return [site for site in self.sites if site.name in named]

    @property
    def modules(self) -> set[str]:
        """The attention modules in the choice space and the references."""
        choices = [
            choice for placement in self.references.values() for _, choice in placement.choices
        ]
        return {choice.module for choice in choices} | set(self.choice_space.defaults)

    @property
    def module_files(self) -> dict[str, ModuleFile]:
        """The files of the user's among the modules, by name."""
        used = self.modules
        return {name: file for name, file in module_files().items() if name in used}

    @property
    def threads(self) -> int:
        """CPU threads of one worker."""
        return threads_each(self.study.workers)


def resolve_run(request: Request) -> ResolvedRun:
    """Resolve and check a request. Raises UserError."""
    device = request.found_device
    study, stand_in = _with_data_at_hand(request.study_on(device), request)
    _check_options(request.options)
    use_module_files(files_of(study.search.sources))
    reading = study.data.reading(device.type, request.progress)
    task, source = task_on(study.task, study.data.source, reading)
    study.recipe.check_keys(task.name, task.recipe_keys)
    asked, study = study.references, study.with_references_of_modules()
    fitted = _sized(study, source.train, task.inputs, request)
    augment = fitted.study.recipe.augment
    study = _with_augment(fitted.study, task, augment)
    code = code_of((study.space.partition(":")[0], study.task))
    space = study.search.of(load_once(study.space, task.inputs, code))
    _check_inputs(space, study.space, task)
    sites = sites_of(space)
    start = start_of(space, study.start)
    choice_space = choice_space_of(space, sites)
    costs = cost_table(space, sites, gated=study.start.insertion == "identity")
    check_outputs(costs.net, space, task.outputs)
    study = _without_graph(study, costs.net)
    references, notes = _references(study, asked, sites, costs)
    if not study.searches:
        if not references:
            raise UserError(f"no reference of the study fits {space.name}", notes[0])
        # Nothing is searched in place of the references that were left out.
        study = replace(study, trials=len(references))
    name = "/".join(filter(None, (request.name, request.part)))
    ready = ResolvedRun(
        name=name,
        part=request.part,
        options=request.options,
        device=device,
        study=study,
        task=task,
        source=source,
        space=space,
        sites=sites,
        choice_space=choice_space,
        costs=costs,
        references=references,
        notes=(*stand_in, *notes),
        start=start,
        code=code,
        fitted=fitted.changes,
        smoke=request.smoke,
        augment=augment,
    )
    _check_modules(ready.modules)
    return ready


def _with_data_at_hand(study: Study, request: Request) -> tuple[Study, tuple[str, ...]]:
    """The study, and what to say of it: a smoke run needs no data to show that all works.

    One of a study that ships, whose folder of data is not there, takes generated ones.
    """
    source, size = study.data.source, study.data.size
    is_there = "/" not in source or Path(source).exists()
    if is_there or not request.smoke or request.is_set("data.source"):
        return study, ()
    note = f"{source} is not there, so this smoke run takes generated data; --data names yours"
    if not request.is_asked("data.size"):
        size = STAND_IN_SIZES.get(study.task, size)
    return replace(study, data=replace(study.data, source="generated", size=size)), (note,)


def _without_graph(study: Study, net: nn.Module) -> Study:
    """The study; of a detector without CUDA graphs, see NO_GRAPH."""
    graph = study.recipe.cuda_graph and not is_detector(net)
    return replace(study, recipe=replace(study.recipe, cuda_graph=graph))


def resolve_all(request: Request) -> list[ResolvedRun]:
    """Resolve and check a request on each of its study's spaces. Raises UserError."""
    return [resolve_run(of_space) for of_space in one_per_space(request)]


def worth(request: Request, ready: ResolvedRun, data: Dataset) -> Request:
    """Return `request`, or it as a smoke run where other data stand in for those it means.

    They say nothing about those, so they are not worth more time, unless they were asked for.
    """
    if not data.stands_in_for or ready.study.data.source != AUTO:
        return request
    return replace(request, smoke=True, options=replace(request.options, budget=None))


def _sized(study: Study, total: int, inputs: Inputs, request: Request) -> Fitted:
    """The study fitted to its data, or in miniature for a smoke run."""
    if not request.smoke:
        return fit(study, total, inputs, request.is_set)
    small = in_miniature(study, total, inputs.classes, request.is_asked)
    return fit(small, total, inputs, lambda key: key not in OPEN or request.is_set(key))


def _with_augment(study: Study, task: Task, augment: Augment) -> Study:
    """The study with the augmentation that was asked for, as it is for its epochs and its data."""
    if "augment" not in task.recipe_keys:
        return study
    recipe = replace(study.recipe, augment=augment)
    return replace(study, recipe=recipe.for_size(task.inputs.shape[1:]))


def _check_modules(names: Iterable[str]) -> None:
    """Raise UserError for a module that is in no file, such as a class of a notebook.

    No worker process could load it, and a continued study could not tell that it has changed.
    """
    for name in sorted(names):
        if origin(name) is None:
            raise UserError(
                f"the class of the attention module {name!r} is in no file",
                "write it to a .py file, and import it from there; "
                "in a notebook, %%writefile my_module.py does that",
            )


def _left_at_defaults(study: Study) -> Iterator[str]:
    """A line for each module of the user's of whose options none is searched."""
    for name in study.search.sources:
        options = defaults(name)
        if options and not study.search.options[name]:
            texts = {key: json.dumps(value) for key, value in options.items()}
            values = ", ".join(f"{key}={text}" for key, text in texts.items())
            key, text = next(iter(texts.items()))
            yield (
                f"the options of {name} keep their defaults, {values}; "
                f"--set 'search.modules.{name}.{key}=[{text}, ...]' searches one"
            )


def _left_out(sites: tuple[str, ...]) -> str:
    words = "1 site is" if len(sites) == 1 else f"{len(sites)} sites are"
    names = ", ".join(sites)
    return f"{words} not searched, as no module with any of its options is legal there: {names}"


def _check_options(options: RunOptions) -> None:
    """Raise UserError for no such storage or executor, or an address that nothing uses."""
    StudyStorage.of(Path(), options.storage, "")
    if options.executor not in EXECUTORS:
        hint = nearest(options.executor, EXECUTORS)
        raise UserError(f"there is no executor {options.executor!r}", hint)
    if options.address and options.executor != "ray":
        raise UserError(
            f"--address {options.address!r} is of a Ray cluster, "
            f"and --executor is {options.executor}",
            "add --executor ray",
        )


def _check_inputs(space: SearchSpace, name: str, task: Task) -> None:
    inputs = task.inputs
    if (space.input_shape, space.classes) != (inputs.shape, inputs.classes):
        raise UserError(
            f"space {name!r} takes {space.input_shape} and has {space.classes} outputs",
            f"the study's task, {task.name}, needs {inputs.shape} and {inputs.classes}",
        )


def _references(
    study: Study, asked: Collection[str], sites: Sites, costs: CostTable
) -> tuple[dict[str, Placement], tuple[str, ...]]:
    """Return the references as they fit this network, and notes on what was changed or left out.

    One that does not fit is an error if it was `asked` for by its name. Raises UserError.
    """
    references: dict[str, Placement] = {}
    notes: list[str] = []
    for name, text in study.references.items():
        try:
            references[name], changes = fit_to_sites(text, sites)
            # This raises for a `block` at a site where the backbone has no block to repeat.
            costs.cost(references[name])
        except UserError as error:
            if name in asked and not isinstance(error, NoSuchSites):
                raise UserError(f"reference {name!r}: {error.message}", error.hint) from None
            changes = (f"{error.message}; left out",)
        notes += [f"reference {name!r}: {change}" for change in changes]
    return references, (*notes, *_equal(references))


def _equal(references: Mapping[str, Placement]) -> Iterator[str]:
    """Yield a note for each reference that is the same placement as an earlier one."""
    first: dict[str, str] = {}
    for name, placement in references.items():
        earlier = first.setdefault(placement.id, name)
        if earlier != name:
            yield (
                f"reference {name!r} is the same placement as {earlier!r} here: {placement.text}"
            )


def check_outputs(net: nn.Module, space: SearchSpace, outputs: Outputs) -> None:
    """Raise UserError if the backbone does not return what the task needs, in eval and training."""
    inputs = torch.zeros(2, *space.input_shape)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        _check(space, outputs, outputs.returned(net.eval(), inputs, training=False), "")
        try:
            trained = outputs.returned(net.train(), inputs, training=True)
        except Exception as error:  # a user's model can raise anything; the user has to read it
            raise UserError(
                f"the backbone of {space.name} cannot run in training on 2 samples: "
                f"{type(error).__name__}: {first_line(error)}",
                f"a study needs {outputs.text(2, training=True)}",
            ) from error
        finally:
            net.eval()
    _check(space, outputs, trained, IN_TRAINING)


def _check(space: SearchSpace, outputs: Outputs, returned: object, when: str) -> None:
    training = when == IN_TRAINING
    if not outputs.fits(returned, 2, training):
        raise UserError(
            f"the backbone of {space.name} returns {_form(returned)} for 2 samples{when}",
            f"a study needs {outputs.text(2, training)}",
        )


def _form(output: object) -> str:
    if isinstance(output, torch.Tensor):
        return str(tuple(output.shape))
    return "no tensor" if output is None else type(output).__name__
