"""GC, the Global Context block: one attention map pools a context that is added everywhere.

Yue Cao, Jiarui Xu, Stephen Lin, Fangyun Wei, Han Hu: "GCNet: Non-local Networks Meet
Squeeze-Excitation Networks and Beyond", ICCV Workshops 2019, https://arxiv.org/abs/1904.11492. z =
x + Wv2 relu(LN(Wv1 sum_j softmax_j(Wk x_j) x_j)) (eq. 6).
"""

from torch import Tensor, nn

from bam_search.model.attention.options import reduced_channels
from bam_search.model.maps import CONVOLUTIONS, on_map, positions


class GC(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), any H and W.

    `r` reduces C to C // r hidden channels; at least 2, as LayerNorm over one value is
    constant. `dims` is the number of the map's dimensions: 1 for (B, C, L), 3 for (B, C, D, H, W).
    """

    def __init__(self, channels: int, r: int = 16, *, dims: int = 2) -> None:
        super().__init__()
        m = reduced_channels(channels, r, at_least=2)
        self.dims, self.key = dims, CONVOLUTIONS[dims](channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Linear(channels, m), nn.LayerNorm(m), nn.ReLU(inplace=True), nn.Linear(m, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        pixels = positions(x)
        # Keep the map's dtype: autocast on a GPU would return a float32 softmax, and the products
        # with it would be a float32 map.
        weights = self.key(x).flatten(2).softmax(2, dtype=x.dtype)
        return x + on_map(self.transform(self._context(pixels, weights)), self.dims)

    def _context(self, pixels: Tensor, weights: Tensor) -> Tensor:
        if self.training:
            return (weights @ pixels).squeeze(1)  # reads the map once, and writes none
        # The same result by elementwise operators, of which fvcore counts the cost.
        weighted = pixels * weights.transpose(1, 2)
        return weighted.sum(1, dtype=pixels.dtype)
