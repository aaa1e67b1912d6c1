"""timm's attention modules, by timm's own names for them.

Ross Wightman: "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models.
"""

import importlib
from collections.abc import Callable

from torch import nn

from bam_search.errors import UserError

INSTALL = "pip install timm"


def timm_constructor(name: str) -> Callable[..., nn.Module]:
    """What makes timm's attention module `name`, such as `ese`, from channels and options.

    Raises UserError if timm is not installed, or if this version of it has no such module.
    """
    try:
        layers = importlib.import_module("timm.layers")
    except ImportError:
        raise UserError(f"timm.{name} needs timm, which is not installed", INSTALL) from None
    try:
        constructor: Callable[..., nn.Module] = layers.get_attn(name)
    except (AssertionError, AttributeError):
        raise UserError(
            f"this version of timm has no attention module {name!r}", f"{INSTALL} --upgrade"
        ) from None
    return constructor
