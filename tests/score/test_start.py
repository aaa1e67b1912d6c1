"""What trainings start from: pretrained weights, a gate of 0, a frozen or a slower backbone."""

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bam_search.errors import UserError
from bam_search.model.attach import attached
from bam_search.model.build import backbone, build, sites_of, start_of
from bam_search.model.start import SCRATCH, Start, StartPlan
from bam_search.running.describe import identity_of
from bam_search.running.prepare import Request, resolve_run
from bam_search.score.context import TrainingContext
from bam_search.score.cost import count
from bam_search.score.cost_table import cost_table
from bam_search.score.device import choose
from bam_search.score.optimizers import optimizer
from bam_search.score.step import TrainingStep
from bam_search.score.train import TrainingState, train
from bam_search.search.study import load_study
from bam_search.space.search_space import SearchSpace
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.recipe import Recipe

CPU = choose("cpu")
OPTIMIZERS = ("sgd", "muon")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bn(self.conv(x))).relu()


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8))
        self.stage = nn.Sequential(Block(8), Block(8))
        self.neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.stage(self.stem(x))))


SPACE = SearchSpace("mine", Net)
SITES = sites_of(SPACE)
BAM = "stage.0.bn=bam(r=2,d=1) stage.1=bam(r=2,d=1)"
HEAD = ("head.2.weight", "head.2.bias")
"""What depends on the number of classes."""


def recipe(**values: Any) -> Recipe:
    return Recipe(**{"epochs": 1, "batch": 50, "precision": "fp32", "lr": 0.05, **values})


def context(how: Recipe) -> TrainingContext:
    x, y, _, _ = generate_images(100, 0)
    return TrainingContext.of(sources.task(), CPU, how, Images(x, y))


def weights(folder: Path, leave: str = "nothing") -> str:
    """A file of weights of another seed, whose statistics are not those of a new net."""
    net = backbone(SPACE, seed=99)
    net.train()(torch.rand(4, 3, 32, 32))
    state = {key: value for key, value in net.state_dict().items() if not key.startswith(leave)}
    torch.save(state, folder / "weights.pt")
    return str(folder / "weights.pt")


def state(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def changed(before: dict[str, Tensor], net: nn.Module) -> set[str]:
    return {key for key, value in net.state_dict().items() if not torch.equal(before[key], value)}


def test_weights_come_from_the_file_and_all_else_from_the_seed(tmp_path: Path) -> None:
    start = start_of(SPACE, StartPlan(weights(tmp_path, "head.2")))
    assert start.note.endswith("its head starts anew: head.2.weight, head.2.bias")
    nets = [build(SPACE, SITES, BAM, seed, start) for seed in (0, 1, 0)]
    differ = changed(state(nets[0]), nets[1])
    assert not changed(state(nets[0]), nets[2])
    assert {key for key in differ if "attention" not in key} == set(HEAD)
    assert any(".attention." in key for key in differ)
    scratch = build(SPACE, SITES, BAM, 0)
    assert "stem.0.weight" in changed(state(scratch), nets[0])
    assert not changed(state(scratch), nets[0]) & set(HEAD)


@pytest.mark.parametrize("leave", ["nothing", "head"])
def test_identity_insertion_keeps_the_outputs(tmp_path: Path, leave: str) -> None:
    start = start_of(SPACE, StartPlan(weights(tmp_path, leave), "identity"))
    x = torch.rand(2, 3, 32, 32)
    plain, attended = (build(SPACE, SITES, text, 0, start).eval()(x) for text in ("none", BAM))
    assert torch.equal(plain, attended)
    start = replace(start, init="random")
    assert not torch.equal(plain, build(SPACE, SITES, BAM, 0, start).eval()(x))


@pytest.mark.parametrize(
    "text",
    [BAM, "stage.1=se(r=2)", "stage-ends=block stem.0=eca", "stage.1.bn=cbam(r=2) stage.1=gc(r=2)"],
)
def test_the_gates_are_counted(text: str) -> None:
    net = build(SPACE, SITES, text, 0, Start(init="identity"))
    cost = cost_table(SPACE, SITES, gated=True).cost(attached(net))
    assert cost == count(net, SPACE.input_shape)


@pytest.mark.parametrize("placement", ["none", BAM])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("leave", "head"), [("nothing", "head.2."), ("head.2", "head.2."), ("head", "head.")]
)
def test_a_frozen_backbone_stays_as_it_is(
    tmp_path: Path, placement: str, name: str, leave: str, head: str
) -> None:
    """Its statistics too; the head and the attention train, all of them."""
    start = start_of(SPACE, StartPlan(weights(tmp_path, leave), backbone="frozen"))
    net = build(SPACE, SITES, placement, 0, start)
    before, how = state(net), recipe(optimizer=name)
    train(net, context(how), how, 0, start=start)
    trained = {key for key in before if key.startswith(head) or ".attention." in key}
    assert changed(before, net) == trained
    names = [key for key, value in net.named_parameters() if value.grad is not None]
    assert set(names) <= trained


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("factor", [0.1, 0.5])
def test_a_slower_backbone_has_a_part_of_the_rate(tmp_path: Path, name: str, factor: float) -> None:
    path = weights(tmp_path)
    how = recipe(optimizer=name, batch=100, warmup=0.0)  # one step
    steps = {}
    for backbone_rate in ("train", factor):
        start = start_of(SPACE, StartPlan(path, backbone=backbone_rate))  # type: ignore[arg-type]
        net = build(SPACE, SITES, BAM, 0, start)
        before = dict(copy.deepcopy(net).named_parameters())
        train(net, context(how), how, 0, start=start)
        after = dict(net.named_parameters())
        steps[backbone_rate] = {key: after[key].detach() - before[key].detach() for key in after}
    for key, whole in steps["train"].items():
        is_slow = key not in HEAD and ".attention." not in key
        expected = factor * whole if is_slow else whole
        torch.testing.assert_close(steps[factor][key], expected, rtol=1e-3, atol=1e-6)
    assert steps["train"]["stem.0.weight"].abs().max() > 1e-4


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("plan", [StartPlan(backbone="frozen"), StartPlan(backbone=0.25)])
def test_a_training_goes_on_as_it_would_have(name: str, plan: StartPlan) -> None:
    start, how, saved = start_of(SPACE, plan), recipe(optimizer=name, epochs=3), []

    def keep(now: TrainingState) -> None:
        saved.append(copy.deepcopy(now))

    whole = build(SPACE, SITES, BAM, 0, start)
    epochs = train(whole, context(how), how, 0, keep=keep, start=start)
    again = build(SPACE, SITES, BAM, 0, start)
    assert train(again, context(how), how, 0, saved=saved[1], start=start) == epochs
    assert not changed(state(whole), again)


