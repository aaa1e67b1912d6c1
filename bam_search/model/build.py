"""Build a model from a placement.

The backbone's weights come from the seed, and those of each attention module from the seed and its
site.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attach import attach
from bam_search.model.detector import is_detector
from bam_search.model.find_sites import find_sites
from bam_search.model.start import SCRATCH, Start, StartPlan, as_bytes
from bam_search.model.weights import Fit, fit_detector, fit_weights
from bam_search.space.placement import Placement
from bam_search.space.search_space import SearchSpace
from bam_search.space.sites import Sites

NAMED = 8
"""How many tensors that start anew a line names."""


def sites_of(space: SearchSpace) -> Sites:
    """The sites of the space's backbone.

    Raises UserError if it cannot be built, or cannot run on the space's images.
    """
    return find_sites(backbone(space, seed=0), space.input_shape)


def backbone(space: SearchSpace, seed: int) -> nn.Module:
    """The backbone without attention.

    `seed` alone decides its weights, whatever attention comes later. Raises UserError if the
    space's function fails, or returns no nn.Module.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = space.backbone(space.classes)
    except Exception as error:  # a user's function can raise anything; the user has to read it
        raise UserError(
            f"the backbone of space {space.name!r} cannot be built: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(net, nn.Module):
        raise UserError(
            f"the backbone of space {space.name!r} is a {type(net).__name__}",
            "backbone(classes) must return an nn.Module",
        )
    return net


def start_of(space: SearchSpace, plan: StartPlan) -> Start:
    """What the trainings of a space's candidates start from, with the weights in the plan's file.

    Raises UserError if the file is missing, cannot be read or does not fit the backbone.
    """
    start = Start(init=plan.init, factor=plan.factor)
    if not plan.weights and plan.factor == 1:
        return start
    net = backbone(space, seed=0)
    head = _head(space, net)
    if plan.weights:
        fitting = fit_detector if is_detector(net) else fit_weights
        fit = fitting(net, Path(plan.weights), head)
        head |= set(fit.new)
        start = replace(
            start, weights=as_bytes(fit.weights), digest=fit.digest, note=_note(plan, fit)
        )
    if plan.factor != 1:
        slow = tuple(name for name, _ in net.named_parameters() if name not in head)
        start = replace(start, slow=slow)
    if not plan.keeps_statistics:
        return start
    of_head = {key.rpartition(".")[0] for key in head}
    norms = tuple(
        name for name, m in net.named_modules() if _is_tracking(m) and name not in of_head
    )
    return replace(start, norms=norms)


def _head(space: SearchSpace, net: nn.Module) -> set[str]:
    """The keys of the net whose shape depends on the number of classes, or of its last layer."""
    shapes: dict[str, torch.Size] = {}
    with suppress(Exception):  # a user's function may know one number only
        other = backbone(replace(space, classes=space.classes + 1), seed=0)
        shapes = {key: value.shape for key, value in other.state_dict().items()}
    state = net.state_dict()
    head = {key for key in state if key in shapes and shapes[key] != state[key].shape}
    last = next(key.rpartition(".")[0] for key in reversed(state))
    return head or {key for key in state if key.rpartition(".")[0] == last}


def _is_tracking(module: nn.Module) -> bool:
    """Whether it is a normalisation that keeps statistics of the batches."""
    return "running_mean" in dict(module.named_buffers(recurse=False))


def _note(plan: StartPlan, fit: Fit) -> str:
    """What is taken from the file, and what it lacks."""
    part = f" ({fit.source})" if fit.source else ""
    note = f"the backbone starts from {plan.weights}{part}, {len(fit.weights)} tensors"
    if len(fit.new) > NAMED:
        return f"{note}; {len(fit.new)} others start anew, from {fit.new[0]} to {fit.new[-1]}"
    return f"{note}; its head starts anew: {', '.join(fit.new)}" if fit.new else note


def build(
    space: SearchSpace,
    sites: Sites,
    placement: Placement | str,
    seed: int,
    start: Start = SCRATCH,
) -> nn.Module:
    """The backbone with the placement's attention in it, as trainings start.

    What `start` has no weights for depends on the seed. Raises UserError if the placement does not
    fit.
    """
    net = backbone(space, seed)
    start.load(net)
    attach(net, placement, sites=sites, init=start.init, seed=seed)
    start.freeze(net)
    return net
