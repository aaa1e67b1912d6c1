"""Batch normalisation, addition and ReLU as one function.

It gives the same numbers, whatever attention lies in between, and needs one graph a shape.
"""

import contextlib
import copy
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import recorded as recording
import torch
from counting import Counting
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck

from bam_search.errors import UserError
from bam_search.model.attention import create
from bam_search.model.attention.se import SE
from bam_search.model.backbones.preact import PreActBlock
from bam_search.model.build import build, sites_of
from bam_search.model.insert import Mark, insert
from bam_search.score import chain
from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import replayed
from bam_search.score.deferred import NotFused
from bam_search.score.device import choose
from bam_search.score.evaluate import Experiment, Job, evaluate
from bam_search.score.fused import fused
from bam_search.score.measure import measured
from bam_search.score.step import TrainingStep
from bam_search.score.train import train
from bam_search.search.study import load_study
from bam_search.space.placement import Choice
from bam_search.space.search_space import load_space
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset

SMALL = load_space("small")
SITES = sites_of(SMALL)
CPU = choose("cpu")


class Own(nn.Module):
    """A block as users write them.

    It calls functions, and its addition is not in place and has its operands the other way round.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


def shortcut(channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(8, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


def stem() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(8, 12, 3, 2, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


BLOCKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "basic": (lambda: BasicBlock(8, 8), 2),
    "basic, strided": (lambda: BasicBlock(8, 16, 2, shortcut(16, 2)), 2),
    "bottleneck": (lambda: Bottleneck(8, 2), 3),
    "bottleneck, strided": (lambda: Bottleneck(8, 4, 2, shortcut(16, 2)), 3),
    "ResNeXt": (lambda: Bottleneck(8, 2, groups=2, base_width=64), 3),
    "pre-activation": (lambda: PreActBlock(8, ((8, 3), (8, 3)), 1), 2),
    "pre-activation, strided": (lambda: PreActBlock(8, ((4, 1), (4, 3), (16, 1)), 2), 3),
    "stem": (stem, 1),
    "a user's own": (Own, 2),
}
"""A block that takes 8 channels, and how many chains it has."""
PLACES = {
    "basic": ("0", "0.bn2", "0.bn1", "0.relu", "0.conv2"),
    "basic, strided": ("0", "0.bn2", "0.downsample", "0.downsample.1"),
    "bottleneck": ("0.bn3", "0.bn1"),
    "pre-activation": ("0", "0.bn2", "0.relu", "0.conv2"),
    "stem": ("0", "0.1", "0.2"),
    "a user's own": ("0", "0.bn2"),
}


def chain_of(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())


def block(name: str, place: str | None = None) -> nn.Module:
    """A block as the child "0" of a model, at a place with attention and then followed by a chain.

    The weights of normalisations are drawn: ones and zeros would hide mistakes.
    """
    torch.manual_seed(1)
    model = nn.Sequential(BLOCKS[name][0]())
    if place is not None:
        shapes: list[int] = []
        hook = model.get_submodule(place).register_forward_hook(
            lambda _m, _a, output: shapes.append(output.shape[1])
        )
        channels = model(torch.randn(2, 8, 12, 12)).shape[1]
        hook.remove()
        insert(model, {place: (SE(shapes[0], r=1), Mark(Choice("se"), 0))})
        model.append(chain_of(channels))
    for value in model.parameters():
        if value.dim() == 1:
            nn.init.normal_(value, 0.5)
    return model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload,no-any-return]


def images(n: int = 6) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(n, 8, 12, 12).to(memory_format=torch.channels_last)


def passed(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The tensors of one pass forward and backward.

    The output, the gradients of the image and of all weights, and the running statistics.
    """
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = model(x)
    torch.manual_seed(3)
    y.backward(torch.randn(y.shape).to(y))
    gradients = [value.grad for value in (x, *model.parameters())]
    assert all(gradient is not None for gradient in gradients)
    return [y.detach(), *gradients, *(value.clone() for value in model.buffers())]  # type: ignore[list-item]


def differences(found: Sequence[Tensor], expected: Sequence[Tensor]) -> list[float]:
    pairs = [(a.double(), b.double()) for a, b in zip(found, expected, strict=True)]
    return [float((a - b).norm() / b.norm().clamp_min(1e-3)) for a, b in pairs]


