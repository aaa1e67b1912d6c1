"""A training step as a graph: replaying it is the same training, bit for bit.

The graph here is a recording that does on a CPU what CUDA graphs do.
"""

import contextlib
import functools
import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recorded import recorded
from torch import nn

from bam_search.model.build import build, sites_of
from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import EAGER, NotOneGraph, cuda_graph, replayed
from bam_search.score.device import choose
from bam_search.score.measure import Meter, measured
from bam_search.score.step import TrainingStep
from bam_search.score.train import EpochResult, train
from bam_search.space.search_space import load_space
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.recipe import Recipe

SMALL = load_space("small")
SITES = sites_of(SMALL)
CPU = choose("cpu")
RECIPE = Recipe(epochs=2, batch=25, precision="bf16")
MUON = replace(RECIPE, optimizer="muon")


def images(n: int = 200) -> Images:
    x, y, _, _ = generate_images(n, 0)
    return Images(x, y)


def batched(some: Images, n: int) -> list[Images]:
    places = np.split(np.arange(len(some)), range(n, len(some), n))
    return [some.take(index) for index in places]


class Dropping(nn.Module):
    """Draws random numbers as it trains."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.AvgPool2d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(192, 100)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Waiting(Dropping):
    """Asks the device for a number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * (2.0 if x.mean().item() > 0 else 1.0)


def calls_of(kind: type[TrainingStep] | type[Meter], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that `kind` takes something in Python."""
    taken: list[int] = []
    step = kind.step
    monkeypatch.setattr(kind, "step", lambda self: taken.append(1) or step(self))  # type: ignore[func-returns-value]
    return taken


def net(text: str) -> nn.Module:
    return (
        Dropping()
        if text == "dropout"
        else build(SMALL, SITES, text, 0).to(memory_format=torch.channels_last)
    )  # type: ignore[call-overload]


def trained(
    text: str, micro_batches: int, recipe: Recipe
) -> tuple[tuple[EpochResult, ...], torch.Tensor]:
    model, context = net(text), TrainingContext.of(sources.task(), CPU, recipe, images())
    epochs = train(
        model, context, recipe, 3, lambda: measured(model, images(60), context).value, micro_batches
    )
    return epochs, torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("bottleneck=bam every-block=se", RECIPE),
        ("bottleneck=bam every-block=se", MUON),
        ("layer1=block layer1.0.bn2=cbam layer2=eca layer3=gc", RECIPE),
        ("layer1=block layer1.0.bn2=cbam layer2=eca layer3=gc", MUON),
        ("dropout", RECIPE),
    ],
)
def test_replaying_the_step_is_the_same_training(
    text: str, recipe: Recipe, micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    expected = trained(text, micro_batches, recipe)
    taken = calls_of(TrainingStep, monkeypatch)
    monkeypatch.setattr(TrainingStep, "make_step", lambda self: replayed(self.step, recorded))
    epochs, weights = trained(text, micro_batches, recipe)
    assert len(taken) == EAGER + 1  # of 16 steps: what Python decides in one is never decided again
    assert epochs == expected[0]
    assert torch.equal(weights, expected[1])


def test_a_step_that_waits_for_the_device_cannot_be_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TrainingStep, "make_step", lambda self: replayed(self.step, recorded))
    with pytest.raises(RuntimeError, match="not permitted"):
        train(Waiting(), TrainingContext.of(sources.task(), CPU, RECIPE, images()), RECIPE, 0)


@pytest.mark.parametrize("n", [625, 640])
def test_measuring_replays_one_batch_and_finds_what_plain_measuring_finds(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    model, context = (
        net("bottleneck=bam"),
        TrainingContext.of(sources.task(), CPU, RECIPE, images()),
    )
    held_out = images(n)
    expected = []
    # The weights change between two measurements, as they do from epoch to epoch.
    for seed in (0, 1):
        train(model, context, RECIPE, seed)
        with torch.inference_mode():
            logits = torch.cat(
                [
                    context.model(model.eval())(context.data.inputs(part)).float()
                    for part in batched(held_out, 125)
                ]
            )
        labels = torch.from_numpy(held_out.y)
        loss = float(nn.functional.cross_entropy(logits.double(), labels))
        expected.append(
            (100 * int((logits.argmax(1) != labels).sum()) / n, pytest.approx(loss, rel=1e-5))
        )
    model = net("bottleneck=bam")
    taken = calls_of(Meter, monkeypatch)
    monkeypatch.setattr(Meter, "make_step", lambda self: replayed(self.step, recorded))
    measure, found = Meter.of(model, context, context.data.held_out(held_out)).start(), []
    for seed in (0, 1):
        train(model, context, RECIPE, seed)
        result = measure()
        found.append((result.value, result.loss))
    assert found == expected
    assert len(taken) == EAGER + 1  # of 10 to 12 batches


def invent_cuda(monkeypatch: pytest.MonkeyPatch, graph: object, capture: object) -> None:
    """Have a capture give `graph`, in the context that `capture` makes, without a GPU."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", capture)


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (
            RuntimeError("not permitted\nmore"),
            NotOneGraph,
            r"one CUDA graph: not permitted \(recipe.cuda_graph = false",
        ),
        (
            torch.OutOfMemoryError("too little"),
            torch.OutOfMemoryError,
            "the capture was invalidated",
        ),
    ],
)
def test_what_cannot_be_captured_says_what_to_do_and_short_memory_stays_what_it_is(
    raised: Exception, expected: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def breaking_off(*_args: Any, **_kwargs: Any) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("the capture was invalidated")

    def function() -> None:
        raise raised

    reset: list[int] = []
    invent_cuda(monkeypatch, SimpleNamespace(reset=lambda: reset.append(1)), breaking_off)
    with pytest.raises(expected, match=text):
        cuda_graph(function)
    assert bool(reset) == (expected is NotOneGraph)


def test_what_a_graph_works_on_lives_as_long_as_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = SimpleNamespace(replay=lambda: None)
    invent_cuda(monkeypatch, graph, lambda *_args, **_kwargs: contextlib.nullcontext())
    images = torch.zeros(3)
    alive = weakref.ref(images)
    replay = cuda_graph(functools.partial(images.add_, 1))
    del images
    gc.collect()
    replay()
    assert alive() is not None
    del replay
    assert alive() is None
