"""Operators with weights always count, however they are set, hidden, called or put out."""

import contextlib
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import DeformConv2d, MultiScaleRoIAlign

from bam_search.errors import UserError
from bam_search.score.cost import Cost, count

ELEMENTWISE = {"mul", "add", "softmax", "div", "mean", "sigmoid", "tanh", "layer_norm", "relu"}


class Function(nn.Module):
    """A function of its inputs, and of weights of the given shapes."""

    def __init__(self, function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList([nn.Parameter(torch.rand(shape)) for shape in shapes])

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, *self.weights)


def einsum(equation: str, *weights: tuple[int, ...]) -> nn.Module:
    return Function(lambda *tensors: torch.einsum(equation, *tensors), *weights)


def products(cost: Cost) -> int:
    """All that multiplies matrices or convolves."""
    return sum(n for name, n in cost.by_operator.items() if name not in ELEMENTWISE)


def by_torch(model: nn.Module, *inputs: Tensor) -> int:
    """The MACs of torch's own counter, with attention written out."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        # Its fast path, which eval mode takes, has no formula; the modules here have no dropout.
        model.train()(*inputs)
    model.eval()
    return counter.get_total_flops() // 2


MODELS: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    "1-D, same": (nn.Conv1d(4, 8, 3, groups=2, padding="same"), ((1, 4, 9),)),
    "3-D, same, dilated": (nn.Conv3d(4, 8, 3, padding="same", dilation=2), ((1, 4, 6, 7, 8),)),
    "valid, circular": (
        nn.Conv2d(3, 4, 3, padding="valid", padding_mode="circular"),
        ((1, 3, 9, 9),),
    ),
    "same, even kernel": (nn.Conv2d(3, 4, (4, 2), padding="same"), ((1, 3, 9, 9),)),
    "reflected": (nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"), ((1, 3, 9, 9),)),
    "replicated, depthwise": (
        nn.Conv2d(6, 6, 3, padding=1, padding_mode="replicate", groups=6),
        ((1, 6, 9, 9),),
    ),
    "without a batch": (nn.Conv2d(3, 4, 3, padding="same"), ((3, 8, 8),)),
    "transposed 1-D": (nn.ConvTranspose1d(4, 8, 3, groups=4, stride=2), ((1, 4, 9),)),
    "transposed 3-D": (nn.ConvTranspose3d(4, 6, 3, stride=2, output_padding=1), ((1, 4, 5, 5, 5),)),
    "self-attention with weights": (nn.MultiheadAttention(8, 2), ((5, 1, 8),) * 3),
    "attention between dimensions": (
        nn.MultiheadAttention(8, 2, kdim=3, vdim=4, batch_first=True),
        ((1, 5, 8), (1, 6, 3), (1, 6, 4)),
    ),
    "grouped queries": (
        Function(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)),
        ((1, 4, 5, 8), (1, 2, 6, 8), (1, 2, 6, 8)),
    ),
    "causal": (
        Function(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
        ((1, 2, 7, 4),),
    ),
    "encoder": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2),
        ((1, 5, 8),),
    ),
    "decoder": (
        nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True),
        ((1, 5, 8), (1, 4, 8)),
    ),
    "matmul that broadcasts": (Function(torch.matmul), ((4, 5), (2, 3, 5, 6))),
    "a vector and matrices": (Function(torch.matmul), ((5,), (2, 5, 3))),
    "addmm": (Function(lambda x, w: torch.addmm(w[0], x, w), (5, 6)), ((4, 5),)),
    "baddbmm": (Function(torch.baddbmm), ((2, 4, 6), (2, 4, 5), (2, 5, 6))),
    "tensordot": (
        Function(lambda a, b: torch.tensordot(a, b, ([1, 2], [0, 2]))),
        ((2, 3, 4), (3, 5, 4)),
    ),
    "inner": (Function(torch.inner), ((2, 3, 5), (4, 5))),
    "einsum over channels": (einsum("bchw,kc->bkhw", (6, 3)), ((2, 3, 4, 5),)),
    "einsum with dots": (einsum("...ij,...jk->...ik"), ((2, 3, 4, 5), (3, 5, 6))),
    "einsum of four": (einsum("ij,jk,kl,lm->im"), ((2, 30), (30, 4), (4, 50), (50, 6))),
    "einsum, implied": (einsum("bij,jk"), ((2, 3, 4), (4, 5))),
    "einsum, bilinear": (einsum("bi,ijk,bk->bj", (3, 4, 5), (2, 5)), ((2, 3),)),
    "einsum, summed before": (einsum("ijm,jk->ik"), ((2, 3, 7), (3, 5))),
    "LSTM": (nn.LSTM(4, 5, 2, bidirectional=True, proj_size=3), ((7, 2, 4),)),
    "GRU": (nn.GRU(4, 5, batch_first=True), ((7, 2, 4),)),
    "RNN": (nn.RNN(4, 5, nonlinearity="relu"), ((7, 2, 4),)),
    "LSTM cell": (nn.LSTMCell(4, 5), ((2, 4),)),
}


@pytest.mark.parametrize("name", MODELS)
def test_products_are_those_that_torch_counts(name: str) -> None:
    model, shapes = MODELS[name]
    inputs = tuple(torch.rand(shape) for shape in shapes)
    counted = count(model, example_inputs=inputs)
    assert products(counted) == by_torch(model, *inputs) > 0


@pytest.mark.parametrize(
    ("model", "shapes", "name", "macs"),
    [
        (DeformConv2d(4, 6, 3, padding=1, groups=2), ((1, 4, 8, 8), (1, 18, 8, 8)), "conv", 6912),
        (DeformConv2d(2, 2, (1, 3)), ((1, 2, 4, 6), (1, 6, 4, 4), (1, 3, 4, 4)), "conv", 192),
        (
            Function(lambda x, w: torch.conv_tbc(x, w, w[0, 0]), (3, 4, 6)),
            ((9, 2, 4),),
            "conv",
            1008,
        ),
        (nn.Bilinear(4, 5, 6), ((2, 4), (2, 5)), "bilinear", 240),
        (Function(torch.cdist), ((2, 30, 4), (2, 40, 4)), "cdist", 9600),
        (Function(torch.cdist), ((3, 4), (5, 4)), "cdist", 60),
        (Function(torch.addbmm), ((4, 6), (2, 4, 5), (2, 5, 6)), "addbmm", 240),
    ],
)
def test_what_torch_does_not_count(
    model: nn.Module, shapes: tuple[tuple[int, ...], ...], name: str, macs: int
) -> None:
    cost = count(model, example_inputs=tuple(torch.rand(shape) for shape in shapes))
    assert cost.by_operator[name] == macs


@pytest.mark.parametrize(
    "model",
    [
        Function(lambda x, w: x @ w.t(), (6, 5)),
        Function(lambda x, w: torch.addmm(w[0], x[0], w), (5, 6)),
        Function(lambda x, w: torch.bmm(x, w[None]), (5, 6)),
        Function(lambda x, w: F.linear(x, w), (6, 5)),
    ],
)
def test_a_linear_layer_counts_as_one_however_it_is_written(model: nn.Module) -> None:
    assert count(model, example_inputs=(torch.rand(1, 4, 5),)).macs_conv_fc == 120
    between = count(Function(torch.matmul), example_inputs=(torch.rand(4, 5), torch.rand(5, 6)))
    assert (between.macs, between.macs_conv_fc) == (120, 0)


class Tokens(nn.Module):
    """Patches, a layer of a transformer's encoder, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Attends(nn.Module):
    """Self-attention between the pixels of a map."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.head = nn.Linear(32, 4)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        mixed, _ = self.attend(tokens, tokens, tokens, need_weights=self.need_weights)
        return self.head((tokens + mixed).mean(1))


def frozen(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False)


SETTINGS: dict[
    str, tuple[Callable[[nn.Module], nn.Module], Callable[[], AbstractContextManager[Any]]]
] = {
    "training": (lambda m: m.train(), contextlib.nullcontext),
    "frozen": (frozen, contextlib.nullcontext),
    "frozen, eval": (lambda m: frozen(m).eval(), contextlib.nullcontext),
    "no_grad": (lambda m: m.eval(), torch.no_grad),
    "inference mode": (lambda m: m.eval(), torch.inference_mode),
    "half": (lambda m: m.half(), contextlib.nullcontext),
    "bfloat16": (lambda m: m.bfloat16(), torch.no_grad),
    "float64": (lambda m: m.double(), contextlib.nullcontext),
    "meta": (lambda m: m.to("meta"), torch.no_grad),
    "autocast": (lambda m: m, lambda: torch.autocast("cpu", torch.bfloat16)),
    "data parallel": (lambda m: nn.DataParallel(m), contextlib.nullcontext),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    ("make", "side", "macs"),
    [
        (Tokens, 32, 622_720),
        (lambda: Attends(need_weights=False), 16, 1_269_888),
        (lambda: Attends(need_weights=True), 16, 1_269_888),
    ],
)
def test_a_count_does_not_depend_on_settings(
    make: Callable[[], nn.Module], side: int, macs: int, setting: str
) -> None:
    change, context = SETTINGS[setting]
    plain = count(make(), (3, side, side))
    with context():
        counted = count(change(make()), (3, side, side))
    assert counted == plain
    assert counted.macs_conv_fc == macs


class Old(torch.autograd.Function):
    """x, weight -> x @ weight, with a context."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.wanted = ctx.needs_input_grad
        return x @ weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError


class New(torch.autograd.Function):
    """x, weight -> x @ weight, with a context that is set up apart."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError


class Blocks(nn.Module):
    """Two convolutions, called by `run`, which may keep a third one's output for itself."""

    def __init__(self, run: Callable[[nn.Sequential, Tensor], Any]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, padding="same")
        )
        self.run = run

    def forward(self, x: Tensor) -> Any:
        return self.run(self.blocks, x)


def keeping(blocks: nn.Sequential, x: Tensor) -> Tensor:
    blocks.last = blocks(x)
    return x.mean((2, 3))


def unused(blocks: nn.Sequential, x: Tensor) -> Tensor:
    y: Tensor = blocks[0](x)
    F.conv2d(y.relu(), blocks[2].weight, padding=1)
    return y


HIDDEN: dict[str, Callable[[nn.Sequential, Tensor], Any]] = {
    "checkpointed": lambda blocks, x: checkpoint(blocks, x, use_reentrant=True),
    "checkpointed anew": lambda blocks, x: checkpoint(blocks, x, use_reentrant=False),
    "in a sequence": lambda blocks, x: checkpoint_sequential(blocks, 2, x, use_reentrant=True),
    "within each other": lambda blocks, x: checkpoint(
        lambda y: checkpoint(blocks[1:], blocks[0](y), use_reentrant=True), x, use_reentrant=True
    ),
    "kept only": keeping,
    "not used": unused,
}


