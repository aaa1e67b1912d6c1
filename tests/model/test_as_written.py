"""Models as people write them: several inputs, outputs of any form, parts that are called twice."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bam_search import UserError, attach, attached, count
from bam_search.model.attach import resolve
from bam_search.model.build import build, sites_of
from bam_search.model.find_sites import find_sites
from bam_search.model.insert import CHILD
from bam_search.score.cost_table import cost_table
from bam_search.space.search_space import SearchSpace
from bam_search.space.sites import Sites

SHAPE = (3, 32, 32)
ENDS = ["stages.0", "stages.1"]
BLOCKS = [f"stages.{i}.{j}" for i in range(3) for j in range(2)]


class Block(nn.Module):
    def __init__(self, width: int, given: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given or width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return (x + y if x.shape == y.shape else y).relu()


class Stages(nn.Module):
    """Three stages of two blocks, which return a map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        pairs = [nn.Sequential(Block(8), Block(8)) for _ in range(3)]
        self.stages, self.pool = nn.ModuleList(pairs), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number, stage in enumerate(self.stages):
            x = stage(self.pool(x) if number else x)
        return x


def selected(sites: Sites, target: str) -> list[str]:
    return [site.name for site in sites.select(target)]


def check_stages(sites: Sites, prefix: str = "") -> None:
    """The roles are those of `Stages`, which lies in the model under `prefix`."""
    assert selected(sites, "bottleneck") == [prefix + name for name in ENDS]
    assert list(sites.blocks) == [prefix + name for name in BLOCKS]
    assert selected(sites, "every-block") == [f"{prefix}{name}.norm" for name in BLOCKS]


# Inputs.


class Inputs(nn.Module):
    """Takes its images by one function of what it is called with."""

    def __init__(self, images: Callable[..., Tensor]) -> None:
        super().__init__()
        self.images, self.net, self.fc = images, Stages(), nn.Linear(8, 5)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.fc(self.net(self.images(*args, **kwargs)).mean((2, 3)))


@dataclass
class Batch:
    pixels: Tensor
    mask: Tensor


