"""Blocks are compiled once.

Another placement of the same blocks needs no new graph, runs its attention, and trains the same.
"""

from typing import Any

import pytest
import torch
from counting import Counting
from torch import nn

from bam_search.model.build import build, sites_of
from bam_search.score.compiled import NotCompiled, compiled
from bam_search.space.search_space import load_space
from bam_search.tasks.classification import sources

SMALL = load_space("small")
SITES = sites_of(SMALL)
X = torch.randn(4, 3, 32, 32)


def net(text: str) -> nn.Module:
    return build(SMALL, SITES, text, 0).train()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def outputs(model: nn.Module, backend: Any, blocks: tuple[str, ...] = SITES.blocks) -> torch.Tensor:
    with compiled(model, blocks, backend):
        return model(X)  # type: ignore[no-any-return]


def test_a_further_placement_of_known_blocks_needs_no_new_graph_and_runs_its_own_attention() -> (
    None
):
    counting = Counting()
    first = ("none", "bottleneck=bam", "every-block=bam(r=8) layer2=se", "layer3.0.bn2=se")
    for text in first:
        assert torch.equal(outputs(net(text), counting), net(text)(X))
    known = counting.graphs
    assert known > len(SITES.blocks)
    for text in (
        "none",
        "layer1=bam",
        "layer2=bam layer3.0.bn2=se",
        "layer1.0.bn2=bam(r=8) layer2=bam",
    ):
        assert torch.equal(outputs(net(text), counting), net(text)(X))
    assert counting.graphs == known
    assert torch.equal(outputs(net("layer1=bam(r=4)"), counting), net("layer1=bam(r=4)")(X))
    assert counting.graphs == known + 1


@pytest.mark.slow
def test_more_graphs_than_torch_allows_by_default_are_all_compiled() -> None:
    counting = Counting()
    for d in range(1, 11):
        model = net(f"layer1=bam(d={d})")
        assert torch.equal(outputs(model, counting), net(f"layer1=bam(d={d})")(X))
    assert counting.graphs == len(SITES.blocks) + 10


def test_measuring_runs_the_blocks_as_they_are_and_afterwards_nothing_is_left() -> None:
    counting, model = Counting(), net("bottleneck=bam every-block=se")
    before = list(model.state_dict())
    with compiled(model, SITES.blocks, counting):
        model.eval()(X)
    assert counting.graphs == 0
    assert all(module._compiled_call_impl is None for module in model.modules())
    assert list(model.state_dict()) == before


def test_a_block_that_is_not_one_graph_is_an_error() -> None:
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x

    model = nn.Sequential(Deciding()).train()
    with pytest.raises(
        NotCompiled, match=r"a block cannot be compiled: .+ \(recipe.compile = false"
    ):
        outputs(model, "eager", ("0",))
    assert model[0]._compiled_call_impl is None


@pytest.mark.slow
def test_compiled_blocks_train_as_the_blocks_do() -> None:
    from bam_search.score.context import TrainingContext
    from bam_search.score.device import choose
    from bam_search.score.measure import measured
    from bam_search.score.train import train
    from bam_search.tasks.classification.images import Images
    from bam_search.tasks.classification.synthetic import generate_images
    from bam_search.tasks.recipe import Recipe

    x, y, _, _ = generate_images(200, 0)
    recipe = Recipe(epochs=2, batch=50, precision="fp32", lr=0.02)
    context = TrainingContext.of(sources.task(), choose("cpu"), recipe, Images(x, y))
    plain, fast = net("bottleneck=bam"), net("bottleneck=bam")
    expected = train(
        plain, context, recipe, 0, lambda: measured(plain, Images(x, y), context).value
    )
    with compiled(fast, SITES.blocks):
        got = train(fast, context, recipe, 0, lambda: measured(fast, Images(x, y), context).value)
    assert [epoch.loss for epoch in got] == pytest.approx(
        [epoch.loss for epoch in expected], rel=1e-3
    )
