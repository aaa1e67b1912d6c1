"""In training, attention modules read and write their map less often than by their plain formulas.

They compute the same.
"""

import copy
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from traffic import traffic

from bam_search.model.attach import attach, detach
from bam_search.model.attention import ATTENTION
from bam_search.model.attention.gates import amplified, spread
from bam_search.model.pool import GlobalAvgPool, largest
from bam_search.space.placement import Placement

BAMS = [
    "bam",
    "bam(combine=product)",
    "bam(combine=max)",
    "bam(branches=spatial)",
    "bam(end_bn=false)",
    "bam(combine=product,end_bn=false)",
    "bam(combine=max,end_bn=false)",
    "bam(branches=spatial,end_bn=false)",
    "bam(branches=channel)",
]
VARIANTS = [*BAMS, "se", "eca", "cbam", "gc"]
Gradients = dict[str, Tensor]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates parts of what it uses itself
        yield


def create(text: str, channels: int = 32) -> nn.Module:
    ((_, choice),) = Placement.parse(f"x={text}").choices
    # With r = 4 a normalisation has enough channels not to magnify rounding.
    hidden = {} if choice.module == "eca" else {"r": 4}
    return ATTENTION[choice.module](channels, **hidden, **dict(choice.options)).train()


def random_map(layout: torch.memory_format = torch.channels_last, side: int = 9) -> Tensor:
    """Channels with means of their own, so that pooling leaves something."""
    x = torch.randn(6, 32, side, side) + torch.randn(6, 32, 1, 1)
    return x.contiguous(memory_format=layout)


