"""What attention does to a map, seen from outside: how much it amplifies each position."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bam_search.model.insert import CHILD, ChannelsLast, attended


def attention_gains(model: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
    """(B, H, W) for each site with attention, in the order in which they run, while `run()` runs
    `model` once.

    The gain of a position is sqrt(sum over channels of y^2 / sum over channels of x^2), x the map
    that attention sees and y what it gives back: 1 is "left as it is", for any module, whatever its
    gate looks like inside. It is 1 where x is 0.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str, channel: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            before, after = (x.detach().float().square().sum(channel) for x in (args[0], output))
            found[name] = torch.where(
                before > 0, after / before.clamp_min(torch.finfo(torch.float32).tiny), 1.0
            ).sqrt()

        return hook

    children = {name: site.get_submodule(CHILD) for name, site in attended(model).items()}
    handles = [
        child.register_forward_hook(keep(name, -1 if isinstance(child, ChannelsLast) else 1))
        for name, child in children.items()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found
