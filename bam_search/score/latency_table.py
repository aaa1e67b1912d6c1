"""What attention adds to the time of its backbone, predicted from measured increments.

As a `CostTable` does for counts: what each choice adds at each site is measured once, on a map of
that shape, and a placement adds the sum. A module takes longer within a network than alone, in
turn with others; so the sums are scaled to what a few whole models take.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from bam_search.model.attention import canonical, create, needs_like
from bam_search.model.insert import FromIdentity
from bam_search.score.latency import LatencySetting, folded, latency, timer, times_in_turn
from bam_search.space.placement import Choice, Placement
from bam_search.space.sites import Site

ROUNDS, DEPLOYED_ROUNDS = 20, 60
"""How often each module is timed, in turn with the backbone and others."""
AT_ONCE = 24
"""So many modules are timed in turn: on a GPU each holds memory of its own meanwhile."""
WHOLE = 6
"""How many whole models say by what the sums are scaled."""


@dataclass(frozen=True)
class LatencyTable:
    """What each choice adds to the time of the backbone.

    Attributes:
        device: what it was measured on.
        added: by setting ("latency_overhead"), by site and by text of a choice: percent of the
            backbone's time, scaled.
        scales: by setting, what the increments that were measured are multiplied by in `added`.
        seconds: how long it took to measure.
    """

    device: str
    added: Mapping[str, Mapping[str, Mapping[str, float]]]
    scales: Mapping[str, float]
    seconds: float

    def increment(self, key: str, site: Site, choice: Choice) -> float:
        """What `choice` adds at `site`, in percent of the backbone's time."""
        return self.added[key][site.name][_text(site, choice)]

    def overhead(self, key: str, placement: Placement, sites: Mapping[str, Site]) -> float:
        """What a placement adds, in percent: the sum over its sites."""
        return _sum(self.added[key], placement, sites)


@dataclass(frozen=True, eq=False)
class Network:
    """What increments are of.

    `base` is the backbone, and `make` builds the model of a placement; `choices` are by site what
    can be chosen there. `gated` says whether attention has the gate of `init="identity"`.
    """

    base: nn.Module
    make: Callable[[Placement], nn.Module]
    sites: Mapping[str, Site]
    choices: Mapping[str, Sequence[Choice]]
    gated: bool = False


def measure(network: Network, settings: Mapping[str, LatencySetting]) -> LatencyTable:
    """The table of a network, in each setting. Raises what `latency` raises."""
    began = time.perf_counter()
    added, scales = {}, {}
    for key, setting in settings.items():
        alone = _increments(network, setting)
        scales[key] = _scale(network, setting, alone)
        added[key] = {
            site: {text: scales[key] * percent for text, percent in of_site.items()}
            for site, of_site in alone.items()
        }
    device = next(setting.device.name for setting in settings.values())
    return LatencyTable(device, added, scales, time.perf_counter() - began)


Alone = Mapping[str, Mapping[str, float]]
"""By site and by text of a choice: what a module takes alone, in percent of the backbone's time."""


def _increments(network: Network, setting: LatencySetting) -> Alone:
    """What each choice takes alone at each site, modules alike measured once."""
    (base,) = setting.ready([network.base])
    is_folded = base is not network.base
    keys = {
        (site, _text(network.sites[site], choice)): _key(network, is_folded, site, choice)
        for site, choices in network.choices.items()
        for choice in choices
    }
    different = list(dict.fromkeys(keys.values()))
    percent: dict[_Key, float] = {}
    for first in range(0, len(different), AT_ONCE):
        some = different[first : first + AT_ONCE]
        percent.update(_timed(network, setting, base, some))
    added: dict[str, dict[str, float]] = {site: {} for site in network.choices}
    for (site, text), key in keys.items():
        added[site][text] = percent[key]
    return added


