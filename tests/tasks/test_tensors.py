"""A task made of a few functions: its batches, its measurements, and the example, a U-Net."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from pages import ROOT
from torch import Tensor

from bam_search import Task, TensorTask, UserError, run_study
from bam_search.model.load import Inputs
from bam_search.tasks.metric import Metric
from bam_search.tasks.outputs import OneTensor
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Dataset
from bam_search.tasks.tensors import MEASURED, Arrays, OnDevice, picture

EXAMPLE = ROOT / "docs" / "examples" / "unet_shapes.py"


def numbered(n: int) -> Arrays:
    """Samples whose input and target are their numbers."""
    numbers = np.arange(n, dtype=np.float32)
    return Arrays(np.tile(numbers[:, None, None, None], (1, 1, 2, 2)), numbers.astype(np.int64))


def moved(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return x + torch.rand(len(x), 1, 1, 1, generator=generator), y


TASK = TensorTask(
    name="telling numbers",
    metric=Metric("mean"),
    inputs=Inputs((1, 2, 2), 1),
    outputs=OneTensor((1, 2, 2)),
    data=lambda wanted: Dataset(wanted, "made here", numbered(20), numbered(10)),
    noise=numbered,
    loss=lambda outputs, targets: (outputs.mean((1, 2, 3)) - targets).abs(),
    score=lambda outputs, targets: torch.stack([outputs.mean((1, 2, 3)), targets.float()], 1),
    scores=2,
)
PLAIN = Recipe(precision="fp32")


def on_device(task: TensorTask, n: int) -> OnDevice:
    return task.on_device(numbered(n), PLAIN, "cpu", 2**20)


def epoch(task: TensorTask, seed: int, number: int, parts: int = 1) -> list[tuple[Tensor, Tensor]]:
    batches = on_device(task, 23).batches(5)
    batches.load(7, 7)  # what was there before does not matter
    batches.load(seed, number)
    steps = [torch.tensor([step]) for step in range(len(batches))]
    return [(part.x, part.y) for step in steps for part in batches.parts(step, parts)]


def test_it_is_a_task() -> None:
    assert isinstance(TASK, Task)
    source = TASK.locate("here", None)  # type: ignore[arg-type]
    assert source.text == "here (made here): 20 samples to train and 10 to test"


@pytest.mark.parametrize("augment", [None, moved])
def test_an_epoch_has_each_sample_once_in_an_order_of_its_own(augment: object) -> None:
    task = replace(TASK, augment=augment)  # type: ignore[arg-type]
    first, again, next_one = (epoch(task, 0, number) for number in (3, 3, 4))
    assert [len(y) for _, y in first] == [5] * 4
    drawn = torch.cat([y for _, y in first])
    assert len(set(drawn.tolist())) == 20
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert drawn.tolist() != torch.cat([y for _, y in next_one]).tolist()
    off = torch.cat([x[:, 0, 0, 0] for x, _ in first]) - drawn
    assert (off > 0).all() == (off < 1).all() == (augment is not None) or not off.any()
    assert len(set(off.tolist())) == (1 if augment is None else 20)


def test_parts_of_a_batch_are_the_batch() -> None:
    whole, halves = epoch(TASK, 0, 0), epoch(TASK, 0, 0, parts=2)
    assert [len(y) for _, y in halves] == [3, 2] * 4
    assert torch.equal(torch.cat([y for _, y in whole]), torch.cat([y for _, y in halves]))


@pytest.mark.parametrize("n", [1, MEASURED, MEASURED + 1, 3 * MEASURED - 5])
def test_every_sample_is_measured_once(n: int) -> None:
    held_out = on_device(TASK, 5).held_out(numbered(n))
    tally = held_out.tally()
    for _ in range(2):
        tally.reset()
        for step in range(len(held_out)):
            tally.add(lambda x: x + 1, torch.tensor([step]))
    measured = tally.measured()
    assert measured.value == pytest.approx((n - 1) / 2 + 1)
    assert measured.loss == pytest.approx(1)
    expected = np.std(np.arange(n)) / np.sqrt(n)  # that of a mean
    assert measured.standard_error == pytest.approx(expected, rel=0.15)


def test_the_metric_is_made_of_means_over_samples() -> None:
    task = replace(TASK, value=lambda means: means[..., 0] / means[..., 1])
    tally = on_device(task, 5).held_out(numbered(101)).tally()
    tally.add(lambda x: 2 * x, torch.tensor([0]))
    measured = tally.measured()
    assert (measured.value, measured.standard_error) == (pytest.approx(2), pytest.approx(0))


def test_samples_that_do_not_fit_are_an_error_and_augmented_ones_take_twice_as_much() -> None:
    needed = 20 * (4 * 4 + 8)
    TASK.on_device(numbered(20), PLAIN, "cpu", needed)
    for task, room in ((TASK, needed - 1), (replace(TASK, augment=moved), 2 * needed - 1)):
        with pytest.raises(UserError, match="20 samples need 0 MB of the memory of cpu"):
            task.on_device(numbered(20), PLAIN, "cpu", room)


def test_inputs_are_shown_from_black_to_white() -> None:
    shown = picture(np.array([[[[-1.0, 0.0, 1.0]]]]))
    assert shown.tolist() == [[[[0] * 3, [128] * 3, [255] * 3]]]
    assert picture(np.zeros((2, 5, 4, 3))).shape == (2, 4, 3, 3)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unet_shapes", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_u_net_is_searched_for_iou(example: ModuleType, tmp_path: Path) -> None:
    small = {
        "trials": 3,
        "startup": 1,
        "data.images": 64,
        "data.validation": 50,
        "recipe.epochs": 1,
        "finalists.seeds": 1,
    }
    result = run_study(example.STUDY, out=tmp_path / "unet", device="cpu", overrides=small)
    records = result.dataframe()
    assert set(records["metric_name"]) == {"IoU"}
    assert records["val_metric"].between(0, 100).all()
    assert len(result.records[0].test_metrics) == 1
    assert records["params_overhead"].iloc[1] > 0
    assert "segmentation, measured by IoU, %: larger is better" in result.page.read_text()


def test_the_example_is_short(example: ModuleType) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 150
    samples = example.shapes(50, 0)
    union = example.overlap(torch.from_numpy(2 * samples.y - 1), torch.from_numpy(samples.y))
    assert torch.equal(union[:, 0], union[:, 1])
    assert 0.03 < samples.y.mean() < 0.3