def test_all_parameters_are_in_one_part_of_the_optimizer_each() -> None:
    start = start_of(SPACE, StartPlan(backbone=0.5))
    net, how = build(SPACE, SITES, BAM, 0, start), recipe(optimizer="muon")
    rate = torch.tensor(1.0)
    made = optimizer(net, how, rate, False, start.slow_parameters(net), start.factor)
    assert list(made.parts) == ["sgd", "muon", "slow sgd", "slow muon"]
    groups = [group for part in made.parts.values() for group in part.param_groups]
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(parameters)) == len(list(net.parameters()))
    made.step()
    (group, *_) = made.parts["slow muon"].param_groups
    assert float(group["lr"]) == 0.5


@pytest.mark.parametrize("classes", ["any", "one"])
def test_the_head_depends_on_the_classes_or_is_the_last_layer(classes: str) -> None:
    space = SPACE if classes == "any" else SearchSpace("fixed", lambda _: Net(100))
    start = start_of(space, StartPlan(backbone="frozen"))
    assert {"head.0.weight", "stage.0.bn.bias"} <= set(start.slow)
    assert set(HEAD).isdisjoint(start.slow)
    assert start.norms == ("stem.1", "stage.0.bn", "stage.1.bn", "head.1")


def test_training_mode_leaves_attention_at_a_frozen_normalisation() -> None:
    start = start_of(SPACE, StartPlan(backbone="frozen"))
    net = build(SPACE, SITES, BAM, 0, start)
    start.train_mode(net)
    assert [name for name, m in net.named_modules() if not m.training] == list(start.norms)
    step = TrainingStep.first(net, context(recipe()), recipe(), start=start)
    assert set(step.optimizer.parts) == {"sgd"}


def test_a_start_from_scratch_holds_nothing() -> None:
    assert start_of(SPACE, StartPlan()) == SCRATCH == Start()


@pytest.mark.parametrize("value", ["0", "1", "1.5", "-0.1", "true", "'freeze'"])
def test_the_backbones_rate_is_a_share(value: str) -> None:
    with pytest.raises(UserError, match=r"start\.backbone"):
        load_study("placement", CPU, {}, [f"start.backbone={value}"])


def test_a_frozen_backbone_has_nothing_to_fuse() -> None:
    with pytest.raises(UserError, match=r'recipe\.fuse is true and start\.backbone is "frozen"'):
        load_study("placement", CPU, {}, ["start.backbone=frozen", "recipe.fuse=true"])


def test_the_content_of_the_weights_is_part_of_what_a_study_is(tmp_path: Path) -> None:
    nets = [backbone(resolved().space, seed) for seed in (1, 2)]
    plain, other = tmp_path / "plain.pt", tmp_path / "other.pt"
    torch.save(nets[0].state_dict(), plain)
    torch.save(nets[1].state_dict(), other)
    wrapped = {f"module.{key}": value for key, value in nets[0].state_dict().items()}
    torch.save({"model": wrapped}, tmp_path / "wrapped.pt")
    first = identity(f"start.weights='{plain}'")
    assert str(plain) not in str(first)
    assert identity(f"start.weights='{tmp_path / 'wrapped.pt'}'") == first
    assert identity(f"start.weights='{other}'")["start"]["weights"] != first["start"]["weights"]
    assert identity(f"start.weights='{plain}'", "start.insertion=identity") != first
    assert "start" not in identity()


def resolved(*assignments: str) -> Any:
    return resolve_run(Request("placement", "cpu", assignments, {}))


def identity(*assignments: str) -> dict[str, Any]:
    data: Any = SimpleNamespace(name="images", digest="0")
    return identity_of(resolved(*assignments), data)
