"""Training: the schedule, the augmentation, and that the same seed is the same training."""

import numpy as np
import pytest
import torch
from torch import nn

from bam_search.model.build import build, sites_of
from bam_search.score.context import TrainingContext
from bam_search.score.device import choose
from bam_search.score.measure import measured
from bam_search.score.train import Diverged, TooSlow, train
from bam_search.space.placement import Placement
from bam_search.space.search_space import load_space
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.recipe import Recipe

SMALL = load_space("small")
SITES = sites_of(SMALL)
CPU = choose("cpu")


def images(n: int = 200) -> Images:
    x, y, _, _ = generate_images(n, 0)
    return Images(x, y)


def small(seed: int = 0) -> nn.Module:
    return build(SMALL, SITES, Placement(), seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.5])
def test_every_budget_has_its_complete_schedule(steps: int, warmup: float) -> None:
    recipe = Recipe(lr=2.0, warmup=warmup)
    rates = [recipe.lr_at(step, steps) for step in range(steps)]
    peak = int(np.argmax(rates))
    assert all(0 < rate <= 2.0 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak <= warmup * steps + 1
    if steps == 100:
        assert max(rates) == pytest.approx(2.0, rel=0.02)
        assert rates[-1] < 0.05


def test_micro_batches_add_up_to_the_batch() -> None:
    class Plain(nn.Module):  # no normalisation, which would see the parts
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    recipe = Recipe(epochs=2, batch=50, lr=0.01, precision="fp32")
    context = TrainingContext.of(sources.task(), CPU, recipe, images())
    whole, halves = Plain(), Plain()
    one = train(whole, context, recipe, 0)
    two = train(halves, context, recipe, 0, micro_batches=2)
    assert [e.loss for e in one] == pytest.approx([e.loss for e in two], rel=1e-5)
    assert torch.allclose(whole.layers[1].weight, halves.layers[1].weight, atol=1e-5)


def test_a_training_over_its_time_limit_is_stopped() -> None:
    recipe = Recipe(epochs=1000, batch=50, seconds=0.5)
    with pytest.raises(TooSlow, match=r"more than 0\.5 s, and was in epoch \d+ of 1000"):
        train(small(), TrainingContext.of(sources.task(), CPU, recipe, images()), recipe, 0)


@pytest.mark.parametrize("how", [{"precision": "fp32"}, {}, {"optimizer": "muon"}])
def test_the_same_seed_is_the_same_training_bit_for_bit(how: dict[str, str]) -> None:
    torch.set_num_threads(1)
    recipe = Recipe(**{"epochs": 2, "batch": 50, "precision": "bf16", **how})  # type: ignore[arg-type]
    context = TrainingContext.of(sources.task(), CPU, recipe, images())
    results = []
    for _ in range(2):
        model = small()
        epochs = train(model, context, recipe, 5)
        results.append((epochs, torch.cat([p.flatten() for p in model.parameters()])))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert train(small(), context, recipe, 6) != results[0][0]


def test_training_lowers_the_loss_and_measures_each_epoch() -> None:
    recipe = Recipe(epochs=4, batch=50, lr=0.05)
    context = TrainingContext.of(sources.task(), CPU, recipe, images())
    model = small()
    epochs = train(model, context, recipe, 0, lambda: measured(model, images(), context).value)
    assert epochs[-1].loss < epochs[0].loss
    assert [epoch.value for epoch in epochs][-1] == measured(model, images(), context).value
    assert len(epochs) == 4


def test_divergence_is_noticed() -> None:
    recipe = Recipe(epochs=3, batch=50, lr=100.0, momentum=0.99)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 28 * 28, 100)
    )
    with pytest.raises(Diverged, match="in epoch"):
        train(model, TrainingContext.of(sources.task(), CPU, recipe, images()), recipe, 0)


def test_error_is_the_share_of_wrong_answers_in_percent() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(torch.full((len(x),), 3), 100).float()

    some = images(1500)
    context = TrainingContext.of(sources.task(), CPU, Recipe(), some)
    assert measured(Constant(), some, context).value == pytest.approx(99.0)


def test_pixels_are_normalised_by_the_training_images() -> None:
    seen = []

    class Probe(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.mean((2, 3))

    some = images(200)
    context = TrainingContext.of(sources.task(), CPU, Recipe(precision="fp32"), some)
    context.model(Probe())(context.data.inputs(some))
    assert seen[0].shape == (200, 3, 32, 32)
    assert torch.allclose(seen[0].mean((0, 2, 3)), torch.zeros(3), atol=1e-3)
    assert torch.allclose(seen[0].std((0, 2, 3)), torch.ones(3), atol=1e-2)


def test_asking_for_a_gpu_that_is_not_there_is_a_users_mistake() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    from bam_search.errors import UserError

    with pytest.raises(UserError, match="finds no CUDA GPU"):
        choose("cuda")
    assert choose("auto").variant == "cpu"
