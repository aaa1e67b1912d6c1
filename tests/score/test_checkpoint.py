"""A training that is cut off goes on from its checkpoint, and ends as it would have."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bam_search.model.build import sites_of
from bam_search.score.checkpoint import Checkpoint
from bam_search.score.context import TrainingContext
from bam_search.score.device import choose
from bam_search.score.evaluate import Experiment, Job, evaluate
from bam_search.score.train import EpochResult, TrainingState, train
from bam_search.space.search_space import load_space
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.batches import EpochPlan
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset

CPU = choose("cpu")
IMAGES = Images(*generate_images(200, 0)[:2])


class Net(nn.Module):
    """Normalisation and dropout: buffers, and random numbers of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, bias=False),
            nn.Dropout(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 100),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def channels_last() -> nn.Module:
    """As models are trained."""
    return Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Cut(Exception):
    """Power is off."""


def trained(
    net: nn.Module,
    optimizer: str,
    saved: TrainingState | None = None,
    keep: Callable[[TrainingState], None] | None = None,
) -> tuple[EpochResult, ...]:
    recipe = Recipe(epochs=4, batch=50, precision="fp32", optimizer=optimizer)  # type: ignore[arg-type]
    return train(
        net,
        TrainingContext.of(sources.task(), CPU, recipe, IMAGES),
        recipe,
        3,
        saved=saved,
        keep=keep,
    )


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_training_that_is_cut_off_ends_bit_for_bit_as_it_would_have(
    tmp_path: Path, after: int, optimizer: str
) -> None:
    whole = channels_last()
    expected = trained(whole, optimizer)
    checkpoint = Checkpoint(tmp_path / "one.pt", every=0)

    def keep(saved: TrainingState) -> None:
        checkpoint.save(saved)
        if len(saved.epochs) == after:
            raise Cut

    with pytest.raises(Cut):
        trained(channels_last(), optimizer, keep=keep)
    torch.manual_seed(99)  # another process has drawn other numbers
    saved = checkpoint.load()
    assert saved is not None
    assert saved.epochs == expected[:after]
    assert saved.seconds > 0
    again, heard = channels_last(), list[int]()
    assert (
        trained(again, optimizer, saved, lambda saved: heard.append(len(saved.epochs))) == expected
    )
    assert heard == list(range(after + 1, 4))
    assert all(
        torch.equal(one, two)
        for one, two in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )


def saved() -> TrainingState:
    return TrainingState((EpochResult(3.0, None),), 5.0, {"w": torch.ones(2)}, {"state": {}})


def test_only_what_took_long_enough_is_kept_and_the_end_leaves_nothing(tmp_path: Path) -> None:
    patient, hasty = Checkpoint(tmp_path / "patient.pt"), Checkpoint(tmp_path / "hasty.pt", every=0)
    patient.save(saved())
    hasty.save(saved())
    assert [path.name for path in tmp_path.iterdir()] == ["hasty.pt"]
    hasty.drop()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"half of", b"PK\x03\x04 half of a zip"])
def test_a_damaged_file_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.pt").write_bytes(content)
    assert Checkpoint(tmp_path / "one.pt").load() is None


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"epochs": Evil()}, tmp_path / "one.pt")
    assert Checkpoint(tmp_path / "one.pt").load() is None
    assert not (tmp_path / "executed").exists()


def test_a_folder_that_is_gone_does_not_stop_a_training(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "nowhere" / "one.pt", every=0)
    checkpoint.save(saved())
    checkpoint.drop()
    assert checkpoint.load() is None


def test_a_job_goes_on_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, x_test, y_test = generate_images(400, 100)
    parts = sources.task().split(
        Dataset("generated", "", Images(x, y), Images(x_test, y_test)),
        SplitSizes.of(len(x), None, 0.25),
        seed=0,
    )
    task = Experiment(
        "classification",
        "small",
        sites_of(load_space("small")),
        parts,
        Recipe(epochs=3, batch=100),
        CPU,
        1,
        tmp_path,
    )
    job = Job("layer1=bam", 0, 3)
    expected = evaluate(task, job).score
    assert expected is not None
    assert not list(tmp_path.iterdir())
    save = Checkpoint.save

    def cut(self: Checkpoint, saved: TrainingState) -> None:
        self.every = 0
        save(self, saved)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            evaluate(task, job)
    assert len(list(tmp_path.iterdir())) == 1
    evaluate(task, replace(job, seed=1))  # another training, with a file of its own
    assert len(list(tmp_path.iterdir())) == 1
    began: list[int] = []
    of = EpochPlan.of
    monkeypatch.setattr(EpochPlan, "of", lambda *args: began.append(args[3]) or of(*args))  # type: ignore[func-returns-value]
    again = evaluate(task, job).score
    assert again is not None
    assert (again.per_epoch, again.value) == (expected.per_epoch, expected.value)
    assert began == [1, 2]
    assert not list(tmp_path.iterdir())