def compare(
    model: nn.Module, x: Tensor, backend: chain.Backend = "eager", bf16: bool = False
) -> tuple[list[float], list[float], int]:
    """How far each value of `passed` is from double precision: fused, as it is, and the chains met.

    Two computations in float32 differ by what each is wrong, which is more than its unit where
    numbers cancel.
    """
    twin, truth = copy.deepcopy(model), passed(copy.deepcopy(model).double(), x.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        with fused(model, backend) as chains:
            found = passed(model, x)
        expected = passed(twin, x)
    assert [(value.dtype, value.stride()) for value in found] == [
        (value.dtype, value.stride()) for value in expected
    ]
    return differences(found, truth), differences(expected, truth), chains.fused_calls


def same(ours: list[float], theirs: list[float]) -> bool:
    return all(a < max(1e-5, 2 * b) for a, b in zip(ours, theirs, strict=True)) and ours[0] < 1e-5


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_function_is_the_three_operators(added: bool, layout: torch.memory_format) -> None:
    results = []
    for fast in (True, False):
        x, residual = (
            images(n).contiguous(memory_format=layout).add_(3).requires_grad_() for n in (4, 4)
        )
        torch.manual_seed(4)
        norm = nn.BatchNorm2d(8, eps=1e-3, momentum=0.3)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        if fast:
            y = chain.normalise_add_relu(norm, x, residual if added else None, "eager")
        else:
            y = torch.relu(norm(x) + residual if added else norm(x))
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(3)))
        gradients = [x.grad, *([residual.grad] if added else []), norm.weight.grad, norm.bias.grad]
        results.append([y.detach(), *gradients, *norm.buffers()])
    assert max(differences(*results)) < 1e-6  # type: ignore[arg-type]
    assert results[0][0].is_contiguous(memory_format=layout)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_gives_the_same_and_keeps_its_layout(name: str) -> None:
    ours, theirs, met = compare(block(name), images())
    assert met == BLOCKS[name][1]
    assert same(ours, theirs)


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name, places in PLACES.items() for place in places]
)
def test_attention_at_any_place_runs_and_gives_the_same(name: str, place: str) -> None:
    model = block(name, place)
    ours, theirs, met = compare(model, images())
    assert met > 0
    assert same(ours, theirs)
    weights = model.get_submodule(f"{place}.attention").parameters()
    assert sum(float(value.grad.abs().sum()) for value in weights) > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["bam", "bam(combine=max)", "cbam", "eca", "gc"])
def test_each_kind_of_attention_on_a_normalisation_gives_the_same(text: str) -> None:
    module, _, options = text.rstrip(")").partition("(")
    choice = Choice.of(module, dict(option.split("=") for option in options.split() if option))
    torch.manual_seed(2)
    model = nn.Sequential(BasicBlock(32, 32), BasicBlock(32, 32)).train()
    insert(model, {"0.bn2": (create(choice, 32, nn.Identity()), Mark(choice, 0))})
    ours, _, met = compare(model, torch.randn(6, 32, 12, 12))
    assert met == 4
    # What is nearly 0, as the bias of GC's key, is less exact; a lost gradient is off by 1.
    assert max(ours) < 0.1
    assert ours[0] < 1e-5


def test_a_normalisation_with_attention_leaves_the_sum_and_its_relu_to_be_one() -> None:
    counting = Counting()
    _, _, met = compare(block("basic", "0.bn2"), images(), counting)
    assert met == 3
    # One each way of the two normalisations, of one shape, and the sum; its gradient is torch's.
    assert counting.graphs == 3


@pytest.mark.parametrize("name", BLOCKS)
def test_in_bfloat16_it_is_as_near_to_double_precision_as_the_operators_apart(name: str) -> None:
    """No two ways of rounding agree in bfloat16.

    Its unit is 0.4 %, and a rounded sum near zero may fall to the other side of ReLU.
    """
    ours, theirs, _ = compare(block(name), images(64), bf16=True)
    assert ours[0] < 1.1 * theirs[0] < 0.02
    assert sum(ours) < 1.2 * sum(theirs) < 0.2 * len(theirs)


def test_several_steps_train_alike_and_the_running_statistics_too() -> None:
    plain, fast = (
        nn.Sequential(block("basic"), block("bottleneck"), block("a user's own")) for _ in range(2)
    )
    for model in (plain, fast):
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        for n in range(4):
            torch.manual_seed(n)
            x = torch.randn(8, 8, 12, 12)
            with fused(model, "eager") if model is fast else contextlib.nullcontext():
                model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert max(differences([*fast.state_dict().values()], [*plain.state_dict().values()])) < 1e-4
    assert int(fast.get_submodule("0.0.bn1").num_batches_tracked) == 4  # type: ignore[arg-type]


