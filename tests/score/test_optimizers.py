"""Muon against a plain implementation of it, one matrix after the other in double precision."""

import copy
import math
from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from bam_search.model.attach import attach
from bam_search.model.build import backbone, build, sites_of
from bam_search.score.context import TrainingContext
from bam_search.score.device import choose
from bam_search.score.muon import NothingForMuon, matrices_of, orthogonal
from bam_search.score.optimizers import MOMENTA, OPTIMIZERS, Optimizer, optimizer
from bam_search.score.train import train
from bam_search.space.search_space import load_space
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.recipe import Recipe

RECIPE = Recipe(optimizer="muon", weight_decay=0.1, lr=0.05, precision="fp32")


class Net(nn.Module):
    """A layer of each kind that the rule for Muon's parameters tells apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.filters = nn.Conv2d(8, 8, 3, padding=1)
        self.same_shape = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.tall = nn.Conv2d(8, 24, 1)
        self.grouped = nn.Conv2d(24, 12, 3, groups=4)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12)
        self.to_one = nn.Conv2d(12, 1, 1)
        self.scale = nn.Parameter(torch.ones(1, 12, 1, 1))
        self.squeeze = nn.Linear(12, 2)
        self.sequence = nn.Conv1d(2, 4, 3, padding=1)
        self.fc = nn.Linear(4, 100)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x[:, :, ::4, ::4])).relu()
        x = self.tall(self.filters(x) + self.same_shape(x)).relu()
        x = self.depthwise(self.grouped(x)) * self.scale
        pooled = (x * self.to_one(x).sigmoid()).mean((2, 3))
        return self.fc(self.sequence(self.squeeze(pooled)[..., None])[..., 0])


def channels_last(net: nn.Module) -> nn.Module:
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def made(net: nn.Module, recipe: Recipe = RECIPE, bf16: bool = False) -> Optimizer:
    return optimizer(net, recipe, torch.tensor(recipe.lr), bf16)


def give_gradients(net: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))


def by_hand(matrix: Tensor) -> Tensor:
    """The iteration on one matrix in double precision, as the post writes it."""
    x = matrix.double()
    x = x / (x.norm() + 1e-7)
    if len(x) > x.shape[1]:
        x = x.T
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def stepped_by_hand(weight: Tensor, gradients: list[Tensor], groups: int) -> Tensor:
    """The weight after a step with each gradient."""
    weight, average = weight.double(), torch.zeros_like(weight).double()
    for gradient in gradients:
        average = RECIPE.momentum * average + gradient.double()
        direction = gradient.double() + RECIPE.momentum * average
        weight = weight * (1 - RECIPE.lr * RECIPE.weight_decay)
        updates = []
        for block in direction.chunk(groups):
            matrix = block.flatten(1)
            scale = math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
            updates.append(scale * by_hand(matrix).reshape(block.shape))
        weight = weight - RECIPE.lr * torch.cat(updates)
    return weight


SHAPES = [(8, 8), (16, 144), (96, 8), (3, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-4), (True, 5e-2)])
def test_matrices_at_once_are_what_each_is_by_itself(
    shape: tuple[int, int], bf16: bool, tolerance: float
) -> None:
    torch.manual_seed(0)
    # Of sizes far apart: what one matrix becomes does not depend on the others.
    matrices = torch.randn(4, *shape) * torch.tensor([1e-2, 1.0, 1e3, 1.0])[:, None, None]
    found = orthogonal(matrices, bf16)
    assert found.dtype == torch.float32
    for matrix, ours in zip(matrices, found, strict=True):
        assert torch.allclose(ours, orthogonal(matrix[None], bf16)[0], atol=tolerance)
        assert torch.allclose(ours.double(), by_hand(matrix), atol=tolerance)


@pytest.mark.parametrize("shape", [(16, 144), (96, 8), (64, 576)])
@pytest.mark.parametrize("bf16", [False, True])
def test_singular_values_are_near_one(shape: tuple[int, int], bf16: bool) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(3, *shape), bf16))
    assert values.min() > 0.65
    assert values.max() < 1.25


def test_a_gradient_of_zero_stays_zero() -> None:
    assert not orthogonal(torch.zeros(2, 3, 4), bf16=False).any()


def test_matrices_are_muons_and_vectors_and_the_last_layer_are_sgds() -> None:
    net = Net()
    groups = matrices_of(net)
    names = {name: groups[p] for name, p in net.named_parameters() if p in groups}
    ones = ("stem", "filters", "same_shape", "tall", "squeeze", "sequence")
    assert names == {"grouped.weight": 4} | {f"{name}.weight": 1 for name in ones}
    muon = {id(p) for group in made(net).parts["muon"].param_groups for p in group["params"]}
    sgd = {id(p) for group in made(net).parts["sgd"].param_groups for p in group["params"]}
    assert muon == {id(weight) for weight in groups}
    assert muon | sgd == {id(p) for p in net.parameters()}
    assert not muon & sgd


def test_a_weight_that_is_computed_is_left_to_sgd() -> None:
    layers = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 2)
    normed = [nn.utils.parametrizations.weight_norm(layer) for layer in layers[1:]]
    net = nn.Sequential(layers[0], *normed)
    assert set(matrices_of(net)) == {layers[0].weight}
    assert len(made(net).parts["sgd"].param_groups[0]["params"]) == len([*net.parameters()]) - 1


def test_a_networks_last_layer_is_sgds_and_attention_is_trained_as_the_blocks_are() -> None:
    space = load_space("small")
    net = build(space, sites_of(space), "layer1=bam layer2=cbam layer3=se every-block=gc", 0)
    groups = matrices_of(net)
    others = {name for name, p in net.named_parameters() if p not in groups and p.ndim > 1}
    assert "fc.weight" in others
    others.remove("fc.weight")
    assert len(others) == 5  # to one channel: in BAM, in CBAM, and in GC after each block
    assert all("attention" in name and len(net.get_parameter(name)) == 1 for name in others)


def test_attention_behind_the_last_layer_does_not_change_who_trains_that() -> None:
    net = squeezenet1_1(num_classes=10)
    before = set(matrices_of(net))
    attach(net, "classifier.2=se(r=2)", (3, 64, 64))
    assert before <= set(matrices_of(net))
    assert net.get_submodule("classifier.1").weight not in matrices_of(net)


def test_three_steps_are_those_of_the_plain_implementation() -> None:
    net = channels_last(Net())
    begun, ours = copy.deepcopy(net), made(net)
    gradients: list[dict[str, Tensor]] = []
    for seed in range(3):
        give_gradients(net, seed)
        gradients.append({n: p.grad.clone() for n, p in net.named_parameters()})  # type: ignore[union-attr]
        ours.step()
    groups = matrices_of(net)
    for name, weight in net.named_parameters():
        if weight in groups:
            of_weight = [step[name] for step in gradients]
            expected = stepped_by_hand(begun.get_parameter(name), of_weight, groups[weight])
            assert torch.allclose(weight.double(), expected, atol=1e-4), name
        assert weight.stride() == begun.get_parameter(name).stride()


def test_all_other_parameters_are_trained_as_sgd_trains_them_bit_for_bit() -> None:
    net, plain = channels_last(Net()), channels_last(Net())
    ours = made(net)
    theirs = torch.optim.SGD(
        plain.parameters(), RECIPE.lr, RECIPE.momentum, weight_decay=0.1, nesterov=True, fused=True
    )
    for seed in range(3):
        for one, steps in ((net, ours.step), (plain, theirs.step)):
            give_gradients(one, seed)
            steps()
    groups = matrices_of(net)
    pairs = zip(net.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(one, two) == (one not in groups) for one, two in pairs)


def test_weights_without_a_gradient_stay_as_they_are_and_have_no_state() -> None:
    net, others = Net(), Net()
    ours, theirs = made(net), made(others)
    for one in (net, others):
        give_gradients(one, 0)
    net.filters.weight.grad = None
    before = net.filters.weight.clone()
    ours.step()
    theirs.step()
    assert torch.equal(net.filters.weight, before)
    assert net.filters.weight not in ours.parts["muon"].state
    # One of two weights of a shape goes as both do.
    assert torch.allclose(net.same_shape.weight, others.same_shape.weight, atol=1e-6)
    give_gradients(net, 1)
    ours.step()
    assert not torch.equal(net.filters.weight, before)


def test_attention_behind_a_closed_gate_waits_for_its_gradient() -> None:
    net = channels_last(backbone(load_space("small"), 0))
    attach(net, "layer1=se", (3, 32, 32), init="identity")
    attention = net.get_submodule("layer1.attention")
    before = copy.deepcopy(attention.state_dict())
    ours = made(net, Recipe(optimizer="muon", weight_decay=0.0))
    for moves in (False, True):  # the gate has moved after the first step
        ours.zero_grad()
        net(torch.randn(4, 3, 32, 32)).logsumexp(1).sum().backward()
        ours.step()
        now = attention.state_dict()
        moved = any(not torch.equal(before[n], now[n]) for n in before if n != "gate")
        assert moved == moves
        assert all(value.isfinite().all() for value in now.values())


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_a_loaded_state_goes_on_bit_for_bit_and_hears_of_the_rate(name: str) -> None:
    recipe = Recipe(optimizer=name)  # type: ignore[arg-type]
    net = channels_last(Net())
    ours = made(net, recipe, bf16=True)
    give_gradients(net, 0)
    ours.step()
    again = copy.deepcopy(net)
    loaded = made(again, recipe, bf16=True)
    loaded.load_state_dict(copy.deepcopy(ours.state_dict()))
    for one, goes_on in ((net, ours), (again, loaded)):
        give_gradients(one, 1)
        goes_on.rate.fill_(0.02)
        goes_on.step()
    pairs = zip(net.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_adamw_is_torchs_and_shrinks_no_vector() -> None:
    ours, theirs = Net(), Net()
    recipe = Recipe(optimizer="adamw", lr=0.01, momentum=0.8, weight_decay=0.1)
    one = made(ours, recipe)
    matrices = [p for p in theirs.parameters() if p.dim() > 1]
    vectors = [p for p in theirs.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    other = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.999))
    for seed in range(3):
        for net, step in ((ours, one.step), (theirs, other.step)):
            give_gradients(net, seed)
            step()
    for mine, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_keeps_as_many_numbers_a_weight_as_the_table_says(name: str) -> None:
    """As `training_memory` counts."""
    net = Net()
    ours = made(net, Recipe(optimizer=name))  # type: ignore[arg-type]
    give_gradients(net, 0)
    ours.step()
    states = [state for part in ours.parts.values() for state in part.state.values()]
    # A state may have a counter of steps too, which is no number a weight.
    values = [value for state in states for key, value in state.items() if key != "step"]
    kept = [value.numel() for value in values if value is not None]
    weights = sum(parameter.numel() for parameter in net.parameters())
    assert sum(kept) == MOMENTA[name] * weights


def test_micro_batches_add_up_to_the_batch() -> None:
    class Plain(nn.Sequential):  # no normalisation, which would see the parts
        def __init__(self) -> None:
            torch.manual_seed(0)
            filters = (nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.Conv2d(8, 8, 3))
            super().__init__(*filters, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 100))

    x, y, _, _ = generate_images(200, 0)
    recipe = Recipe(epochs=2, batch=50, lr=0.01, precision="fp32", optimizer="muon")
    context = TrainingContext.of(sources.task(), choose("cpu"), recipe, Images(x, y))
    one = train(Plain(), context, recipe, 0)
    two = train(Plain(), context, recipe, 0, micro_batches=2)
    assert [e.loss for e in one] == pytest.approx([e.loss for e in two], rel=1e-4)


def test_a_model_without_a_matrix_before_its_last_layer_is_told_to_use_sgd() -> None:
    with pytest.raises(NothingForMuon, match=r'recipe\.optimizer = "sgd" trains it'):
        made(nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3), nn.Linear(3, 2)))


def test_the_recipe_knows_the_optimizers_of_the_table() -> None:
    assert get_args(get_type_hints(Recipe)["optimizer"]) == tuple(OPTIMIZERS)
