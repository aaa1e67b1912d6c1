"""How much attention amplifies each position of a map, measured from outside the module."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bam_search.model.insert import attended
from bam_search.model.layouts import within_adapter


def attention_gains(model: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
    """The gain at each site with attention, (B, H, W), in the order in which the sites run.

    It is (B, L) for maps of one dimension.

    `run()` must run `model` once. The gain of a position is sqrt(sum over channels of y^2 / sum
    over channels of x^2), where x is the map that attention sees and y what it returns. 1 means
    "left as it is", for any attention module. The gain is 1 where x is 0.
    """
    gains: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            gains[name] = _gain(args[0], output)

        return hook

    handles = []
    for name, path in attended(model).items():
        module = within_adapter(model.get_submodule(path))
        handles.append(module.register_forward_hook(record(name)))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return gains


def _gain(x: Tensor, y: Tensor) -> Tensor:
    before = x.detach().float().square().sum(1)
    after = y.detach().float().square().sum(1)
    smallest = torch.finfo(torch.float32).tiny
    return torch.where(before > 0, after / before.clamp_min(smallest), 1.0).sqrt()
