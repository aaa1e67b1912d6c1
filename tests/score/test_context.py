"""Autocast is as it was before, whatever interrupts a training."""

from collections.abc import Callable

import pytest
import torch

from bam_search.score.context import autocast_restored


def under_autocast(before: Callable[[], None]) -> None:
    with autocast_restored("cpu"):
        before()
        with torch.autocast("cpu", torch.bfloat16):
            pass


@pytest.mark.parametrize("part", ["clear_autocast_cache", "autocast_decrement_nesting"])
def test_an_interrupt_while_torch_leaves_autocast_leaves_nothing_on(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(torch, part)

    def interrupted() -> None:
        monkeypatch.setattr(torch, part, whole)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        under_autocast(lambda: monkeypatch.setattr(torch, part, interrupted))
    assert not torch.is_autocast_enabled("cpu")
    assert torch.autocast_increment_nesting() == 1
    assert torch.autocast_decrement_nesting() == 0
