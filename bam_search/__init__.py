"""Where should an attention module go in a CNN, and with which settings?

Data flows one way through the rooms: space -> model -> score -> search -> report -> cli. A room
imports only rooms before it.

For use in Python, on any nn.Module:

    find_sites(model, input_shape)      where attention can go, and why it cannot go elsewhere
    Placement.parse("layer3=bam(r=8)")  a placement; `.text`, `.id`, `.json`, `.to_dict()`
    attach(model, placement)            put it in, in place; returns it with targets resolved
    attached(model)                     the placement that is in it
    detach(model)                       take it out again
    with disabled(model): ...           the backbone, for as long as the context lasts
    count(model, input_shape)           parameters, activations and multiply-adds
    load("torchvision:resnet50")        a search space from a name
    run_study("placement", data=PATH)   a whole study, with its records, findings and page
    AdditiveSampler(sites, overheads)   the search's sampler, for a study of Optuna's
    register_attention("coord", Coord)  an attention module of yours
    TensorTask("my task", ...)          what models are trained for, from a loss and a score
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bam_search.errors import UserError
    from bam_search.model.attach import attach, attached, detach, disabled
    from bam_search.model.attention import register_attention
    from bam_search.model.find_sites import find_sites
    from bam_search.model.load import load
    from bam_search.running.api import run_study
    from bam_search.score.cost import count
    from bam_search.search.sampler import AdditiveSampler
    from bam_search.search.study import Study
    from bam_search.space.placement import Placement
    from bam_search.tasks.task import Task
    from bam_search.tasks.tensors import TensorTask

__version__ = "0.2.0"

__all__ = [
    "AdditiveSampler",
    "Placement",
    "Study",
    "Task",
    "TensorTask",
    "UserError",
    "attach",
    "attached",
    "count",
    "detach",
    "disabled",
    "find_sites",
    "load",
    "register_attention",
    "run_study",
]

_HOMES = {
    "AdditiveSampler": "search.sampler",
    "Placement": "space.placement",
    "Study": "search.study",
    "Task": "tasks.task",
    "TensorTask": "tasks.tensors",
    "UserError": "errors",
    "attach": "model.attach",
    "attached": "model.attach",
    "count": "score.cost",
    "detach": "model.attach",
    "disabled": "model.attach",
    "find_sites": "model.find_sites",
    "load": "model.load",
    "register_attention": "model.attention",
    "run_study": "running.api",
}


def __getattr__(name: str) -> Any:
    # Import late: torch takes seconds, and `--help` must answer at once.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
