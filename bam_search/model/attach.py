"""Put attention into a model, and take it out again.

Everything is checked before the model is touched.
"""

import contextlib
import itertools
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attention import canonical, create, defaults
from bam_search.model.find_sites import IMAGENET_SHAPE, find_sites
from bam_search.model.insert import (
    CHILD,
    CHILD_IF_TAKEN,
    FromIdentity,
    Mark,
    free_name,
    insert,
    inserted,
    is_disabled,
    marks,
    remove,
    renumber,
    without,
)
from bam_search.model.layouts import adapted
from bam_search.model.trace import Shape
from bam_search.space.placement import NONE, Choice, Placement
from bam_search.space.sites import Site, Sites, is_exact

Init = Literal["random", "identity"]
AsPlacement = Placement | str | Mapping[str, Any]
"""A placement, or what `Placement.parse` or `Placement.from_dict` reads."""


def read(placement: AsPlacement) -> Placement:
    """The placement that is meant. Raises UserError as those two do."""
    if isinstance(placement, str):
        return Placement.parse(placement)
    return placement if isinstance(placement, Placement) else Placement.from_dict(placement)


def resolve(placement: AsPlacement, sites: Sites) -> Placement:
    """The canonical placement: site names in the model's order, without default options.

    An exact site name overrides sets, lists and patterns that match the same site. The choice
    `none` removes a site. Raises UserError if a target matches no site, if two sets, lists or
    patterns match a site that no exact name decides, or if a choice is illegal at its site.
    """
    chosen = _by_site(read(placement), sites)
    return Placement.of({site.name: _canonical_at(site, choice) for site, choice in chosen})


def fit_to_sites(placement: AsPlacement, sites: Sites) -> tuple[Placement, tuple[str, ...]]:
    """The canonical placement, with r and d reduced where they are too large, and notes on that.

    Like `resolve`, but if a set's r or d is too large for a site, the largest value that fits
    replaces it. So a placement for one network also works on another with fewer channels or smaller
    maps. A choice at an exact site name is never changed; it raises UserError if it does not fit.
    """
    placement = read(placement)
    named = {target for target, _ in placement.choices}
    fitted: dict[str, Choice] = {}
    changed: dict[str, list[str]] = {}
    for site, choice in _by_site(placement, sites):
        try:
            fitted[site.name] = _canonical_at(site, choice)
        except UserError as error:
            if site.name in named:
                raise
            fitted[site.name] = _largest(site, choice, error)
            reason = error.message.removeprefix(f"at site {site.name!r}: ")
            change = f"{reason}; {fitted[site.name].text} takes its place"
            changed.setdefault(change, []).append(site.name)
    lines = tuple(f"at {_first_of(names)}: {change}" for change, names in changed.items())
    return Placement.of(fitted), lines


