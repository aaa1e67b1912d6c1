"""ECA, Efficient Channel Attention: a 1-D convolution across channels instead of a bottleneck.

Qilong Wang et al.: "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
CVPR 2020, https://arxiv.org/abs/1910.03151. F' = F * sigmoid(C1D_k(avg F)) (eq. 9), k = |log2(C) /
gamma + b / gamma|, the nearest odd (eq. 12).
"""

import math

from torch import Tensor, nn

from bam_search.model.attention.options import require_positive
from bam_search.model.maps import on_map
from bam_search.model.pool import GlobalAvgPool


def kernel(channels: int, gamma: int, b: int) -> int:
    """The size of the convolution's kernel (eq. 12)."""
    size = int(abs(math.log2(channels) + b) / gamma)
    return size if size % 2 else size + 1


class ECA(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), any H and W.

    `gamma` and `b` give the size of the convolution's kernel from C. `dims` is the number of the
    map's dimensions: 1 for (B, C, L), 3 for (B, C, D, H, W).
    """

    def __init__(self, channels: int, gamma: int = 2, b: int = 1, *, dims: int = 2) -> None:
        super().__init__()
        require_positive(gamma=gamma, b=b)
        k = kernel(channels, gamma, b)
        self.dims, self.pool = dims, GlobalAvgPool()
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv(self.pool(x)[:, None]).sigmoid()
        return x * on_map(gate[:, 0], self.dims)
