"""One more block of the backbone's own topology: the BAM paper's control "is it just depth?".

No attention: the last block of the site's stage once more, with weights of its own. Park et al.:
"BAM: Bottleneck Attention Module", BMVC 2018, https://arxiv.org/abs/1807.06514.
"""

import copy

import torch
from torch import Tensor, nn

from bam_search.errors import UserError
from bam_search.model.backbones.init import init_weights
from bam_search.model.maps import SHAPES


class Block(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): a copy of the last block of the stage `like`.

    It goes to the end of that stage, and its layers' weights are drawn anew; a bare parameter of a
    block, such as a scale, has no rule and stays as it is in the original. `dims` is the number of
    the map's dimensions: 1 for (B, C, L), 3 for (B, C, D, H, W). Raises UserError if `like` is no
    stage of blocks, or if its last block changes the shape of such a map or does not take one.
    """

    def __init__(self, channels: int, like: nn.Module, *, dims: int = 2) -> None:
        super().__init__()
        blocks = list(like.children()) if isinstance(like, nn.Sequential) else []
        if not blocks or not list(blocks[-1].children()):
            raise UserError(
                "block goes to the end of a stage of blocks", "try the target 'stage-ends'"
            )
        self.block = copy.deepcopy(blocks[-1])
        _draw_anew(self.block)
        if not _keeps_shape(self.block, channels, dims):
            raise UserError(
                f"the stage's last block changes the shape of a map {SHAPES[dims]}",
                "a stage of one block that widens has none to repeat",
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


def _draw_anew(block: nn.Module) -> None:
    """Draw the weights of a copy, all of which train, whatever the original's do.

    By the rule of each of its layers, and ours for convolutions.
    """
    for module in block.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    init_weights(block).requires_grad_(True)


def _keeps_shape(block: nn.Module, channels: int, dims: int) -> bool:
    x = torch.zeros(1, channels, *[8] * dims, device="meta")
    twin = copy.deepcopy(block)
    try:
        with torch.no_grad():
            return bool(twin.to("meta").eval()(x).shape == x.shape)
    except RuntimeError:
        return False
