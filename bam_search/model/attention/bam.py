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
from bam_search.model.attention.options import reduced_channels, require_positive
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

    In training B > 1 where there is a channel branch, which normalises over the batch. `r` reduces
    C to C // r hidden channels, `d` is the dilation of the `n` 3x3 convolutions of the spatial
    branch. `branches` leaves one of the two out, `combine` says how two become one (the paper's
    ablations, table 1), `end_bn` ends each branch in a batch normalisation over C channels. Raises
    UserError for illegal options, and for those of a branch that is left out.
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
        m = reduced_channels(channels, r)
        self.channel = _Channel(channels, m, end_bn) if branches != "spatial" else None
        self.spatial = _Spatial(channels, m, d, n, end_bn) if branches != "channel" else None
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        gate = self._logits(x).sigmoid()
        if self.training:
            return amplified(x, gate.permute(0, 3, 1, 2))
        return x * (1 + gate).permute(0, 3, 1, 2)  # the same result; fvcore counts it

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

    def __init__(self, channels: int, m: int, end_bn: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            GlobalAvgPool(),
            nn.Linear(channels, m),
            nn.BatchNorm1d(m),
            nn.ReLU(inplace=True),
            nn.Linear(m, channels),
            *([nn.BatchNorm1d(channels)] if end_bn else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[:, None, None, :]


class _Spatial(nn.Module):
    """Ms, eq. 4: (B, C, H, W) -> (B, H, W, C) with its last normalisation, else (B, H, W, 1).

    The map is the same for all channels, so it is normalised once; `scale` and `shift` are the C
    weights and biases of that normalisation. (B, H, W, C) keeps the large map channels-last in
    memory, as images on a device are. `plus` is added, or all is multiplied by `times`, (B, 1, 1,
    C): that is done to C numbers an image, which are then spread over the map.
    """

    def __init__(self, channels: int, m: int, d: int, n: int, end_bn: bool) -> None:
        super().__init__()
        layers = _convolution(channels, m, 1, 1)
        for _ in range(n):
            layers += _convolution(m, m, 3, d)
        layers.append(nn.Conv2d(m, 1, 1))
        self.layers = nn.Sequential(*layers, *([nn.BatchNorm2d(1, affine=False)] if end_bn else []))
        self.scale = nn.Parameter(torch.ones(channels)) if end_bn else None
        self.shift = nn.Parameter(torch.zeros(channels)) if end_bn else None

    def forward(self, x: Tensor, plus: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        y = self.layers(x).permute(0, 2, 3, 1)
        if self.scale is None or self.shift is None:
            if times is not None:
                return spread(torch.zeros_like(times), y, times)
            return y if plus is None else y + plus
        shift, scale = self.shift.to(y.dtype), self.scale.to(y.dtype)
        if times is not None:
            return spread(shift * times, y, scale * times)
        return spread(shift if plus is None else shift + plus, y, scale)


def _convolution(before: int, after: int, kernel: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(before, after, kernel, padding=padding, dilation=dilation),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]
