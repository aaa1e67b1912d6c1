"""SE, the Squeeze-and-Excitation block.

Jie Hu, Li Shen, Gang Sun: "Squeeze-and-Excitation Networks", CVPR 2018,
https://arxiv.org/abs/1709.01507. F' = F * sigmoid(W2 relu(W1 mean(F))) (eq. 2-4), here with biases,
as in BAM's comparison.
"""

from torch import Tensor, nn

from bam_search.model.attention.options import reduced_channels
from bam_search.model.maps import on_map
from bam_search.model.pool import GlobalAvgPool


class SE(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), any H and W. `r` reduces C to C // r hidden channels.

    `dims` is the number of the map's dimensions: 1 for (B, C, L), 3 for (B, C, D, H, W).
    """

    def __init__(self, channels: int, r: int = 16, *, dims: int = 2) -> None:
        super().__init__()
        self.dims = dims
        m = reduced_channels(channels, r)
        self.gate = nn.Sequential(
            GlobalAvgPool(),
            nn.Linear(channels, m),
            nn.ReLU(inplace=True),
            nn.Linear(m, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * on_map(self.gate(x), self.dims)
