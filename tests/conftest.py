"""Fixtures and helpers that several tests share.

They are image files, a PostgreSQL server, records to report on, and a call of the command line.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

# Before torch is imported: the test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from optuna.storages import RDBStorage
from photos import fill
from sqlalchemy import NullPool
from torch import nn

from bam_search.cli.main import main
from bam_search.score import device, estimate, latency
from bam_search.space.search_space import SearchSpace
from bam_search.study.record import Record
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.classification.task import TOP1_ERROR
from bam_search.tasks.metric import Metric, binomial

MAKER = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar100_npz.py"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Trainings in this process have one thread: two on busy cores take ten times as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "cores", lambda: 1)
        yield


@pytest.fixture(autouse=True, scope="session")
def measured_briefly() -> Iterator[None]:
    """Speeds are measured in this process, and each model is timed LEAST times.

    Where times are what a test looks at, it measures as often as a study does.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "cores", lambda: 1)
        patch.setattr(latency, "PAIRS", latency.LEAST)
        patch.setattr(latency, "DEPLOYED_PAIRS", latency.LEAST)
        yield


@pytest.fixture
def own_forks() -> None:
    """Processes are forks as this project starts them, whatever other tests have started."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def no_autocast() -> Iterator[None]:
    """No test leaves autocast on: all that follow would compute in bfloat16."""
    yield
    left_on = torch.is_autocast_enabled("cpu")
    torch.set_autocast_enabled("cpu", False)
    assert not left_on


@pytest.fixture(scope="session")
def real_cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras-style npz of the real CIFAR-100: 2,000 training images and all test images."""
    if not MAKER.is_file():
        pytest.skip("the real CIFAR-100 is not at hand beside the checkout")
    path = tmp_path_factory.mktemp("cifar") / "cifar100.npz"
    subprocess.run(
        [sys.executable, MAKER, path, "--train-sheets", "0-1"], check=True, capture_output=True
    )
    return path


@pytest.fixture(scope="session")
def small_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras-style npz: 600 generated training images and 300 test images of 100 classes."""
    x_train, y_train, x_test, y_test = generate_images(600, 300)
    path = tmp_path_factory.mktemp("small") / "cifar100.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with train/ and val/: four and two pictures of each class."""
    folder = tmp_path / "photos"
    fill(folder / "train", 4)
    fill(folder / "val", 2, first=40)
    return folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server that only these tests use, on a socket."""
    pytest.importorskip("psycopg")
    binaries = _postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: no initdb")
    # Its server refuses to be run by root.
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)

    def run(name: str, *words: object) -> None:
        done = subprocess.run(
            [*user, binaries / name, *map(str, words)],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert done.returncode == 0, done.stderr

    run("initdb", "-D", folder / "data", "-U", "bam", "--auth=trust", "--no-sync")
    server = ["-D", folder / "data", "-w", "-l", folder / "log"]
    run("pg_ctl", *server, "-o", f"-k {folder} -c listen_addresses= -c fsync=off", "start")
    yield f"postgresql://bam@/postgres?host={folder}"
    run("pg_ctl", *server, "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


def _postgresql_binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs: that on the path, else the newest of Debian's."""
    initdb = shutil.which("initdb")
    if initdb:
        return Path(initdb).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest test, so that no process is left with it at the end."""
    items.sort(key=lambda item: "test_gpu_benchmark.py::test_stages" not in item.nodeid)


def run_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run `python -m bam_search WORDS` in this process, and return the exit code."""
    monkeypatch.setattr(sys, "argv", ["bam_search", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def without_values(space: SearchSpace) -> SearchSpace:
    """The space with a backbone that has shapes alone, which sites and counts need no more than."""

    def backbone(classes: int) -> nn.Module:
        with torch.device("meta"):
            net: nn.Module = space.backbone(classes)
            return net

    return replace(space, backbone=backbone)


def metric_fields(metric: Metric) -> dict[str, object]:
    """The fields of a record that say what it measures."""
    return {
        "metric_name": metric.name,
        "unit": metric.unit,
        "larger_is_better": metric.larger_is_better,
        "decimals": metric.decimals,
    }


def database(path: Path) -> RDBStorage:
    """Optuna's storage in a file, as another program opens it; no connection is left open."""
    return RDBStorage(f"sqlite:///{path}", engine_kwargs={"poolclass": NullPool})


def make_record(number: int, value: float | None, overhead: float, **fields: object) -> Record:
    """Return a record with the fields that fronts and reports look at: of a top-1 error."""
    values: dict[str, object] = {
        "number": number,
        "origin": "search",
        "name": "",
        "placement": f"layer{number}=bam",
        "id": f"id{number}",
        "data": "CIFAR-100",
        **metric_fields(TOP1_ERROR),
        "seed": 0,
        "epochs": 1,
        "params": 1000 + number,
        "macs_conv_fc": 2000 + number,
        "macs": 3000 + number,
        "activations": 400 + number,
        "params_overhead": overhead,
        "macs_conv_fc_overhead": 2 * overhead,
        "macs_overhead": 3 * overhead,
        "activations_overhead": 4 * overhead,
        "by_operator": {"conv": 2000 + number, "add": 1000},
        "uncounted": {},
        "val_metric": value,
        "val_standard_error": None if value is None else binomial(min(max(value, 0), 100), 400),
        "val_samples": None if value is None else 400,
        "epoch_metrics": () if value is None else (90.0, value),
        "train_losses": (4.0, 3.0),
        "seconds": 1.5,
    }
    return Record(**{**values, **fields})
