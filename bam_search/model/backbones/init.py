"""How weights are drawn where this package builds a network: as torchvision's ResNets have them."""

from typing import TypeVar

from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def init_weights(net: Net) -> Net:
    """`net`, its convolutions drawn by the rule of He et al.

    (https://arxiv.org/abs/1502.01852, fan-out), its normalisations reset.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            module.reset_parameters()
    return net
