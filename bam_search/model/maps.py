"""Maps of one, two or three dimensions, and torch's layers for each.

(B, C, L) is of a sequence or of audio, (B, C, H, W) of an image, (B, C, D, H, W) of a volume or a
video. `dims` is 1, 2 or 3; nothing else differs between them.
"""

from collections.abc import Mapping

from torch import Tensor, nn

SHAPES: Mapping[int, str] = {1: "(B, C, L)", 2: "(B, C, H, W)", 3: "(B, C, D, H, W)"}
"""How a map of each number of dimensions is written."""

Convolution = type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]

CONVOLUTIONS: Mapping[int, Convolution] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
BATCH_NORMS: Mapping[int, type[nn.BatchNorm1d] | type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    0: nn.BatchNorm1d,  # vectors (B, C)
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
MAX_POOLS: Mapping[int, type[nn.Module]] = {
    1: nn.AdaptiveMaxPool1d,
    2: nn.AdaptiveMaxPool2d,
    3: nn.AdaptiveMaxPool3d,
}


def channels_last(x: Tensor, dims: int) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view."""
    return x.permute(0, *range(2, dims + 2), 1)


def channels_first(x: Tensor, dims: int) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), a view."""
    return x.permute(0, dims + 1, *range(1, dims + 1))


def positions(x: Tensor) -> Tensor:
    """(B, C, ...) -> (B, N, C), a view of a map that is channels-last or channels-first in memory.

    N is H * W, or how many positions a map of other dimensions has.
    """
    return x.flatten(2).transpose(1, 2)


def on_map(vectors: Tensor, dims: int) -> Tensor:
    """(B, C) -> (B, C, 1, 1), which broadcasts over a map."""
    return vectors[(slice(None), slice(None), *(None,) * dims)]
