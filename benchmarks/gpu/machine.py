"""What a machine has: the device, versions, programs and data.

It also tries whether every module can be imported there.
"""

import importlib
import os
import pkgutil
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import bam_search
from bam_search.errors import UserError
from bam_search.processes import cores
from bam_search.score.device import choose
from bam_search.tasks.classification.sources import locate
from benchmarks.gpu.parts import Part, Work, now

ROOT = Path(bam_search.__file__).parents[1]
"""The checkout."""
DRIVER = Path("/proc/driver/nvidia/version")
COMPILERS = ("cc", "gcc", "g++", "clang", "nvcc")
PROGRAMS = ("nvidia-smi", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server", "git")
QUERY = "name,driver_version,memory.total,power.limit,clocks.sm,clocks.max.sm,temperature.gpu"


def about(device: str, data: str, tiny: bool) -> dict[str, Any]:
    """What stands above every file of results.

    Raises UserError where there is no such device, or no such data.
    """
    try:
        chosen = choose(device)
    except UserError as error:
        raise UserError(error.message, "--device cpu runs all stages, tiny, on a CPU") from None
    text = locate(data).text
    return {
        "device": chosen.name,
        "date": now(),
        "kind": chosen.type,
        "tiny": tiny,
        "versions": versions(),
        "data": text,
        "cores": cores(),
    }


def versions() -> dict[str, str]:
    """Of the project, Python, torch, CUDA, cuDNN and the driver; empty for what is not there."""
    return {
        "bam_search": bam_search.__version__,
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda or "",
        "cudnn": str(torch.backends.cudnn.version() or ""),
        "driver": driver(),
        "system": platform.platform(),
    }


def driver() -> str:
    """The version of NVIDIA's driver; empty without one."""
    told = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    if told:
        return told.splitlines()[0].strip()
    kernel = re.search(r"\s(\d+\.\d+[\d.]*)\s", DRIVER.read_text()) if DRIVER.exists() else None
    return kernel[1] if kernel else ""


def _said(*words: str) -> str:
    """What a program prints; empty if it is not there or fails."""
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def parts(work: Work) -> list[Part]:
    """The stage."""
    return [
        Part("dependencies", 20, dependencies),
        Part("imports", 40, imports),
        Part("programs", 20, programs),
        Part("device", 30, lambda: device(work.device)),
        Part("data", 40, lambda: data(work.data)),
    ]


def dependencies() -> Iterator[dict[str, str]]:
    """The version of each dependency. Raises if one is missing or too old."""
    from packaging.requirements import Requirement  # of Optuna and others, not of this project

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = {}
    wrong = []
    for text in project["dependencies"]:
        need = Requirement(text)
        try:
            found[need.name] = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            found[need.name] = ""
        release = found[need.name].partition("+")[0]
        if not release or not need.specifier.contains(release, prereleases=True):
            wrong.append(f"{text} ({release or 'missing'})")
    yield found
    if wrong:
        raise RuntimeError(f"missing or too old: {', '.join(wrong)}")


def imports() -> Iterator[dict[str, Any]]:
    """How many modules of the project there are. Raises if one cannot be imported."""
    names = [module.name for module in pkgutil.walk_packages(bam_search.__path__, "bam_search.")]
    names = [name for name in names if not name.endswith("__main__")]
    failed: dict[str, str] = {}
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    yield {"modules": len(names), "failed": failed}
    if failed:
        raise RuntimeError(f"cannot be imported: {', '.join(failed)}")


def programs() -> dict[str, Any]:
    """The paths of compilers and NVIDIA's programs.

    Without a C compiler torch cannot compile; without MPS processes cannot train at once.
    """
    found = {name: shutil.which(name) or "" for name in (*COMPILERS, *PROGRAMS)}
    named = os.environ.get("CC", "")
    compiler = any(shutil.which(name) for name in (*COMPILERS[:4], *filter(None, [named])))
    packages = {}
    for name in ("pytest", "pytest-xdist", "triton", "timm"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = ""
    return {"c_compiler": compiler, "found": found, "packages": packages}


def device(kind: str) -> dict[str, Any]:
    """What the device says of itself."""
    if kind != "cuda":
        return {"cores": cores(), "bf16": choose(kind).bf16, "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "devices": torch.cuda.device_count(),
        "multiprocessors": properties.multi_processor_count,
        "capability": list(torch.cuda.get_device_capability(0)),
        "mib": properties.total_memory >> 20,
        "bf16": choose(kind).bf16,
        "cores": cores(),
        "nvidia_smi": dict(zip(QUERY.split(","), _smi(), strict=False)),
    }


def _smi() -> list[str]:
    told = _said("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader")
    return [field.strip() for field in told.splitlines()[0].split(",")] if told else []


def data(source: str) -> dict[str, Any]:
    """What the images are."""
    found = locate(source).load()
    return {
        "name": found.name,
        "train": len(found.train),
        "test": len(found.test),
        "sha256": found.digest,
    }