IMAGE, NUMBER = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3)
GIVEN: dict[str, tuple[Callable[..., Tensor], object]] = {
    "one tensor": (lambda x: x, IMAGE),
    "two tensors": (lambda x, y: x + y[:, :, None, None], (IMAGE, NUMBER)),
    "keywords": (
        lambda pixels, gain: pixels * gain.float().mean(),
        {"pixels": IMAGE, "gain": NUMBER},
    ),
    "a list in a tuple": (lambda pair, scale: pair[0] * scale - pair[1], ([IMAGE, IMAGE], 2.0)),
    "a dictionary in a tuple": (lambda batch: batch["a"]["b"], ({"a": {"b": IMAGE, "c": "name"}},)),
    "a dataclass": (lambda batch: batch.pixels * batch.mask, (Batch(IMAGE, IMAGE[:, :1]),)),
    "a list of images": (torch.stack, ([IMAGE[0], IMAGE[1]],)),
    "indices": (lambda x, n: x[:, n], (IMAGE, torch.tensor([0, 1, 2]))),
    "a batch of one": (lambda x, y: x * y, (IMAGE[:1], IMAGE[:1])),
    "half precision": (lambda x: x.float(), IMAGE.half()),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_model_is_called_with_what_it_takes(name: str) -> None:
    images, example_inputs = GIVEN[name]
    check_stages(find_sites(Inputs(images), example_inputs=example_inputs), "net.")


def test_attach_takes_example_inputs() -> None:
    model = Inputs(lambda x, y: x + y)
    placed = attach(model, "bottleneck=se(r=2)", example_inputs=(IMAGE, IMAGE))
    assert placed == attached(model)
    model(IMAGE, IMAGE).sum().backward()
    assert all(p.grad is not None for p in model.net.stages[0].get_submodule(CHILD).parameters())


def test_a_model_for_one_size_of_images_is_read_by_division() -> None:
    def only_small(x: Tensor, y: Tensor) -> Tensor:
        assert x.shape[-1] == 32
        return x + y

    check_stages(find_sites(Inputs(only_small), example_inputs=(IMAGE, IMAGE)), "net.")


@pytest.mark.parametrize(
    ("example_inputs", "message"),
    [
        ([IMAGE], "example_inputs is a list"),
        ((1, "x"), "example_inputs has no tensor"),
        ((IMAGE, IMAGE), "cannot run on the example inputs: TypeError"),
    ],
)
def test_inputs_that_are_none_are_one_sentence(example_inputs: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_sites(Inputs(lambda x: x), example_inputs=example_inputs)


# Outputs.


class Pair(NamedTuple):
    logits: Tensor
    aux: Tensor


@dataclass
class Output:
    logits: Tensor
    hidden: tuple[Tensor, ...]


class Ordered(OrderedDict[str, Any]):
    """As transformers' ModelOutput: a mapping with attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Plain:
    def __init__(self, logits: Tensor) -> None:
        self.scores = {"logits": logits, "name": "x"}


RETURNED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "tensor": lambda y, _: y,
    "dict": lambda y, x: {"aux": x, "out": y},
    "named tuple": Pair,
    "dataclass": lambda y, x: Output(y, (x, x)),
    "ModelOutput": lambda y, x: Ordered(logits=y, hidden=(x,), loss=None),
    "list": lambda y, x: [x, y],
    "nested": lambda y, x: [{"a": (x, [y])}],
    "an object": lambda y, _: Plain(y),
}


class Returns(nn.Module):
    def __init__(self, form: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.form, self.net, self.fc = form, Stages(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> object:
        y = self.net(x).mean((2, 3))
        return self.form(self.fc(y), y)


@pytest.mark.parametrize("form", RETURNED)
def test_sites_do_not_depend_on_the_form_of_the_output(form: str) -> None:
    sites = find_sites(Returns(RETURNED[form]), SHAPE)
    check_stages(sites, "net.")
    assert sites == find_sites(Returns(RETURNED["tensor"]), SHAPE)


def test_the_main_output_is_the_one_with_the_most_work() -> None:
    class Deep(Returns):
        def forward(self, x: Tensor) -> object:
            early = self.net.stages[0](self.net.stem(x))
            return {"out": self.fc(self.net(x).mean((2, 3))), "aux": early.mean((2, 3))}

    class Early(Stages):
        def __init__(self) -> None:
            super().__init__()
            self.side, self.fc = nn.Conv2d(8, 5, 1), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Any:
            x = self.stages[0](self.stem(x))
            aux = self.side(x)
            for stage in self.stages[1:]:
                x = stage(self.pool(x))
            return {"out": self.fc(x.mean((2, 3))), "aux": aux.mean((2, 3))}

    check_stages(find_sites(Early(), SHAPE))
    assert find_sites(Deep(RETURNED["dict"]), SHAPE).refused["net.stem"].startswith("is called 2")


def first(values: Any) -> Tensor:
    return next(iter(values.values() if isinstance(values, dict) else values))


class Several(nn.Module):
    """A block that returns its map and what it keeps, in some form."""

    def __init__(self, form: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.form, self.last, self.mix = form, nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Any) -> object:
        x = x if isinstance(x, Tensor) else first(x)
        return self.form(self.last(self.mix(x).relu()), x)


@pytest.mark.parametrize(
    "form", [lambda y, x: [y, x], lambda y, x: (y, 3, x), lambda y, x: {"map": y, "kept": x}]
)
def test_a_block_that_returns_several_tensors_ends_where_its_map_is_made(
    form: Callable[[Tensor, Tensor], object],
) -> None:
    class Net(Stages):
        def __init__(self) -> None:
            super().__init__()
            blocks = [nn.Sequential(Several(form), Several(form)) for _ in range(2)]
            self.stages, self.down = nn.ModuleList(blocks), nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            x = first(self.stages[0](self.stem(x)))
            return first(self.stages[1](self.down(x))).mean((2, 3))

    sites = find_sites(Net(), SHAPE)
    assert selected(sites, "bottleneck") == ["stages.0.1.last"]
    assert len(selected(sites, "every-block")) == 4
    assert "returns a" in sites.refused["stages.0.1"]


# Parts that are called several times.


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Stages(), nn.Linear(16, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        both = [self.encoder(view).mean((2, 3)) for view in (x, y)]
        return self.head(torch.cat(both, 1))


class Triplet(nn.Module):
    """The encoder lies deeper, and its views have different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(Stages(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, views: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(self.tower(view) for view in views.values())


class Recurrent(nn.Module):
    """The encoder works on what it made of the image before."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.back = Stages(), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = nn.functional.interpolate(self.back(self.encoder(x)), size=x.shape[2:])
        return x.mean((2, 3))


SMALL = torch.zeros(2, 3, 16, 16)
SHARED: dict[str, tuple[Callable[[], nn.Module], object, str, int]] = {
    "siamese": (Siamese, (IMAGE, IMAGE), "encoder.", 2),
    "views of two sizes": (Triplet, ({"big": IMAGE, "small": SMALL},), "tower.0.", 2),
    "recurrent": (Recurrent, (IMAGE,), "encoder.", 3),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_part_that_is_called_twice_has_the_sites_it_would_have_alone(name: str) -> None:
    make, example_inputs, prefix, times = SHARED[name]
    model = make()
    sites = find_sites(model, example_inputs=example_inputs)
    alone = find_sites(Stages(), SHAPE)
    check_stages(sites, prefix)
    found = {site.name: site for site in sites}
    for site in alone:
        shared = found[prefix + site.name]
        assert (shared.channels, shared.height, shared.stage) == (
            (site.channels, site.height, site.stage)
        )
        assert shared.roles == site.roles
        assert len(shared.further) == times - 1
    assert sites.refused[prefix.split(".")[0]] == f"is called {times} times in one pass"


@pytest.mark.parametrize("name", SHARED)
def test_attention_in_a_shared_part_runs_once_in_each_call(name: str) -> None:
    make, example_inputs, prefix, times = SHARED[name]
    model, ran = make(), []
    attach(model, f"{prefix}stages.0=se(r=2)", example_inputs=example_inputs)
    child = model.get_submodule(f"{prefix}stages.0").get_submodule(CHILD)
    child.register_forward_hook(lambda *_: ran.append(1))
    model(*example_inputs)  # type: ignore[misc]
    assert len(ran) == times


def test_a_shared_stem_leaves_the_roles_to_the_rest() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())
            self.net = Stages()

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.net(self.stem(x) + self.stem(y)).mean((2, 3))

    sites = find_sites(Net(), example_inputs=(IMAGE, IMAGE))
    check_stages(sites, "net.")
    assert sites.by_name["stem.0"].roles == ()
    assert sites.refused["stem"] == "is called 2 times in one pass"


def test_what_is_called_twice_in_a_shared_part_is_no_site() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.once = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.once(self.conv(self.conv(x)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Twice()

        def forward(self, x: Tensor) -> Tensor:
            return self.part(x) + self.part(-x)

    sites = find_sites(Net(), SHAPE)
    assert sites.names == ("part.once",)
    assert sites.refused["part.conv"] == "is called 4 times in one pass"


# Second names.


class Named(nn.Module):
    """A Sequential runs over what has a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3), Block(8)
        self.layers = nn.Sequential(self.stem, self.body)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Listed(Named):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([self.stem, self.body])  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Held(Named):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"0": self.stem, "1": self.body})  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers["1"](self.layers["0"](x))


@pytest.mark.parametrize("make", [Named, Listed, Held])
def test_the_second_name_of_a_submodule_says_so(make: type[Named]) -> None:
    sites = find_sites(make(), SHAPE)
    assert {"stem", "body", "body.conv"} <= {*sites.names}
    assert sites.refused["layers.0"] == "is the same submodule as 'stem'"
    assert sites.refused["layers.1.conv"] == "is the same submodule as 'body.conv'"
    with pytest.raises(UserError, match=r"no attention can go to 'layers\.1': it is the same"):
        sites.select("layers.1")


def test_submodules_with_a_common_parameter_are_sites() -> None:
    model = Named()
    model.extra = nn.Conv2d(8, 8, 3, padding=1)
    model.extra.weight = model.body.conv.weight
    model.layers.append(model.extra)
    assert {"body.conv", "layers.2"} <= {*find_sites(model, SHAPE).names}


# Children that something else runs over.


def run_over(module: nn.Module, x: Tensor) -> Tensor:
    for child in module.children():
        x = child(x)
    return x


def logged(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(forward)
    def wrapper(*args: Any) -> Tensor:
        return forward(*args)

    return wrapper


class ByFunction(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return run_over(self, x)


class ByDecorator(nn.Sequential):
    @logged
    def forward(self, x: Tensor) -> Tensor:
        return self[1](self[0](x))


class ByHelper(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        return run_over(self, x)


@pytest.mark.parametrize("kind", [ByFunction, ByDecorator, ByHelper])
def test_calls_are_seen_whoever_makes_them(kind: type[nn.Sequential]) -> None:
    model = nn.Sequential(kind(nn.Conv2d(3, 8, 3), nn.ReLU()), kind(nn.Conv2d(8, 8, 3), nn.ReLU()))
    sites = find_sites(model, SHAPE)
    assert {*sites.names} == {"0", "0.0", "0.1", "1", "1.0", "1.1"}
    assert not sites.refused


def test_what_is_written_into_a_part_of_a_tensor_is_in_it() -> None:
    class Pads(Stages):
        def forward(self, x: Tensor) -> Tensor:
            padded = torch.zeros(len(x), 3, 2 * x.shape[2], 2 * x.shape[3], device=x.device)
            padded[:, :, : x.shape[2], : x.shape[3]].copy_(x)
            return super().forward(padded).mean((2, 3))

    check_stages(find_sites(Pads(), SHAPE))


class Twice(nn.Module):
    """A classifier that averages over an image and a part of it."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.encoder, self.fc = Stages(), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(sum(self.encoder(view).mean((2, 3)) for view in (x, x[:, :, ::2, ::2])))


class Memory(Twice):
    """The images are compared with one that stands for all of them."""

    def forward(self, x: Tensor) -> Tensor:
        made = [self.encoder(view).mean((2, 3)) for view in (x, x.mean(0, keepdim=True))]
        return self.fc(made[0] - made[1])


class Folds(Twice):
    """In another call the map is so small that the encoder's vectors come out as tokens."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes)
        self.mix = nn.Sequential(nn.Conv2d(8, 8, 1), Flat())

    def forward(self, x: Tensor) -> Tensor:
        made = self.encoder(x)
        self.mix[1].flat = False
        whole = self.mix(made).mean((2, 3))
        self.mix[1].flat = True
        return self.fc(whole + self.mix(made).mean(2))


class Flat(nn.Module):
    """Flattens its map where it is told to."""

    flat = False

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2) if self.flat else x


def test_what_returns_no_map_in_a_further_call_is_no_site() -> None:
    sites = find_sites(Folds(), SHAPE)
    assert "mix.0" in sites.names
    assert "which is no such map" in sites.refused["mix.1"]


class SmallFirst(Twice):
    """The same, in the other order."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(sum(self.encoder(view).mean((2, 3)) for view in (x[:, :, ::2, ::2], x)))


class Crops(Twice):
    """Two parts of the image are one batch, before or after the whole."""

    def forward(self, x: Tensor) -> Tensor:
        halves = torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]])
        made = [self.encoder(view).mean((2, 3)) for view in (halves, x)]
        return self.fc(made[0].unflatten(0, (2, -1)).sum(0) + made[1])


@pytest.mark.parametrize("choice", ["bam(r=2,d=1)", "se(r=2)", "block"])
@pytest.mark.parametrize(
    ("net", "sides"),
    [
        (Twice, [(16, 16), (8, 8)]),
        (SmallFirst, [(8, 8), (16, 16)]),
        (Crops, [(8, 8), (8, 8), (16, 16)]),
        (Memory, [(16, 16), (16, 16)]),
    ],
)
def test_what_attention_costs_in_a_shared_part_is_counted_in_each_call(
    net: type[nn.Module], sides: list[tuple[int, int]], choice: str
) -> None:
    space = SearchSpace("mine", net, SHAPE, 10)
    sites = sites_of(space)
    site = sites.by_name["encoder.stages.1"]
    assert [site.sides, *site.further] == sides
    placement = resolve(f"encoder.stages.1={choice}", sites)
    counted = count(build(space, sites, placement, seed=0), SHAPE)
    assert cost_table(space, sites).cost(placement) == counted
