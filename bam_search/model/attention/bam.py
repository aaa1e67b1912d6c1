"""BAM, the Bottleneck Attention Module: a channel branch plus a dilated spatial branch.

Jongchan Park, Sanghyun Woo, Joon-Young Lee, In So Kweon: "BAM: Bottleneck Attention Module", BMVC
2018, https://arxiv.org/abs/1807.06514. F' = F + F * M(F) (eq. 1), M(F) = sigmoid(Mc(F) + Ms(F))
(eq. 2). The authors' released code differs: it multiplies the branches and has no normalisation at
their ends (`combine=product,end_bn=false`).
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from bam_search.errors import UserError
from bam_search.model.attention.gates import amplified, spread
from bam_search.model.attention.norms import Norm, normalisation
from bam_search.model.attention.options import reduced_channels, require_positive
from bam_search.model.maps import CONVOLUTIONS, channels_first, channels_last
from bam_search.model.pool import GlobalAvgPool

COMBINE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": torch.mul,
    "max": torch.maximum,
}
"""How two branches become one in evaluation; training does the same in fewer passes.

"sum" is not among them: the spatial branch adds the channel branch as its last step.
"""


class BAM(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), any H and W.

    `r` reduces C to C // r hidden channels, `d` is the dilation of the `n` 3x3 convolutions of the
    spatial branch. `branches` leaves one of the two out, `combine` says how two become one (the
    paper's ablations, table 1), `end_bn` ends each branch in a normalisation over C channels.

    `norm` is what normalises. "batch" is the paper's, and trains on B > 1 only, as the channel
    branch has one value a channel and image. The others train on B = 1: "frozen" is a batch
    normalisation whose statistics stay as they are (mean 0 and variance 1, or those that are
    loaded: the state dict is the same); "group" normalises groups of at least 16 channels of an
    image, 32 groups at most (Wu and He, see `norms`), and needs two hidden channels; "none" leaves
    all normalisations out, those of `end_bn` too. `dims` is the number of the map's dimensions: 1
    for (B, C, L), 3 for (B, C, D, H, W).

    Raises UserError for illegal options, for those of what is left out, and in training for a batch
    that is too small to normalise.
    """

    def __init__(
        self,
        channels: int,
        r: int = 16,
        d: int = 4,
        n: int = 2,
        branches: Literal["both", "channel", "spatial"] = "both",
        combine: Literal["sum", "product", "max"] = "sum",
        end_bn: bool = True,
        norm: Norm = "batch",
        *,
        dims: int = 2,
    ) -> None:
        super().__init__()
        require_positive(d=d, n=n)
        if branches != "both" and combine != "sum":
            raise UserError(
                f"combine = {combine} needs both branches, and branches = {branches}",
                "leave combine out",
            )
        if branches == "channel" and (d, n) != (4, 2):
            raise UserError(
                "d and n belong to the spatial branch, which branches = channel leaves out",
                "leave d and n out",
            )
        if norm == "none" and not end_bn:
            raise UserError("norm = none leaves all normalisations out", "leave end_bn out")
        m = reduced_channels(channels, r, at_least=2 if norm == "group" else 1)
        ends = end_bn and norm != "none"
        self.channel = self.spatial = None
        if branches != "spatial":
            self.channel = _Channel(channels, m, ends, norm, dims)
        if branches != "channel":
            self.spatial = _Spatial(channels, m, d, n, ends, norm, dims)
        self.combine, self.dims = combine, dims

    def forward(self, x: Tensor) -> Tensor:
        gate = self._logits(x).sigmoid()
        if self.training:
            return amplified(x, channels_first(gate, self.dims))
        return x * channels_first(1 + gate, self.dims)  # the same result; fvcore counts it

    def _logits(self, x: Tensor) -> Tensor:
        if self.spatial is None or self.channel is None:
            branch = self.spatial or self.channel
            assert branch is not None
            return branch(x)
        channel = self.channel(x)
        if self.combine == "sum":
            return self.spatial(x, plus=channel)
        if not self.training:
            return COMBINE[self.combine](channel, self.spatial(x))
        if self.combine == "product":
            return self.spatial(x, times=channel)
        # The larger of the two: a + relu(b - a). The derivative of `maximum` takes ten passes.
        return channel + self.spatial(x, plus=-channel).relu()


class _Channel(nn.Module):
    """Mc, eq. 3: (B, C, H, W) -> (B, 1, 1, C)."""

    def __init__(self, channels: int, m: int, end_bn: bool, norm: Norm, dims: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            GlobalAvgPool(),
            nn.Linear(channels, m),
            normalisation(norm, m, 0),
            nn.ReLU(inplace=True),
            nn.Linear(m, channels),
            *([normalisation(norm, channels, 0)] if end_bn else []),
        )
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        vectors = _normalised(self.layers, x)
        return vectors[(slice(None), *(None,) * self.dims)]


class _Spatial(nn.Module):
    """Ms, eq. 4: (B, C, H, W) -> (B, H, W, C) with its last normalisation, else (B, H, W, 1).

    The map is the same for all channels, so it is normalised once; `scale` and `shift` are the C
    weights and biases of that normalisation. (B, H, W, C) keeps the large map channels-last in
    memory, as images on a device are. `plus` is added, or all is multiplied by `times`, (B, 1, 1,
    C): that is done to C numbers an image, which are then spread over the map.
    """

    def __init__(
        self, channels: int, m: int, d: int, n: int, end_bn: bool, norm: Norm, dims: int
    ) -> None:
        super().__init__()
        layers = _convolution(channels, m, 1, 1, norm, dims)
        for _ in range(n):
            layers += _convolution(m, m, 3, d, norm, dims)
        layers.append(CONVOLUTIONS[dims](m, 1, 1))
        if end_bn:
            layers.append(normalisation(norm, 1, dims, affine=False))
        self.layers, self.dims = nn.Sequential(*layers), dims
        self.scale = nn.Parameter(torch.ones(channels)) if end_bn else None
        self.shift = nn.Parameter(torch.zeros(channels)) if end_bn else None

    def forward(self, x: Tensor, plus: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        y = channels_last(_normalised(self.layers, x), self.dims)
        if self.scale is None or self.shift is None:
            if times is not None:
                return spread(torch.zeros_like(times), y, times)
            return y if plus is None else y + plus
        shift, scale = self.shift.to(y.dtype), self.scale.to(y.dtype)
        if times is not None:
            return spread(shift * times, y, scale * times)
        return spread(shift if plus is None else shift + plus, y, scale)


def _convolution(
    before: int, after: int, kernel: int, dilation: int, norm: Norm, dims: int
) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        CONVOLUTIONS[dims](before, after, kernel, padding=padding, dilation=dilation),
        normalisation(norm, after, dims),
        nn.ReLU(inplace=True),
    ]


def _normalised(layers: nn.Module, x: Tensor) -> Tensor:
    """The layers' output. Raises UserError where torch cannot normalise a single value."""
    try:
        return layers(x)
    except ValueError as error:
        if "more than 1 value" not in str(error):
            raise
        raise UserError(
            f"norm = batch cannot train on a batch of {len(x)}: it has one value a channel",
            "norm=group can, as in bam(norm=group), and so can norm=frozen and norm=none",
        ) from error
