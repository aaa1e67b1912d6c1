"""The sites of a model, found by one forward pass on the `meta` device, and the targets that name sets of them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from bam_search.errors import UserError, nearest
from bam_search.model.attention import canonical, defaults
from bam_search.space.placement import Choice, Option
from bam_search.space.search_space import Menu, Options, SearchSpace, Site

PLENTY = 65_536
"""More channels than any site has: what is illegal here is illegal everywhere."""


def find_sites(model: nn.Module, input_shape: tuple[int, int, int]) -> tuple[Site, ...]:
    """Every submodule that is called exactly once and returns one 4-D tensor, in the order in which their outputs appear.

    `input_shape` is (C, H, W). Stages are the model's own `nn.Sequential` children that hold modules with children (blocks); a
    block's residual branch ends at the last convolution or normalisation among the block's own children. The model is not changed.
    """
    calls = _trace(model, input_shape)
    seen = [call.name for call in calls]
    sites = {c.name: Site(c.name, *c.shape) for c in calls if c.shape and seen.count(c.name) == 1}
    for stage, name in enumerate(_stages(model)):
        inside = [site for site in sites if site == name or site.startswith(f"{name}.")]
        sites |= {site: replace(sites[site], stage=stage) for site in inside}
        if name in sites:
            sites[name] = replace(sites[name], role="stage")
        for block, _ in model.get_submodule(name).named_children():
            end = _branch_end(model, f"{name}.{block}", list(sites))
            if end is not None:
                sites[end] = replace(sites[end], role="block")
    return tuple(sites.values())


def select(target: str, sites: Sequence[Site]) -> tuple[Site, ...]:
    """The sites that `target` names: a named set of TARGETS, a comma-separated list, a glob (`layer3.*.bn3`), or one name.

    Raises UserError, with the nearest name, for a target that names nothing.
    """
    if target in TARGETS:
        found = TARGETS[target](sites)
    elif "," in target:
        found = tuple(site for part in target.split(",") for site in select(part, sites))
    else:
        found = tuple(site for site in sites if fnmatchcase(site.name, target))
    if not found:
        raise UserError(f"no site is named {target!r}", nearest(target, [*TARGETS, *(site.name for site in sites)]))
    return found


def menu(space: SearchSpace, sites: Sequence[Site]) -> Menu:
    """What a search over `space` may choose: its sites, and for each the modules with the option values that are legal there.

    Raises UserError if that is nothing, or if the space offers what is legal nowhere.
    """
    names = {site.name for target in space.sites for site in select(target, sites)}
    offered = {site.name: _legal(space.modules, site) for site in sites if site.name in names}
    legal = {name: modules for name, modules in offered.items() if modules}
    if not legal:
        raise UserError(f"space {space.name!r} offers nothing: none of its modules is legal at any of its sites", "widen its option values")
    return Menu(legal, {name: defaults(name) for name in space.modules})


def _stage_ends(sites: Sequence[Site]) -> tuple[Site, ...]:
    return tuple(site for site in sites if site.role == "stage")


TARGETS: Mapping[str, Callable[[Sequence[Site]], tuple[Site, ...]]] = {
    "stage-ends": _stage_ends,
    "bottleneck": lambda sites: _stage_ends(sites)[:-1],
    "every-block": lambda sites: tuple(site for site in sites if site.role == "block"),
}
"""Named sets. `bottleneck` is the paper's placement: the end of every stage but the last."""


@dataclass(frozen=True)
class _Call:
    name: str
    shape: tuple[int, int, int] | None


def _trace(model: nn.Module, input_shape: tuple[int, int, int]) -> list[_Call]:
    """Each call of a submodule, in the order of returning, with the (C, H, W) of its output where that is one 4-D tensor."""
    twin = copy.deepcopy(model).to("meta").eval()
    calls: list[_Call] = []

    def note(name: str, output: object) -> None:
        shape = None
        if isinstance(output, Tensor) and output.dim() == 4:
            _, channels, height, width = output.shape
            shape = (channels, height, width)
        calls.append(_Call(name, shape))

    for name, module in twin.named_modules():
        if name:
            module.register_forward_hook(lambda _module, _args, output, name=name: note(name, output))
    try:
        with torch.no_grad():
            twin(torch.zeros(1, *input_shape, device="meta"))
    except Exception as error:  # whatever a user's model raises, the user wants to read it as theirs
        raise UserError(f"the model cannot run on an image of shape {input_shape} on the meta device: {error}") from error
    return calls


def _stages(model: nn.Module) -> list[str]:
    def holds_blocks(module: nn.Module) -> bool:
        return isinstance(module, nn.Sequential) and any(list(block.children()) for block in module)

    return [name for name, child in model.named_children() if holds_blocks(child)]


def _branch_end(model: nn.Module, block: str, order: list[str]) -> str | None:
    children = {f"{block}.{name}": child for name, child in model.get_submodule(block).named_children()}
    ends = [name for name in order if isinstance(children.get(name), (nn.Conv2d, nn.BatchNorm2d))]
    return ends[-1] if ends else None


def _legal(modules: Mapping[str, Options], site: Site) -> dict[str, dict[str, tuple[Option, ...]]]:
    legal = {
        module: {name: tuple(v for v in values if _allowed(Choice.of(module, {name: v}), site)) for name, values in options.items()}
        for module, options in modules.items()
    }
    return {module: options for module, options in legal.items() if all(options.values())}


def _allowed(choice: Choice, site: Site) -> bool:
    # A dilation of the map's side or more leaves only the centre tap inside the map: larger ones are the same function again.
    dilation = dict(choice.options).get("d")
    if isinstance(dilation, int) and dilation > min(site.height, site.width):
        return False
    canonical(choice, PLENTY)  # a mistake of the space's own is raised
    try:
        canonical(choice, site.channels)
    except UserError:
        return False
    return True
