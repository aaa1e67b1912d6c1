"""A job in, a result out; a crash is a result."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.score.device import choose
from bam_search.score.evaluate import Experiment, Job, evaluate
from bam_search.score.latency import LatencySetting, latency
from bam_search.space.search_space import load_space
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.load_task import load_task
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Split


@pytest.fixture(scope="module")
def task() -> Experiment:
    x, y, x_test, y_test = generate_images(1000, 300)
    parts = sources.task().split(
        Dataset("generated", "", Images(x, y), Images(x_test, y_test)),
        SplitSizes.of(len(x), None, 0.1),
        seed=0,
    )
    return Experiment(
        "classification",
        "small",
        sites_of(load_space("small")),
        parts,
        Recipe(epochs=2, batch=100),
        choose("cpu"),
        threads=1,
    )


def test_search_measures_validation_and_final_measures_test(task: Experiment) -> None:
    searched, final = (
        evaluate(task, Job("layer1=bam", 0, 2)).score,
        evaluate(task, Job("layer1=bam", 0, 2, final=True)).score,
    )
    assert searched is not None
    assert final is not None
    assert searched.samples == 100
    assert final.samples == 300
    for score in (searched, final):
        assert [epoch.value for epoch in score.per_epoch] == [None, None]


VOLUMES = """
import numpy as np
from torch import nn
from torch.nn import functional
from bam_search import TensorTask
from bam_search.model.load import Inputs
from bam_search.tasks.metric import Metric
from bam_search.tasks.outputs import OneTensor
from bam_search.tasks.task import Dataset
from bam_search.tasks.tensors import Arrays

def samples(n):
    draw = np.random.default_rng(n)
    return Arrays(draw.normal(size=(n, 1, 8, 8, 8)).astype("float32"), draw.integers(0, 2, n))

def task():
    return TensorTask(
        name="telling volumes",
        metric=Metric("error", "%"),
        inputs=Inputs((1, 8, 8, 8), 2),
        outputs=OneTensor((2,)),
        data=lambda wanted: Dataset(wanted, "made here", samples(40), samples(20)),
        noise=samples,
        loss=lambda outputs, targets: functional.cross_entropy(outputs, targets, reduction="none"),
        score=lambda outputs, targets: 100.0 * (outputs.argmax(1) != targets)[:, None],
    )

def net(classes):
    layers = nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.AdaptiveAvgPool3d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, classes))
"""


def test_a_network_of_volumes_is_trained_measured_and_timed(tmp_path: Path) -> None:
    path = tmp_path / "volumes.py"
    path.write_text(VOLUMES)
    task = load_task(str(path))
    space = load(f"{path}:net", task.inputs)
    sites = sites_of(space)
    data = task.locate("here", None).load()  # type: ignore[arg-type]
    split = Split(data.train, data.test, data.train, data.test)
    recipe = Recipe(epochs=1, batch=10)
    of = Experiment(str(path), f"{path}:net", sites, split, recipe, choose("cpu"), threads=1)
    result = evaluate(of, Job("2=bam(r=2,d=1)", 0, 1))
    assert result.score, result.failure
    assert result.score.samples == 20
    model, plain = build(space, sites, "2=se(r=2)", 0), build(space, sites, "none", 0)
    setting = LatencySetting(choose("cpu"), space.input_shape, 2, bf16=False, cuda_graph=False)
    assert latency(model, plain, setting, pairs=2).ratio > 0


def test_the_fit_to_the_training_samples_is_measured_and_changes_nothing_else(
    task: Experiment,
) -> None:
    plain = evaluate(task, Job("layer1=bam", 0, 2, final=True)).score
    job = Job("layer1=bam", 0, 2, final=True, train_metric=True)
    fitted = evaluate(task, job).score
    few = replace(task.split, test=task.split.train.first(300))
    known = evaluate(replace(task, split=few), Job("layer1=bam", 0, 2, final=True)).score
    assert plain is not None
    assert fitted is not None
    assert known is not None
    assert plain.train_value is None
    assert fitted.value == plain.value != fitted.train_value
    assert fitted.train_value == known.value


def test_a_curve_is_measured_after_each_epoch_and_changes_nothing_else(task: Experiment) -> None:
    once = evaluate(task, Job("layer1=bam", 0, 2)).score
    curve = evaluate(task, Job("layer1=bam", 0, 2, each_epoch=True)).score
    assert once is not None
    assert curve is not None
    first, last = (epoch.value for epoch in curve.per_epoch)
    assert first is not None
    assert first != last == curve.value == once.value
    assert [epoch.loss for epoch in curve.per_epoch] == [epoch.loss for epoch in once.per_epoch]


def test_a_crash_is_a_result_with_its_traceback(task: Experiment) -> None:
    result = evaluate(task, Job("layer9=bam", 0, 2))
    assert result.score is None
    assert "no site is named 'layer9'" in result.failure
    assert "Traceback" in result.failure


class Tight(nn.Module):
    """A model that finds memory for `most` images at once, in training."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 100))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layers(x)


@pytest.mark.parametrize("most", [100, 60, 40])
def test_too_little_memory_is_tried_once_more_with_halves(
    task: Experiment, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("bam_search.score.evaluate.build", lambda *_args: Tight(most))
    result = evaluate(task, Job("none", 0, 2))
    if most < 50:
        assert result.score is None
        assert "too little memory for half a batch of 100" in result.failure
    else:
        assert result.score is not None
        assert result.score.micro_batches == (1 if most == 100 else 2)


def test_a_training_over_its_time_limit_is_a_result_with_the_reason(task: Experiment) -> None:
    limited = replace(task, recipe=replace(task.recipe, seconds=1e-6))
    assert (
        evaluate(limited, Job("none", 0, 2))
        .failure.strip()
        .endswith("took more than 1e-06 s, and was in epoch 1 of 2")
    )