def _first_of(names: list[str]) -> str:
    """The first name, and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def attach(
    model: nn.Module,
    placement: AsPlacement,
    input_shape: Shape = IMAGENET_SHAPE,
    *,
    init: Init = "random",
    seed: int = 0,
    sites: Sites | None = None,
    fit: bool = False,
    example_inputs: object = None,
) -> Placement:
    """Put the attention modules of a placement into `model`, in place; return it, canonical.

        >>> from torchvision.models import resnet18
        >>> from bam_search import attach
        >>> model = resnet18()
        >>> attach(model, "bottleneck=bam every-block=se(r=8)").text[:38]
        'layer1.0.bn2=se(r=8) layer1.1.bn2=se(r'
        >>> model.layer1.attention
        BAM(...)

    The initial weights depend only on `seed`, the site's name and the choice, so the same choice at
    the same site starts with the same weights in every placement. They get the device and dtype of
    the model's weights.

    No key of the model's state dict changes; the new ones are `SITE.attention.*`, or
    `SITE.bam_attention.*` where a site has an attribute `attention` of its own. The length, the
    indices and the iteration of a container do not see them. The model with its attention goes
    through `deepcopy`, pickle, `torch.save`, `torch.compile`, `torch.export`, `torch.fx` and
    data-parallel replication; compile after attaching, not before. TorchScript (`torch.jit.script`)
    does not take the hook.

    Before each pass the model looks whether its attention is there. A site that was replaced keeps
    it if the child moved along (`SyncBatchNorm.convert_sync_batchnorm`); else the pass raises
    UserError, and says which site lost it.

    Args:
        model: the backbone, which is changed.
        placement: such as "layer1=bam layer3=se(r=8)", or {"layer1": "bam", "layer3": "se(r=8)"};
            see README.md for targets and modules.
        input_shape: (C, H, W) of one image, or (C, L) of a sequence; it is used to find the sites
            if `sites` is not given.
        init: "random" draws each module's weights. "identity" also adds a gate that starts at 0,
            so the model's outputs do not change until training changes the gate.
        seed: decides the initial weights, together with the site's name and the choice.
        sites: those of the model, if `find_sites` has found them already.
        fit: reduce r and d where a set's are too large for a site, as `fit_to_sites` does. What
            was put in is in the result.
        example_inputs: what the model is called with, if that is not one batch of images: as in
            `find_sites`.

    Raises:
        UserError: as from `resolve` and `find_sites`; a site has attention already; a site is
            compiled or scripted, by itself or with what it is in; the model is within
            `disabled(model)`. The model is not changed then.
    """
    _check_plain(model, "")
    if init not in ("random", "identity"):
        raise UserError(f"init = {init!r}", "init is 'random' or 'identity'")
    _check_enabled(model)
    if sites is None:
        sites = find_sites(model, input_shape, example_inputs=example_inputs)
    resolved = fit_to_sites(placement, sites)[0] if fit else resolve(placement, sites)
    for name, _ in resolved.choices:
        _check_free(model, name)
    by_name = sites.by_name
    order = {name: number for number, name in enumerate(sites.names)}
    children = {}
    for name, choice in resolved.choices:
        attention = _attention_module(model, by_name[name], choice, init, seed)
        mark = Mark(choice, order[name], hidden=by_name[name].runs_children)
        children[name] = (attention, mark)
    insert(model, children)
    renumber(model, order)
    return resolved


def attached(model: nn.Module) -> Placement:
    """The placement that is in effect in `model`: its canonical form, empty without attention.

        >>> from torchvision.models import resnet18
        >>> from bam_search import attach, attached
        >>> model = resnet18()
        >>> _ = attach(model, "bottleneck=bam")
        >>> attached(model).text
        'layer1=bam layer2=bam layer3=bam'

    It also works on copies and unpickled models, so a training script can assert it. Attention
    whose site was replaced by a module without it is in effect no more, and neither is any within
    `disabled(model)`.
    """
    return Placement.of({name: mark.choice for name, mark in marks(model).items()})


def detach(model: nn.Module) -> None:
    """Take all attention out of `model`, in place: the reverse of `attach`.

    >>> from torchvision.models import resnet18
    >>> from bam_search import attach, attached, detach
    >>> model = resnet18()
    >>> _ = attach(model, "bottleneck=bam")
    >>> detach(model)
    >>> attached(model).text
    'none'

    Raises UserError within `disabled(model)`.
    """
    _check_enabled(model)
    remove(model)


def disabled(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Within `with disabled(model):` the model is its backbone, without attention.

    For comparing, or for loading pretrained weights with `strict=True`.

        >>> from torchvision.models import resnet18
        >>> from bam_search import attach, disabled
        >>> model, pretrained = resnet18(), resnet18().state_dict()
        >>> _ = attach(model, "bottleneck=bam")
        >>> with disabled(model):
        ...     model.load_state_dict(pretrained, strict=True)
        <All keys matched successfully>
    """
    return without(model)


def _check_enabled(model: nn.Module) -> None:
    """Raise UserError within `disabled(model)`, which puts back what it took out."""
    if is_disabled(model):
        raise UserError("the model's attention is disabled", "leave `with disabled(model)` first")