def test_a_further_placement_needs_no_new_graph_and_a_further_batch_size_does() -> None:
    counting = Counting()

    def graphs(text: str, n: int = 4) -> int:
        model, x = build(SMALL, SITES, text, 0).train(), torch.randn(n, 3, 32, 32)
        with fused(model, counting):
            model(x).sum().backward()
        return counting.graphs

    known = graphs("none")
    assert known == 12  # each way, for three shapes, alone and with a sum
    assert graphs("layer1=se layer2=bam layer3=cbam") == known
    assert graphs("layer1=block layer2=bam(r=4,d=1)") == known
    # Three more: the normalisations run by themselves, and there is a sum of each shape.
    assert graphs("every-block=bam(r=8,d=2)") == known + 3
    assert graphs("bottleneck=bam layer1.0.bn2=se layer3.0.bn2=bam(r=4)") == known + 3
    assert graphs("none", n=6) == 2 * known + 3


def test_more_shapes_than_torch_allows_a_function_compile_in_a_thread_of_its_own_too() -> None:
    """A new thread has none of this one's settings.

    Neither have autograd's threads, in which a GPU's backward runs.
    """
    counting = Counting()
    model = block("stem")
    failures: list[Exception] = []

    def run() -> None:
        try:
            for n in range(2, 14):
                passed(model, images(n))
        except Exception as error:
            failures.append(error)

    with fused(model, counting):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert not failures
    assert counting.graphs == 24