def step(module: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> Gradients:
    """The output, and the gradients of the map and of all parameters."""
    module, x = (
        copy.deepcopy(module),
        x.detach().clone(memory_format=torch.preserve_format).requires_grad_(),
    )
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = module(x)
    (y * weights).sum().backward()
    return {
        "output": y.detach(),
        "map": x.grad,
        **{name: p.grad for name, p in module.named_parameters()},
    }  # type: ignore[dict-item]


def plainly(module: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> Gradients:
    """The same by the formula whose cost is counted, and by autograd's derivatives.

    Only what lies within the module trains.
    """
    plain = copy.deepcopy(module)
    plain.training = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.jit, "is_tracing", lambda: True)  # as where the cost is counted
        return step(plain, x, dtype)


def assert_as_near(found: Gradients, plain: Gradients, exact: Gradients, tolerance: float) -> None:
    """Both are as near to `exact`, but for a relative `tolerance`.

    Compared is the norm of the difference of each output and gradient. A bias before a
    normalisation has no effect, so its gradient is nothing but rounding and is left out.
    """
    most = max(float(value.norm()) for value in exact.values())
    for name, value in exact.items():
        off, allowed = (
            float((gradients[name].double() - value.double()).norm() / value.norm())
            for gradients in (found, plain)
        )
        assert off <= allowed + tolerance or value.norm() < 1e-4 * most, name


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("text", VARIANTS)
def test_a_step_is_that_of_the_plain_formula(text: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    module, x = create(text), random_map(layout)
    for p in module.parameters():
        p.data += 0.1 * torch.randn_like(p)
    found, plain = step(module, x), plainly(module, x)
    assert found["output"].stride() == plain["output"].stride()
    assert_as_near(found, plain, plainly(module.double(), x.double()), 1e-6)


@pytest.mark.parametrize("text", VARIANTS)
def test_a_step_in_bf16_is_as_near_to_fp32_as_the_plain_formula_is(text: str) -> None:
    torch.manual_seed(0)
    module, x = create(text), random_map().bfloat16()
    found, plain = step(module, x, torch.bfloat16), plainly(module, x, torch.bfloat16)
    assert_as_near(found, plain, plainly(module, x.float()), 0.05)


PASSES = {
    "bam": (5, 8),
    "bam(combine=product)": (5, 8),
    "bam(combine=max)": (7, 10),
    "bam(end_bn=false)": (5, 8),
    "bam(combine=product,end_bn=false)": (5, 8),
    "se": (2, 4),
    "eca": (2, 4),
    "gc": (3, 6),
    "cbam": (6, 15),
}
"""The most operators that go over the map, forward and backward.

The branches of BAM read it twice, in a sum and a convolution; its gate is the rest, three passes.
Backward the gate takes three passes that write a map and two products that only read one; the last
two are additions of the gradients of all that read the map, and that of a mean is spread as it is
added.
"""


@pytest.mark.parametrize("text", PASSES)
def test_no_more_goes_over_the_map_than_this(text: str) -> None:
    forward, backward = traffic(lambda channels: create(text, channels))
    most = PASSES[text]
    assert (len(forward) <= most[0], len(backward) <= most[1]) == (True, True)
    assert forward
    assert backward


@pytest.mark.parametrize("text", VARIANTS)
def test_in_bf16_no_map_is_float32_and_none_is_channels_first(text: str) -> None:
    forward, backward = traffic(lambda channels: create(text, channels))
    maps = [tensor for one in (*forward, *backward) for tensor in one.writes]
    assert {tensor.dtype for tensor in maps} <= {torch.bfloat16, torch.bool}
    assert all(one.name != "_to_copy" for one in backward)
    # (B, C, H, W), (B, H, W, C) or (B, pixels, C); the convolution's own gradient has the layout
    # that its library gives it.
    of_channels = [
        tensor
        for one in (*forward, *backward)
        if one.name != "convolution_backward"
        for tensor in one.writes
    ]
    assert all(
        tensor.stride(1 if tensor.shape[1] == 32 and tensor.dim() == 4 else -1) == 1
        for tensor in of_channels
    )


@pytest.mark.parametrize("text", VARIANTS)
def test_in_evaluation_no_map_is_float32_either(text: str) -> None:
    forward, backward = traffic(lambda channels: create(text, channels).eval())
    assert {tensor.dtype for one in (*forward, *backward) for tensor in one.writes} <= {
        torch.bfloat16,
        torch.bool,
    }


@pytest.mark.parametrize(
    ("text", "maps"),
    [("bam", 2), ("bam(combine=product)", 2), ("bam(combine=max)", 3), ("gc", 1), ("se", 1)],
)
def test_no_more_maps_are_kept_for_the_way_back_than_these(text: str, maps: int) -> None:
    """BAM: the map itself and the gate. By its plain formula 1 + gate as well."""
    module, x = create(text), random_map().requires_grad_()
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.numel() == x.numel():
            kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = module(x)
    assert y.requires_grad
    assert len(kept) == maps


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.double).requires_grad_()


@pytest.mark.parametrize(
    ("base", "slope"), [((5,), (5,)), ((2, 1, 1, 5), (5,)), ((2, 1, 1, 5), (2, 1, 1, 5))]
)
def test_spread_has_its_derivatives(base: tuple[int, ...], slope: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs = leaf(*base), leaf(2, 3, 4, 1), leaf(*slope)
    assert torch.equal(spread(*inputs), torch.addcmul(*inputs))
    assert torch.autograd.gradcheck(spread, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(spread, inputs)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("gate", [(2, 5, 3, 4), (2, 1, 3, 4), (2, 5, 1, 1)])
def test_amplified_has_its_derivatives(gate: tuple[int, ...], layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    inputs = (
        leaf(2, 5, 3, 4).detach().contiguous(memory_format=layout).requires_grad_(),
        leaf(*gate),
    )
    assert torch.equal(amplified(*inputs), torch.addcmul(inputs[0], inputs[0], inputs[1]))
    assert torch.autograd.gradcheck(
        amplified, inputs, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(amplified, inputs)


WAYS: dict[str, Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]] = {
    "deepcopy": lambda module, _x: copy.deepcopy(module),
    "compile": lambda module, _x: torch.compile(module, fullgraph=True, backend="aot_eager"),
    "export": lambda module, x: torch.export.export(module, (x,)).module(),
    "fx": lambda module, _x: torch.fx.symbolic_trace(module),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", ["bam", "bam(combine=product)", "bam(combine=max)", "gc", "cbam"])
def test_a_training_module_is_the_same_after(text: str, way: str) -> None:
    torch.manual_seed(0)
    module, x = create(text, 16), torch.randn(4, 16, 5, 5)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [copy.deepcopy(module)(inputs[0]), WAYS[way](copy.deepcopy(module), x)(inputs[1])]
    for y in outputs:
        y.square().sum().backward()
    assert torch.allclose(*outputs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


@pytest.mark.parametrize("text", ["bam", "bam(combine=product)", "gc", "cbam"])
def test_functional_transforms_work_while_training(text: str) -> None:
    torch.manual_seed(0)
    module = create(text, 16)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):  # what these transforms ask for
            (
                part.track_running_stats,
                part.running_mean,
                part.running_var,
                part.num_batches_tracked,
            ) = False, None, None, None
    weights, xs = dict(module.named_parameters()), torch.randn(3, 4, 16, 5, 5)

    def loss(weights: Gradients, x: Tensor) -> Tensor:
        return functional_call(module, weights, (x,)).square().mean()

    together = vmap(grad(loss), in_dims=(None, 0))(weights, xs)
    for i, x in enumerate(xs):
        alone = torch.autograd.grad(module(x).square().mean(), list(weights.values()))
        for name, value in zip(weights, alone, strict=True):
            torch.testing.assert_close(together[name][i], value, rtol=1e-4, atol=1e-5)
    _, slope = jvp(lambda x: loss(weights, x), (xs[0],), (xs[1],))
    x = xs[0].clone().requires_grad_()
    loss(weights, x).backward()
    torch.testing.assert_close(slope, (x.grad * xs[1]).sum(), rtol=1e-4, atol=1e-5)  # type: ignore[operator]


def test_gradients_of_gradients_go_through_a_training_module() -> None:
    torch.manual_seed(0)
    module, x = (
        create("bam", 8).double(),
        torch.randn(3, 8, 3, 3, dtype=torch.double, requires_grad=True),
    )
    assert torch.autograd.gradgradcheck(lambda x: module(x).square().mean(), (x,), atol=1e-4)


def test_pooling_is_the_mean_and_the_largest_with_the_gradients_of_torchs_own() -> None:
    torch.manual_seed(0)
    with_ties = torch.randint(-3, 3, (4, 32, 6, 5)).float()
    x = with_ties.contiguous(memory_format=torch.channels_last)
    for ours, torchs in (
        (GlobalAvgPool(), nn.AdaptiveAvgPool2d(1)),
        (largest, nn.AdaptiveMaxPool2d(1)),
    ):
        leaves = x.clone().requires_grad_(), x.clone().requires_grad_()
        found, expected = ours(leaves[0]), torchs(leaves[1]).flatten(1)
        weights = torch.randn_like(found)
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
        assert leaves[0].grad is not None
        assert leaves[0].grad.is_contiguous(memory_format=torch.channels_last)


def test_the_type_of_pooling_is_that_of_the_map_whatever_autocast_likes() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        assert GlobalAvgPool()(torch.ones(2, 3, 4, 4, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    "make", [lambda: GlobalAvgPool(), lambda: torch.fx.symbolic_trace(GlobalAvgPool())]
)
def test_pooling_in_float16_does_not_overflow(make: Callable[[], nn.Module]) -> None:
    # The sum, 200,704, is more than the largest number of float16.
    x = torch.full((1, 8, 112, 112), 16.0, dtype=torch.float16)
    assert torch.equal(make()(x), torch.full((1, 8), 16.0, dtype=torch.float16))


@pytest.mark.parametrize("text", VARIANTS)
def test_attention_in_float16_is_finite(text: str) -> None:
    torch.manual_seed(0)
    module, x = create(text).half(), 16 * torch.rand(2, 32, 112, 112).half()
    assert module(x).isfinite().all()
    assert module.eval()(x).isfinite().all()


def test_attention_that_begins_as_the_identity_is_it_in_float16() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.stem(x).mean((2, 3)))

    torch.manual_seed(0)
    net = Net().eval()
    attach(net, "stem=bam(r=4)", (3, 64, 64), init="identity")
    detach(bare := copy.deepcopy(net))
    x = (300 * torch.rand(1, 3, 64, 64)).half()
    assert torch.equal(net.half()(x), bare.half()(x))