def _check_plain(model: nn.Module, site: str) -> None:
    """Raise UserError if a site, or what it is in, is compiled or scripted."""
    parts = site.split(".") if site else []
    for n in range(len(parts) + 1):
        name = ".".join(parts[:n])
        module = _submodule(model, name) if name else model
        compiled = hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
        if compiled or isinstance(module, torch.jit.ScriptModule):
            what = f"submodule {name!r}" if name else "model"
            raise UserError(
                f"the {what} is {'compiled' if compiled else 'scripted'} already, and would not "
                "feel attention",
                "attach first, then compile or script",
            )


def _check_free(model: nn.Module, name: str) -> None:
    """Raise UserError if a site cannot take attention now."""
    _check_plain(model, name)
    site = _submodule(model, name)
    if inserted(site) is not None:
        raise UserError(f"site {name!r} has attention already", "detach it first")
    if free_name(site) is None:
        raise UserError(
            f"site {name!r} has attributes {CHILD!r} and {CHILD_IF_TAKEN!r} of its own",
            f"rename {CHILD_IF_TAKEN!r} in {type(site).__name__}",
        )


def _by_site(placement: Placement, sites: Sites) -> list[tuple[Site, Choice]]:
    """The choice at each site that has one, in the model's order."""
    by_name = _chosen(placement, sites, exact=True, overridden={})
    by_set = _chosen(placement, sites, exact=False, overridden=by_name)
    chosen = {**by_set, **by_name}
    return [(site, chosen[site.name]) for site in sites if chosen.get(site.name, NONE) != NONE]


def _largest(site: Site, choice: Choice, error: UserError) -> Choice:
    """The choice with the largest r, and for that the largest d, that fit.

    Raises `error` if none does.
    """
    given = dict(choice.options)
    options = {**defaults(choice.module), **given}
    numbers = {name: value for name, value in options.items() if isinstance(value, int)}
    names: list[str] = [name for name in ("r", "d") if name in numbers]
    descending = [range(numbers[name], 0, -1) for name in names]
    for values in itertools.product(*descending):
        smaller = dict(zip(names, values, strict=True))
        with contextlib.suppress(UserError):
            return _canonical_at(site, Choice.of(choice.module, {**given, **smaller}))
    raise error


def _chosen(
    placement: Placement, sites: Sites, exact: bool, overridden: Mapping[str, Choice]
) -> dict[str, Choice]:
    """The choice at each site by the targets of one kind: exact names, or sets.

    Sites in `overridden` are left out. Raises UserError for a site that is named twice.
    """
    chosen: dict[str, Choice] = {}
    for target, choice in placement.choices:
        if is_exact(target) != exact:
            continue
        for site in sites.select(target):
            if site.name in overridden:
                continue
            if site.name in chosen:
                raise UserError(
                    f"placement {placement.text!r} names site {site.name!r} twice",
                    f"a site holds one attention module; {site.name}={choice.text} says which, "
                    "and goes before a set",
                )
            chosen[site.name] = choice
    return chosen


def _canonical_at(site: Site, choice: Choice) -> Choice:
    try:
        return canonical(choice, site.channels, site.side, site.dims)
    except UserError as error:
        raise UserError(f"at site {site.name!r}: {error.message}", error.hint) from None


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise UserError(
            f"the model has no submodule {name!r}", "the sites were found in another model"
        ) from None


def _attention_module(
    model: nn.Module, site: Site, choice: Choice, init: Init, seed: int
) -> nn.Module:
    """The attention module for a site, on the device and in the type of the weights there."""
    like = model.get_submodule(site.name)
    # On the CPU, by its generator alone: those of GPUs are the user's, and stay as they are.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(zlib.crc32(f"{seed}:{site.name}".encode()))
        attention = create(choice, site.channels, like, site.dims)
    if init == "identity":
        attention = FromIdentity(attention)
    attention = adapted(attention, site)
    # The site's weights if it has some, else those of the rest of the model.
    weights = (p for p in (*like.parameters(), *model.parameters()) if p.is_floating_point())
    nearest_weight = next(weights, torch.empty(0))
    return attention.to(nearest_weight.device, nearest_weight.dtype).train(like.training)