@pytest.mark.parametrize("micro_batches", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_step_can_be_recorded_and_replayed(
    micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(
        recording._Recording,
        "ignore_compile_internals",
        classmethod(lambda _cls: True),
        raising=False,
    )
    x, y, _, _ = generate_images(200, 0)
    recipe, counting, before = Recipe(epochs=2, batch=25, precision="bf16"), Counting(), []

    def trained() -> tuple[object, Tensor]:
        model = build(SMALL, SITES, "bottleneck=bam layer3.0.bn2=se", 0).to(
            memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        context = TrainingContext.of(sources.task(), CPU, recipe, Images(x, y))
        with fused(model, counting):
            epochs = train(
                model,
                context,
                recipe,
                3,
                lambda: measured(model, Images(x, y), context).value,
                micro_batches,
            )
        return epochs, torch.cat(
            [value.flatten().double() for value in model.state_dict().values()]
        )

    def capture(function: Callable[[], None]) -> Callable[[], None]:
        before.append(counting.graphs)
        replay = recording.recorded(function)
        before.append(counting.graphs)
        return replay

    expected = trained()
    monkeypatch.setattr(TrainingStep, "make_step", lambda self: replayed(self.step, capture))
    found = trained()
    assert found[0] == expected[0]
    assert torch.equal(found[1], expected[1])
    assert before[0] == before[1] > 0  # nothing is compiled in a recording


def test_without_training_the_model_runs_as_it_is_and_afterwards_nothing_is_left() -> None:
    counting, model = Counting(), block("basic, strided", "0.bn2")
    twin, state = copy.deepcopy(model), list(model.state_dict())
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with fused(model, counting), torch.no_grad():
        assert torch.equal(model.eval()(images()), twin.eval()(images()))
        assert torch.equal(model.train()(images()), twin.train()(images()))
    assert counting.graphs == 0
    assert list(model.state_dict()) == state
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert not any("forward" in module.__dict__ for module in model.modules())


class Subclass(nn.BatchNorm2d):
    """Somebody's own normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def frozen() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(8).eval()


class InDouble(nn.Module):
    """A normalisation in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.double()).to(x.dtype)  # type: ignore[no-any-return]


def without_bias() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(8)
    norm.bias = None  # type: ignore[assignment]  # newer versions of torch have an option for it
    return norm


def watched() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(8)
    norm.register_full_backward_hook(lambda _module, given, _got: tuple(2 * g for g in given))
    return norm


LEFT: dict[str, Callable[[], Sequence[nn.Module]]] = {
    "no momentum": lambda: [nn.BatchNorm2d(8, momentum=None), nn.ReLU()],
    "no running statistics": lambda: [nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU()],
    "no bias": lambda: [without_bias(), nn.ReLU()],
    "no weights": lambda: [nn.BatchNorm2d(8, affine=False), nn.ReLU()],
    "frozen": lambda: [frozen(), nn.ReLU()],
    "double": lambda: [InDouble(), nn.ReLU()],
    "a subclass": lambda: [Subclass(8), nn.ReLU()],
    "a hook on its gradient": lambda: [watched(), nn.ReLU()],
    "SiLU": lambda: [nn.BatchNorm2d(8), nn.SiLU(inplace=True)],
    "hard swish": lambda: [nn.BatchNorm2d(8), nn.Hardswish()],
    "clamped": lambda: [nn.BatchNorm2d(8), nn.ReLU6(inplace=True)],
    "a normalisation after another": lambda: [nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.SiLU()],
    "pooled": lambda: [nn.BatchNorm2d(8), nn.AvgPool2d(2)],
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_no_chain_runs_exactly_as_it_is(name: str) -> None:
    torch.manual_seed(1)
    left = LEFT[name]()
    model = nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), *left, chain_of(8)).train()
    for norm in left if name == "frozen" else ():
        norm.eval()
    seen: list[Tensor] = []
    model[len(left)].register_forward_hook(
        lambda _m, _a, output: seen.append(output.detach().clone())
    )
    ours, theirs, met = compare(model, images())
    assert met == 1  # the last
    assert torch.equal(seen[1], seen[2])  # the first is the truth
    assert same(ours, theirs)


class Around(nn.Module):
    """A normalisation, and what a function makes of it."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.use = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.bn(self.conv(x)), x)


def twice(y: Tensor, _x: Tensor) -> Tensor:
    return functional.relu(y) + y.tanh()


def read_before(y: Tensor, _x: Tensor) -> Tensor:
    return y.tanh() + functional.relu(y)


def rectified_in_place(y: Tensor, _x: Tensor) -> Tensor:
    functional.relu(y, inplace=True)
    return 2 * y


def added_in_place(y: Tensor, x: Tensor) -> Tensor:
    z = y
    y += x
    return functional.relu(y) + z


def added_twice(y: Tensor, x: Tensor) -> Tensor:
    return torch.relu_(torch.relu(y + x) - (x + y).relu() / 2 + x.add(y).relu_())


def scaled_and_shifted(y: Tensor, x: Tensor) -> Tensor:
    return (
        torch.relu(torch.add(y, x, alpha=2))
        + torch.relu(y + 1)
        + torch.relu(y + x.mean(1, keepdim=True))
    )


def added_to_another(y: Tensor, x: Tensor) -> Tensor:
    x = x.clone()
    x += y
    return x.relu_()


def changed_after_an_addition(y: Tensor, x: Tensor) -> Tensor:
    z = y + x
    y.relu_()
    return z.tanh() + y


def asked_for_its_shape(y: Tensor, x: Tensor) -> Tensor:
    assert (y.shape, y.dtype, y.dim(), y.size(1), y.device) == (x.shape, x.dtype, 4, 8, x.device)
    return torch.relu(y)


USES = {
    twice: 1,
    read_before: 0,
    rectified_in_place: 1,
    added_in_place: 1,
    added_twice: 1,
    scaled_and_shifted: 0,
}
USES |= {added_to_another: 0, changed_after_an_addition: 1, asked_for_its_shape: 1}


@pytest.mark.parametrize("use", USES)
def test_whatever_is_done_with_a_normalisations_output_gives_the_same(
    use: Callable[[Tensor, Tensor], Tensor],
) -> None:
    ours, theirs, met = compare(nn.Sequential(Around(use), chain_of(8)).train(), images())
    assert met == USES[use] + 1
    assert same(ours, theirs)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


def changes_what_it_added(y: Tensor, x: Tensor) -> Tensor:
    x = x.clone()
    z = y + x
    x.mul_(2)
    return z.relu()


def changes_what_it_read(y: Tensor, x: Tensor) -> Tensor:
    z = y + x
    y.mul_(2)
    return z.relu()


def goes_through_a_function_of_its_own(y: Tensor, _x: Tensor) -> Tensor:
    return Doubled.apply(y)  # type: ignore[no-any-return]


def goes_through_a_function_of_its_own_after_it_was_read(y: Tensor, _x: Tensor) -> Tensor:
    mean = y.mean()
    return mean * Doubled.apply(y)  # type: ignore[no-any-return]


def reads_without_gradients(y: Tensor, x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * y.mean()


@pytest.mark.parametrize(
    "use",
    [
        changes_what_it_added,
        changes_what_it_read,
        goes_through_a_function_of_its_own,
        goes_through_a_function_of_its_own_after_it_was_read,
        reads_without_gradients,
    ],
)
def test_what_could_go_wrong_silently_is_an_error(use: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = nn.Sequential(Around(use), chain_of(8))
    with (
        fused(model, "eager"),
        pytest.raises(NotFused, match=r"\(recipe.fuse = false trains the model\)"),
    ):
        model(images())


def test_what_leaves_the_model_is_an_ordinary_tensor() -> None:
    model = nn.Sequential(chain_of(8), nn.BatchNorm2d(8)).train()
    with fused(model, "eager"):
        assert type(model(images())) is Tensor


def test_hooks_of_every_module_hear_what_they_would() -> None:
    model, heard = block("bottleneck, strided"), []
    twin = copy.deepcopy(model)
    for each in (model, twin):
        for module in each.modules():
            module.register_forward_hook(
                lambda _m, _a, output: heard.append(output.detach().clone())
            )
    with fused(model, "eager"):
        model(images())
    ours, n = heard.copy(), len(heard)
    twin(images())
    assert len(heard) == 2 * n
    assert max(differences(ours, heard[n:])) < 1e-5


def test_the_map_is_kept_once_and_a_sum_keeps_its_result() -> None:
    kept: list[Tensor] = []

    def saved(name: str) -> list[tuple[int, ...]]:
        kept.clear()
        model = block(name)
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)  # type: ignore[func-returns-value]
        with fused(model, "eager"), hooks:
            model(images().requires_grad_())
        distinct = {t.data_ptr(): t for t in kept}.values()
        return [tuple(t.shape) for t in distinct if t.dim() == 4 and t.shape[0] == 6]

    # The image, two convolutions' results, and two chains'.
    assert saved("basic") == [(6, 8, 12, 12)] * 5
    assert saved("a user's own") == [(6, 8, 12, 12)] * 5


@pytest.mark.parametrize(
    "model",
    [nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()), nn.Sequential(nn.BatchNorm2d(8), nn.SiLU())],
)
def test_a_model_without_chains_says_so(model: nn.Module) -> None:
    with (
        pytest.raises(NotFused, match="no batch normalisation of this model is followed by ReLU"),
        fused(model, "eager"),
    ):
        model(images())


def test_what_cannot_be_compiled_says_so_and_leaves_the_model_as_it_was() -> None:
    def broken(_module: Any, _example: Any) -> Any:
        raise RuntimeError("no compiler")

    model = block("stem")
    with (
        pytest.raises(NotFused, match=r"cannot be compiled: .*no compiler.*\(recipe.fuse = false"),
        fused(model, broken),
    ):
        model(images())
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_recipe_says_which_of_the_two(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"recipe\.compile and recipe\.fuse are both true"):
        load_study("placement", CPU, {}, ["recipe.compile=true", "recipe.fuse=true"])
    x, y, x_test, y_test = generate_images(400, 100)
    parts = sources.task().split(
        Dataset("generated", "", Images(x, y), Images(x_test, y_test)),
        SplitSizes.of(len(x), None, 0.25),
        seed=0,
    )
    recipe = Recipe(epochs=2, batch=50, precision="fp32", lr=0.02)
    monkeypatch.setattr("bam_search.score.evaluate.fused", partial(fused, backend="eager"))
    losses = []
    for how in (recipe, Recipe(epochs=2, batch=50, precision="fp32", lr=0.02, fuse=True)):
        result = evaluate(
            Experiment("classification", "small", SITES, parts, how, CPU, threads=1),
            Job("bottleneck=bam", 0, 2),
        )
        assert result.score is not None, result.failure
        losses.append([epoch.loss for epoch in result.score.per_epoch])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["basic, strided", "bottleneck", "pre-activation", "stem"])
def test_compiled_by_inductor_it_is_as_near_to_double_precision_as_the_operators_apart(
    name: str, bf16: bool
) -> None:
    ours, theirs, _ = compare(block(name), images(64), "inductor", bf16)
    if bf16:
        assert ours[0] < 1.1 * theirs[0] < 0.02
        assert sum(ours) < 1.2 * sum(theirs) < 0.2 * len(theirs)
    else:
        assert same(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("added", "maps"), [(True, 3), (False, 2)])
def test_inductor_writes_no_map_but_the_results(added: bool, maps: int) -> None:
    from torch._inductor.utils import run_and_get_code

    x, residual, gradient = (images(7).bfloat16() for _ in range(3))  # of a shape of its own
    norm = nn.BatchNorm2d(8)

    def there_and_back() -> None:
        leaves = x.clone().requires_grad_(), residual.clone().requires_grad_()
        y = chain.normalise_add_relu(norm, leaves[0], leaves[1] if added else None, "inductor")
        y.backward(gradient)

    _, code = run_and_get_code(there_and_back)
    # The result, and the gradient of the map; with a sum, that of what was added.
    allocated = "empty_strided_cpu((7, 8, 12, 12), (1152, 1, 96, 8)"
    assert sum(text.count(allocated) for text in code) == maps
