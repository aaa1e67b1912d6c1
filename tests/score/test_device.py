"""The device: named without waking it, and what is set for it is set back."""

import gc
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bam_search.model.build import sites_of
from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import settle
from bam_search.score.device import Device, choose, room_for_samples, trainings_beside
from bam_search.score.evaluate import Experiment, prepare
from bam_search.score.train import train
from bam_search.space.search_space import load_space
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Split

SAYS = "#!/bin/sh\nprintf '{}'\n"


def never() -> str:
    raise AssertionError("torch was asked, which makes a context on the GPU")


@pytest.mark.parametrize(
    ("said", "bf16"),
    [
        ("NVIDIA H100 80GB HBM3, 9.0\\n", True),
        ("NVIDIA H100 80GB HBM3, 9.0\\nNVIDIA H100 80GB HBM3, 9.0\\n", True),
        ("Tesla T4, 7.5\\n", False),
    ],
)
def test_the_gpu_is_named_by_its_driver(
    said: str, bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(SAYS.format(said))
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", never)
    found = choose("auto")
    assert (found.type, found.name, found.bf16) == ("cuda", said.partition(",")[0], bf16)


@pytest.mark.parametrize(
    "said", ["NVIDIA A100, 8.0\\nTesla T4, 7.5\\n", "", "no devices were found\\n"]
)
def test_torch_is_asked_where_the_driver_does_not_say_which_one(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(SAYS.format(said))
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation
    )
    assert choose("cuda") == Device("cuda", "Tesla T4", "--device cuda asks for it", False)


def test_what_a_worker_has_loaded_is_no_garbage_to_look_for_before_each_capture() -> None:
    settle.cache_clear()
    gc.unfreeze()
    x, y, _, _ = generate_images(100, 0)
    task = Experiment(
        "classification",
        "small",
        sites_of(load_space("small")),
        Split(*[Images(x, y)] * 4),
        Recipe(),
        Device("cuda", "GPU", "a test", True),
        1,
    )
    try:
        prepare(replace(task, device=choose("cpu")))
        assert gc.get_freeze_count() == 0
        prepare(task)
        assert gc.get_freeze_count() > 100_000
        assert len(gc.get_objects()) < 1000
    finally:
        gc.unfreeze()
        settle.cache_clear()


def test_samples_have_a_share_of_the_free_memory_for_each_training_on_a_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = Device("cuda", "GPU", "a test", True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (16_000, 80_000))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [trainings_beside(gpu, workers) for workers in (1, 2, 3, 5)] == [1, 1, 2, 3]
    assert room_for_samples(gpu) == 4000
    assert room_for_samples(gpu, 2) == 2000
    assert trainings_beside(choose("cpu"), 2) == 2
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < room_for_samples(choose("cpu")) <= whole / 4


def test_a_container_has_no_more_memory_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bam_search.score.device.LIMIT", tmp_path / "memory.max")
    free = room_for_samples(choose("cpu"))
    (tmp_path / "memory.max").write_text("max\n")
    assert room_for_samples(choose("cpu")) == pytest.approx(free, rel=0.5)
    (tmp_path / "memory.max").write_text("4000000\n")
    assert room_for_samples(choose("cpu")) == 1_000_000


@pytest.mark.parametrize("wanted", [True, False])
def test_cudnn_chooses_by_trial_while_a_recipe_trains_that_says_so(wanted: bool) -> None:
    seen: list[bool] = []

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.benchmark)
            return self.layers(x)

    x, y, _, _ = generate_images(100, 0)
    recipe = Recipe(epochs=1, batch=50, cudnn_benchmark=wanted)
    before = torch.backends.cudnn.benchmark
    train(
        Probe(), TrainingContext.of(sources.task(), choose("cpu"), recipe, Images(x, y)), recipe, 0
    )
    assert seen == [wanted, wanted]
    assert torch.backends.cudnn.benchmark == before
