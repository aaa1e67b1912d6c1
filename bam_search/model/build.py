"""Build a model from a placement.

The backbone's weights come from the seed, and those of each attention module from the seed and its
site.
"""

import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attach import attach
from bam_search.model.find_sites import find_sites
from bam_search.space.placement import Placement
from bam_search.space.search_space import SearchSpace
from bam_search.space.sites import Sites


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


def build(space: SearchSpace, sites: Sites, placement: Placement | str, seed: int) -> nn.Module:
    """The backbone with the placement's attention in it.

    Raises UserError if the placement does not fit.
    """
    net = backbone(space, seed)
    attach(net, placement, sites=sites, seed=seed)
    return net
