"""How long the models of a study take beside their backbone: of what is tested, and predicted.

On a GPU models are timed in a process of its own, which gives the memory back to those that train.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

from bam_search.errors import RunError, first_line
from bam_search.model.attention import use_module_files
from bam_search.model.build import build
from bam_search.model.detector import is_detector
from bam_search.model.load import Inputs, load_once
from bam_search.model.start import Start
from bam_search.processes import belong_to_driver, context_of, leaving_signals_to_driver
from bam_search.running.prepare import ResolvedRun
from bam_search.score.context import uses_bf16
from bam_search.score.cuda_graphs import NotOneGraph, settle
from bam_search.score.device import Device, samples_for
from bam_search.score.latency import Latency, LatencySetting, latency
from bam_search.score.latency_table import LatencyTable, Network, measure
from bam_search.space.modules import ModuleFile
from bam_search.space.placement import Choice, Placement
from bam_search.space.sites import Sites
from bam_search.space.user_file import Code
from bam_search.study.record import Record
from bam_search.tasks.load_task import load_task

BATCH = 32
"""Samples at once as trained."""
NUMBERS = BATCH * 3 * 64 * 64
"""On a CPU as many of them as have so many numbers: 32 images of 64x64."""
BROKEN = (torch.OutOfMemoryError, torch.AcceleratorError, NotOneGraph, BrokenProcessPool)
"""What the device raises that cannot time a model, or the death of the process that times it."""

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Models:
    """All that another process needs to know to build a study's models.

    `modules` are the files of the user's attention modules; the rest is as in `Experiment`.
    """

    task: str
    space: str
    sites: Sites
    inputs: Inputs | None
    modules: Mapping[str, ModuleFile]
    start: Start
    code: Code

    def make(self, placement: Placement | str, seed: int = 0) -> torch.nn.Module:
        """The model of a placement."""
        use_module_files(self.modules)
        space = load_once(self.space, load_task(self.task, self.inputs).inputs, self.code)
        return build(space, self.sites, placement, seed, self.start)


def as_trained(ready: ResolvedRun) -> LatencySetting:
    """Return how a batch runs with the precision, CUDA graph and threads that training has.

    A detector asks the host how much it has found, so it is no CUDA graph in eval mode.
    """
    recipe, shape = ready.study.recipe, ready.space.input_shape
    return LatencySetting(
        ready.device,
        shape,
        samples_for(ready.device.type, shape, BATCH, NUMBERS),
        uses_bf16(recipe, ready.device),
        recipe.cuda_graph and not is_detector(ready.costs.net),
        ready.threads,
        ready.task.outputs,
    )


def measured(ready: ResolvedRun, records: Sequence[Record]) -> list[dict[str, Latency]]:
    """Return the latency of each record in each setting.

    Raises RunError if the device cannot run a model.
    """
    wanted = [(record.placement, record.seed) for record in records]
    return _apart(ready.device, _time_each, _models(ready), wanted, _settings(ready))


def increments(ready: ResolvedRun) -> LatencyTable:
    """Return what each choice adds to the latency, in the settings that the study searches by.

    Raises RunError if the device cannot run a model.
    """
    all_settings = _settings(ready)
    settings = {key: all_settings[key] for key in ready.study.latencies}
    gated = ready.study.start.insertion == "identity"
    return _apart(ready.device, _measure, _models(ready), _choices(ready), settings, gated)


def increments_line(table: LatencyTable) -> str:
    """Return how many increments were measured, and how long that took."""
    sites = next(iter(table.added.values()))
    number = len(table.added) * sum(map(len, sites.values()))
    return (
        f"what attention adds to the latency on {table.device}: {number} increments, measured in "
        f"{table.seconds:.0f} s"
    )


def settings_of(trained: LatencySetting) -> dict[str, LatencySetting]:
    """Return each setting by the field of a record that has what is measured in it."""
    return {"latency_overhead": trained, "deployed_latency_overhead": trained.deployed}


def _settings(ready: ResolvedRun) -> dict[str, LatencySetting]:
    return settings_of(as_trained(ready))


def _models(ready: ResolvedRun) -> Models:
    return Models(
        ready.study.task,
        ready.study.space,
        ready.sites,
        ready.source.inputs,
        ready.module_files,
        ready.start,
        ready.code,
    )


def _choices(ready: ResolvedRun) -> dict[str, list[Choice]]:
    """Return what the search or a reference can put at each site."""
    space = ready.choice_space
    choices = {site: space.choices(site) for site in space.sites}
    for reference in ready.references.values():
        for site, choice in reference.choices:
            choices.setdefault(site, []).append(choice)
    return choices


def _time_each(
    models: Models,
    wanted: Sequence[tuple[str, int]],
    settings: Mapping[str, LatencySetting],
) -> list[dict[str, Latency]]:
    found = []
    for placement, seed in wanted:
        net, backbone = models.make(placement, seed), models.make("none", seed)
        found.append({key: latency(net, backbone, one) for key, one in settings.items()})
    return found


def _measure(
    models: Models,
    choices: Mapping[str, Sequence[Choice]],
    settings: Mapping[str, LatencySetting],
    gated: bool,
) -> LatencyTable:
    network = Network(models.make("none"), models.make, models.sites.by_name, choices, gated)
    return measure(network, settings)


def _begin() -> None:
    belong_to_driver()
    settle()


def _apart(
    device: Device,
    function: Callable[Arguments, Answer],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Answer:
    """Call the function: in another process where the device is a GPU."""
    try:
        if device.type != "cuda":
            return function(*args, **kwargs)
        context = context_of(device.type)
        with ProcessPoolExecutor(1, context, _begin) as pool:
            with leaving_signals_to_driver():
                job = pool.submit(function, *args, **kwargs)
            return job.result()
    except BROKEN as error:
        raise RunError(
            f"the latency cannot be measured: {first_line(error)}", "the same command continues"
        ) from None