@pytest.mark.parametrize("run", HIDDEN.values(), ids=HIDDEN)
def test_what_a_trace_hides_is_counted(run: Callable[[nn.Sequential, Tensor], Any]) -> None:
    cost = count(Blocks(run), (3, 8, 8))
    assert cost.by_operator["conv"] == 36 * (27 * 4 + 36 * 5)
    assert cost.by_operator["relu"] == 36 * 4
    assert cost.activations == 36 * (4 + 5)


@pytest.mark.parametrize("function", [Old, New])
def test_functions_of_autograd_are_looked_into(function: type[torch.autograd.Function]) -> None:
    model = Function(lambda x, weight: function.apply(x, weight).relu(), (5, 6))
    counted = count(model, example_inputs=(torch.rand(4, 5),))
    assert counted.by_operator == {"linear": 120, "relu": 24}
    assert model(torch.rand(4, 5)).grad_fn is not None
    kept = Function(function.apply, (5, 6))  # as in `swish = Swish.apply`
    assert count(kept, example_inputs=(torch.rand(4, 5),)).by_operator == {"matmul": 120}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: torch.compile(net),
        lambda net: nn.Sequential(torch.compile(net[0]), net[1]),
        lambda net: nn.Sequential(nn.Sequential(net[0]), nn.Sequential(torch.compile(net[1]))),
    ],
)
def test_compiled_modules_count_as_they_were(wrap: Callable[[nn.Sequential], nn.Module]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    plain = count(net, (3, 8, 8))
    assert count(wrap(net), (3, 8, 8)) == plain


def test_counting_leaves_torch_as_it_was() -> None:
    model = Blocks(lambda blocks, x: blocks(x + torch.rand_like(x)))
    before = torch.autograd.Function.apply
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    count(model, (3, 8, 8))
    assert torch.equal(torch.rand(3), expected)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.autograd.Function.apply == before
    assert torch.is_grad_enabled()


def test_threads_that_count_do_not_meet() -> None:
    before = torch.autograd.Function.apply
    nets = [Blocks(HIDDEN["checkpointed"]) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        costs = list(pool.map(lambda net: count(net, (3, 8, 8)), nets))
    assert len({cost.macs for cost in costs}) == 1
    assert torch.autograd.Function.apply == before
    assert torch.backends.mha.get_fastpath_enabled()


@torch.library.custom_op("bam_search_test::project", mutates_args=())
def project(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


@torch.library.custom_op("bam_search_test::known", mutates_args=())
def known(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


@register_flop_formula(torch.ops.bam_search_test.known)
def _flops(x: Any, weight: Any, **_: Any) -> int:
    return 2 * x[0] * x[1] * weight[1]


def _quantized(net: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what replaces it is in no package of ours
        return torch.ao.quantization.quantize_dynamic(net)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "shape", "told"),
    [
        (Function(project, (5, 6)), (4, 5), "bam_search_test::project has weights"),
        (Function(lambda x, w: project(x, w.t()), (6, 5)), (4, 5), "bam_search_test::project"),
        (
            Function(lambda x, w: torch.linalg.multi_dot([x, w, w]), (5, 5)),
            (4, 5),
            "aten::linalg_multi_dot",
        ),
        (
            _quantized(nn.Sequential(nn.Linear(5, 6))),
            (4, 5),
            "quantized::linear_dynamic has weights",
        ),
    ],
)
def test_an_operator_with_weights_that_cannot_be_counted_is_named(
    model: nn.Module, shape: tuple[int, ...], told: str
) -> None:
    with pytest.raises(UserError) as caught:
        count(model, example_inputs=(torch.rand(shape),))
    assert told in caught.value.message
    assert caught.value.hint


def test_an_operator_with_a_formula_counts() -> None:
    counted = count(Function(known, (5, 6)), example_inputs=(torch.rand(4, 5),))
    assert counted.by_operator == {"bam_search_test::known": 120}
    assert counted.uncounted == {}


@dataclass
class Output:
    """Logits, and what else a network of a library puts out."""

    logits: Tensor
    hidden: tuple[Tensor, ...]
    loss: Tensor | None = None


class Tree(dict[str, Any]):
    """A dictionary of a library's own, as ModelOutput is."""


@pytest.mark.parametrize(
    "pack",
    [
        lambda a, b: {"out": a, "aux": {"out": b}},
        lambda a, b: [a, (b, None), 3],
        lambda a, b: Output(a, (b,)),
        lambda a, b: Tree(logits=a, hidden=(b,), name="net"),
        lambda a, b: (Output(a, ({"b": b},)), "text"),  # type: ignore[arg-type]
    ],
)
def test_every_kind_of_output_counts(pack: Callable[[Tensor, Tensor], Any]) -> None:
    model = Blocks(lambda blocks, x: pack(blocks[0](x), blocks(x)))
    assert count(model, (3, 8, 8)).by_operator["conv"] == 36 * (2 * 27 * 4 + 36 * 5)


class Two(nn.Module):
    """Two inputs of different sizes, the second of which has a scale that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 4, 3)
        self.words = nn.Embedding(7, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, image: Tensor, words: Tensor, scale: Tensor | None = None) -> Tensor:
        joined = self.image(image).mean((2, 3)) + self.words(words).mean(1)
        return self.fc(joined if scale is None else joined * scale)


IMAGE, WORDS, SCALE = torch.rand(1, 3, 8, 8), torch.tensor([[1, 6]]), torch.rand(1, 4)


@pytest.mark.parametrize(
    "inputs",
    [
        (IMAGE, WORDS),
        (IMAGE.double(), WORDS, SCALE.half()),
        {"words": WORDS, "image": IMAGE},
        {"scale": SCALE, "words": WORDS, "image": IMAGE.half()},
        (IMAGE.to("meta"), WORDS.to("meta")),
    ],
)
def test_several_inputs_are_given_as_an_example(inputs: Any) -> None:
    cost = count(Two(), example_inputs=inputs)
    assert cost.macs_conv_fc == 36 * 27 * 4 + 8
    assert cost.uncounted == {}


@pytest.mark.parametrize(
    "inputs",
    [
        IMAGE,
        (IMAGE, 2),
        {"input": IMAGE, "times": 2},
        ([IMAGE, None], "sum"),
        ({"left": [IMAGE]},),
    ],
)
def test_inputs_may_lie_in_anything(inputs: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, input: Any, times: Any = 1) -> Tensor:
            while not isinstance(input, Tensor):
                (input, *_) = input.values() if isinstance(input, dict) else input
            return self.conv(input * 2 if times else input)

    assert count(Net(), example_inputs=inputs).macs_conv_fc == 36 * 27 * 4


def test_a_batch_counts_as_a_batch() -> None:
    one, three = (
        count(nn.Conv2d(3, 4, 3), example_inputs=(torch.rand(n, 3, 8, 8),)) for n in (1, 3)
    )
    assert three.macs == 3 * one.macs
    assert one == count(nn.Conv2d(3, 4, 3), (3, 8, 8))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "input_shape is None, and example_inputs are not given either"),
        ({"input_shape": (3, 8, 8), "example_inputs": (IMAGE,)}, "input_shape is (3, 8, 8), and"),
        ({"example_inputs": [IMAGE]}, "example_inputs is a list"),
        ({"example_inputs": (3, ["text"])}, "example_inputs has no tensor in it"),
        ({"example_inputs": {}}, "example_inputs has no tensor in it"),
        ({"input_shape": (4, 8, 8)}, "the model cannot run on inputs of shape (1, 4, 8, 8)"),
        ({"example_inputs": {"image": IMAGE}}, "the model cannot run on inputs of shape"),
    ],
)
def test_inputs_that_do_not_fit_are_told(asked: Mapping[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        count(nn.Conv2d(3, 4, 3), **asked)
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("output", "told"), [(3, "its output, a int, has no tensors"), ("text", "a str, has no")]
)
def test_an_output_without_tensors_is_told(output: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        count(Function(lambda _x: output), (3, 8, 8))
    assert told in caught.value.message


def body(channels: int = 8) -> Any:
    net: Any = nn.Sequential(nn.Conv2d(3, channels, 3, stride=16, padding=1))
    net.out_channels = channels
    return net


def two_stages(kind: Any, **options: Any) -> nn.Module:
    align = MultiScaleRoIAlign(["0"], 2, 2)
    net: nn.Module = kind(
        body(),
        num_classes=2,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((1.0,),)),
        rpn_post_nms_top_n_test=7,
        box_roi_pool=align,
        box_detections_per_img=5,
        min_size=200,
        max_size=300,
        **options,
    )
    return net


HEADS = 7 * (8 * 4 * 1024 + 1024**2 + 1024 * (2 + 2 * 4))
"""The linear layers on each of seven proposals."""
MASKS = 5 * (4 * (8 * 256 * 9 + 3 * 256**2 * 9) + 4 * 256**2 * 4 + 16 * 256 * 2)
"""The convolutions on the 2 x 2 map of each of five detections."""


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 96), (224, 160)])
@pytest.mark.parametrize(
    ("make", "cells"),
    [
        (lambda: two_stages(FasterRCNN), lambda n: n * (8 * 8 * 9 + 8 * 2 + 8 * 8) + HEADS),
        (
            lambda: two_stages(MaskRCNN, mask_roi_pool=MultiScaleRoIAlign(["0"], 2, 2)),
            lambda n: n * (8 * 8 * 9 + 8 * 2 + 8 * 8) + HEADS + MASKS,
        ),
        (
            lambda: RetinaNet(body(), 2, anchor_generator=AnchorGenerator(((16,),), ((1.0,),))),
            lambda n: n * (8 * 8 * 8 * 9 + 8 * (2 + 4) * 9),
        ),
        (
            lambda: FCOS(body(32), 2, anchor_generator=AnchorGenerator(((16,),), ((1.0,),))),
            lambda n: n * (8 * 32 * 32 * 9 + 32 * (2 + 4 + 1) * 9 + 27 * 24),
        ),
    ],
)
def test_a_detector_counts_at_the_size_asked_for(
    make: Callable[[], nn.Module], cells: Callable[[int], int], height: int, width: int
) -> None:
    detector = make()
    of_map = -(-height // 32) * 2 * (width // 16)
    cost = count(detector, (3, height, width))
    assert cost.macs_conv_fc == of_map * 27 * 8 + cells(of_map)
