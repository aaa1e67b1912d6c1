"""A study that ships fits small data and large images, and stays as it is on CIFAR-100."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run_command, without_values

from bam_search.config import known
from bam_search.model.build import sites_of
from bam_search.model.load import Inputs, load
from bam_search.running.fit import LEAST_SIDE, fit, size_advice
from bam_search.running.prepare import Request, resolve_run
from bam_search.score.device import Device
from bam_search.search.study import Rungs, Study, load_study
from bam_search.space.search_space import space_table

DEVICES = {"cpu": Device("cpu", "a CPU", "", True), "gpu": Device("cuda", "a GPU", "", True)}
CIFAR = Inputs((3, 32, 32), 100)
TEN = Inputs((3, 64, 64), 10)


def shipped(name: str = "placement", variant: str = "cpu") -> Study:
    return load_study(name, DEVICES[variant], {}, [])


def nothing(_key: str) -> bool:
    return False


@pytest.mark.parametrize("name", known("studies", ".toml"))
@pytest.mark.parametrize("variant", DEVICES)
def test_on_cifar100_every_study_stays_as_it_is(name: str, variant: str) -> None:
    study = shipped(name, variant)
    assert fit(study, 50_000, CIFAR, nothing).study == study
    assert fit(study, 50_000, CIFAR, nothing).changes == ()


@pytest.mark.parametrize("variant", DEVICES)
def test_a_study_of_detectors_keeps_its_epochs_on_few_photographs(variant: str) -> None:
    study = shipped("detection", variant)
    assert fit(study, 292, Inputs((3, 120, 160), 4), nothing).study == study


def test_the_question_names_the_modules_that_the_user_searches() -> None:
    study = shipped()
    plan = replace(study.search, modules={"gate": {}, "bam": {}})
    question = "Where should gate or bam go, with which options at each site?"
    fitted = fit(replace(study, search=plan), 50_000, CIFAR, nothing).study
    assert fitted.question == question
    asked = fit(replace(study, search=plan), 50_000, CIFAR, lambda key: key == "question").study
    assert asked.question == study.question


def test_a_small_set_trains_as_a_whole_and_sees_as_many_images() -> None:
    fitted = fit(shipped(), 2500, CIFAR, nothing)
    study = fitted.study
    assert (study.data.images, study.recipe.epochs, study.recipe.batch) == ("all", 8, 64)
    assert fitted.changes == (
        "data.images = all 2,500 instead of 10,000",
        "recipe.epochs = 8 instead of 2, to see as many samples",
    )


def test_a_tiny_set_has_small_batches_and_no_more_than_the_most_epochs() -> None:
    fitted = fit(shipped(variant="gpu"), 1000, CIFAR, nothing)
    recipe = fitted.study.recipe
    # 800 images fit in the search: 12 steps of 64.
    assert (recipe.epochs, recipe.batch, recipe.lr) == (90, 64, 0.1)
    assert fitted.changes == (
        "recipe.epochs = 90 instead of 10, the most that is chosen",
        "recipe.batch = 64 instead of 256 and recipe.lr = 0.1 instead of 0.2, "
        "for 12 steps an epoch",
    )


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("data.images", {"space"}),
        ("recipe.epochs", {"space", "images", "batch", "lr"}),
        ("recipe.batch", {"space", "images", "epochs"}),
        ("recipe.lr", {"space", "images", "epochs", "batch"}),
        ("space", {"images", "epochs", "batch", "lr"}),
    ],
)
def test_what_the_user_has_set_stays(key: str, changed: set[str]) -> None:
    study = shipped()
    if key == "data.images":
        study = replace(study, data=replace(study.data, images=200))
    after = values(fit(study, 250, TEN, lambda asked: asked == key).study)
    assert {name for name, value in values(study).items() if value != after[name]} == changed


def values(study: Study) -> dict[str, object]:
    recipe = {name: getattr(study.recipe, name) for name in ("epochs", "batch", "lr")}
    return {"images": study.data.images, "space": study.space, **recipe}


def test_rungs_keep_their_share_of_a_training() -> None:
    study = replace(
        shipped(), recipe=replace(shipped().recipe, epochs=4), rungs=Rungs(epochs=(1, 2))
    )
    fitted = fit(study, 2500, CIFAR, nothing)
    assert (fitted.study.rungs.epochs, fitted.study.recipe.epochs) == ((4, 8), 16)
    assert fitted.changes[-1] == "rungs.epochs = [4, 8], at the same shares"
    as_set = fit(study, 2500, CIFAR, lambda key: key == "rungs.epochs")
    assert as_set.study.rungs.epochs == (1, 2)


def test_large_images_get_the_twin_with_a_stem_for_them() -> None:
    fitted = fit(shipped(), 50_000, TEN, nothing)
    assert fitted.study == replace(shipped(), space="imagenet_small")
    assert fitted.changes == ("space imagenet_small instead of small, for images of 64x64",)
    gpu = shipped(variant="gpu")
    assert fit(gpu, 50_000, TEN, nothing).study.space == "resnet18"
    assert fit(gpu, 50_000, Inputs((3, 128, 160), 10), nothing).study.space == "imagenet_resnet18"


@pytest.mark.parametrize("name", [name for name, row in space_table().items() if row.larger])
def test_a_twin_has_maps_to_attend_to_from_the_size_on_that_it_is_for(name: str) -> None:
    row = space_table()[name]
    side = row.larger_from
    twin = without_values(load(row.larger, Inputs((3, side, side), 10)))
    least = min(site.side for site in sites_of(twin))
    assert least == LEAST_SIDE


def test_small_maps_are_named_with_what_makes_them_larger() -> None:
    study = replace(shipped(), space="torchvision:resnet18")
    sites = sites_of(load("torchvision:resnet18", TEN)).select("stage-ends")
    assert size_advice(study, TEN, sites) == (
        "at 64x64 torchvision:resnet18 leaves maps smaller than 4x4 at 1 of its 4 sites "
        "(2x2 at layer4), too small for attention over positions; "
        "all are larger with --set data.size=128, "
        "or in a network whose stem has stride 1, such as resnet18",
    )
    large = Inputs((3, 128, 128), 10)
    assert size_advice(study, large, sites_of(load("torchvision:resnet18", large))) == ()


def test_a_network_for_small_images_says_what_large_ones_cost() -> None:
    study = replace(shipped(), space="resnet18")
    assert size_advice(study, TEN, ()) == (
        "space resnet18 is made for images of 32x32: at 64x64 its maps, MACs and time are "
        "4 times as large; imagenet_resnet18 has a stem for large ones",
    )
    assert size_advice(study, CIFAR, ()) == ()
    assert size_advice(study, Inputs((1, 400), 4), ()) == ()  # no images


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An npz of 250 images of 64x64 in 10 classes."""
    rng, labels = np.random.default_rng(0), np.arange(250) % 10
    pixels = rng.integers(0, 256, (250, 64, 64, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("ten") / "ten.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:50], y_test=labels[:50])
    return path


def test_the_dry_run_tells_what_was_fitted(
    ten: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", "--study", "placement", "--device", "cpu", "--data", ten, "--dry-run")
    assert run_command(monkeypatch, *words, "--epochs", 3) == 0
    out, err = capsys.readouterr()
    assert "fitted to the data: space imagenet_small instead of small" in err
    assert "data.images = all\n" in out
    assert "recipe.epochs = 3\n" in out
    assert "recipe.batch = 16\n" in out


def test_a_study_of_the_users_own_is_taken_at_its_word(ten: Path) -> None:
    request = Request("placement", "cpu", (), {"data": {"source": str(ten)}})
    study = replace(shipped(), data=replace(shipped().data, images=200, source=str(ten)))
    assert resolve_run(replace(request, study=study)).fitted == ()