@dataclass(frozen=True)
class _Key:
    """What an increment depends on: the module, the shapes of the maps, and what is folded.

    Attention in one of torch's own modules is not folded, as torch.fx does not look into these; and
    a normalisation with attention on it (`keeps_norm`) is not either, so that it takes time again.
    `site` is the name of a site with these, and is compared where the module repeats a part of it
    (`like`).
    """

    choice: Choice
    channels: int
    maps: tuple[tuple[int, ...], ...]
    is_folded: bool
    keeps_norm: bool
    like: str
    site: str = field(compare=False)


def _key(network: Network, is_folded: bool, name: str, choice: Choice) -> _Key:
    """The key of a choice at a site; `is_folded` says whether the backbone was."""
    site, module = network.sites[name], network.base.get_submodule(name)
    written = canonical(choice, site.channels, site.side, site.dims)
    is_leaf = torch.fx.Tracer().is_leaf_module(module, name)
    keeps_norm = is_folded and isinstance(module, nn.BatchNorm2d)
    like = name if needs_like(choice.module) else ""
    maps = (site.sides, *site.further)
    return _Key(written, site.channels, maps, is_folded and not is_leaf, keeps_norm, like, name)


def _timed(
    network: Network, setting: LatencySetting, base: nn.Module, keys: Sequence[_Key]
) -> Iterator[tuple[_Key, float]]:
    """Yield each key with its time in percent of the backbone's."""
    rounds = DEPLOYED_ROUNDS if setting.is_deployed else ROUNDS
    modules = [_module(network, setting, key) for key in keys]
    with setting.running(network.base):
        backbone = timer(base, setting.images(), setting)
        timers = [
            [timer(module, _map(setting, (key.channels, *sides)), setting) for sides in key.maps]
            for key, module in zip(keys, modules, strict=True)
        ]
        calls = [each for of_key in timers for each in of_key]
        times = times_in_turn([backbone, *calls], rounds)
    percents = iter(100 * np.median(times[:, 1:] / times[:, :1], axis=0))
    for key in keys:
        yield key, float(sum(next(percents) for _ in key.maps))


def _module(network: Network, setting: LatencySetting, key: _Key) -> nn.Module:
    site = network.sites[key.site]
    module = create(key.choice, key.channels, network.base.get_submodule(key.site), site.dims)
    module = FromIdentity(module) if network.gated else module
    norms = [nn.BatchNorm2d(key.channels)] if key.keeps_norm else []
    whole = setting.placed(nn.Sequential(*norms, module)).eval()
    return folded([whole])[0] if key.is_folded else whole


def _map(setting: LatencySetting, shape: Sequence[int]) -> torch.Tensor:
    """The map that a module gets, in the precision in which the model computes."""
    zeros = setting.map_of(shape)
    return zeros.bfloat16() if setting.bf16 else zeros


def _scale(network: Network, setting: LatencySetting, alone: Alone) -> float:
    """What whole models take more than the backbone, all together, relatively to the sums."""
    taken = expected = 0.0
    for placement in _placements(network.choices):
        found = latency(network.make(placement), network.base, setting, setting.pairs // 2)
        taken += 100 * (found.ratio - 1)
        expected += _sum(alone, placement, network.sites)
    return taken / expected if taken > 0 and expected > 0 else 1.0


def _sum(added: Alone, placement: Placement, sites: Mapping[str, Site]) -> float:
    """What a placement adds, as the sum over its sites."""
    return sum(added[name][_text(sites[name], choice)] for name, choice in placement.choices)


def _placements(choices: Mapping[str, Sequence[Choice]]) -> Iterable[Placement]:
    """WHOLE placements that are always the same: a random choice at each second site or so."""
    rng = random.Random(0)
    possible = [site for site, of_site in choices.items() if of_site]
    for _ in range(WHOLE if possible else 0):
        some = [site for site in possible if rng.random() < 0.5] or [rng.choice(possible)]
        yield Placement.of({site: rng.choice(choices[site]) for site in some})


def _text(site: Site, choice: Choice) -> str:
    return canonical(choice, site.channels, site.side, site.dims).text
