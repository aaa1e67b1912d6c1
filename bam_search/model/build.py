"""A placement becomes a model: the backbone from its seed, then the attention modules, each from its own."""

import torch
from torch import nn

from bam_search.model.attach import attach
from bam_search.model.sites import find_sites
from bam_search.space.placement import Placement
from bam_search.space.search_space import SearchSpace, Site


def sites_of(space: SearchSpace, classes: int) -> tuple[Site, ...]:
    """The sites of the space's backbone."""
    return find_sites(backbone(space, classes, seed=0), space.input_shape)


def backbone(space: SearchSpace, classes: int, seed: int) -> nn.Module:
    """The backbone without attention; `seed` alone decides its weights, whatever attention comes later."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = space.backbone(classes)
    assert isinstance(net, nn.Module)
    return net


def build(space: SearchSpace, sites: tuple[Site, ...], placement: Placement, classes: int, seed: int) -> nn.Module:
    """The backbone with the placement's attention in it. Raises UserError if the placement does not fit."""
    net = backbone(space, classes, seed)
    attach(net, placement, sites, seed)
    return net
