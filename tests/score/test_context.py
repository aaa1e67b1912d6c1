"""Autocast is as it was before, whatever interrupts a training."""

import pytest
import torch

from bam_search.score.context import autocast_restored


def interrupted_autocast() -> None:
    with autocast_restored("cpu"), torch.autocast("cpu", torch.bfloat16):
        pass


@pytest.mark.parametrize("part", ["clear_autocast_cache", "autocast_decrement_nesting"])
def test_an_interrupt_while_torch_leaves_autocast_leaves_nothing_on(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_torch_has_it = getattr(torch, part)

    def once() -> None:
        monkeypatch.setattr(torch, part, as_torch_has_it)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, part, once)
    with pytest.raises(KeyboardInterrupt):
        interrupted_autocast()
    assert not torch.is_autocast_enabled("cpu")
    assert torch.autocast_increment_nesting() == 1
    assert torch.autocast_decrement_nesting() == 0
