"""The device that trains, and what it can do."""

import contextlib
import itertools
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bam_search.errors import UserError, nearest
from bam_search.processes import cores

DEVICES = ("auto", "cuda", "cpu")


@dataclass(frozen=True)
class Device:
    """Where candidates train.

    `variant` is the part of the study file that holds there; `bf16` says whether its hardware has
    it.
    """

    type: str
    name: str
    reason: str
    bf16: bool

    @property
    def variant(self) -> str:
        """'gpu' or 'cpu'."""
        return "gpu" if self.type == "cuda" else "cpu"


def samples_for(device: str, shape: Sequence[int], most: int, numbers: int, least: int = 1) -> int:
    """How many samples of this shape to run at once: `most`, on a CPU of at most `numbers`.

    A large one takes a CPU as long alone as among others, but at least `least` are run.
    """
    if device != "cpu":
        return most
    return min(most, max(least, numbers // math.prod(shape)))


def choose(wanted: str) -> Device:
    """The device for one of DEVICES. Raises UserError if the wanted one is not there."""
    if wanted not in DEVICES:
        raise UserError(f"there is no device {wanted!r}", nearest(wanted, DEVICES))
    if wanted == "cpu":
        return _cpu("--device cpu asks for it")
    if torch.cuda.is_available():
        reason = "--device cuda asks for it" if wanted == "cuda" else "PyTorch finds a CUDA GPU"
        name, bf16 = _gpu()
        return Device("cuda", name, reason, bf16)
    if wanted == "cuda":
        raise UserError(
            f"--device cuda: PyTorch {torch.__version__} finds no CUDA GPU",
            "leave --device out to use the CPU variant",
        )
    return _cpu("PyTorch finds no CUDA GPU")


def threads_each(workers: int) -> int:
    """CPU threads of one of `workers` processes: the cores are shared out evenly."""
    return max(1, cores() // workers)


@contextlib.contextmanager
def using_threads(each: int) -> Iterator[None]:
    """Within the context torch has so many CPU threads for an operator."""
    before = torch.get_num_threads()
    torch.set_num_threads(each)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def claim(device: Device, number: int) -> None:
    """Take a GPU, in a process that is number `number` of several; on a CPU nothing is to be done.

    Raises what CUDA raises if it cannot.
    """
    if device.type == "cuda":
        torch.cuda.set_device(number % torch.cuda.device_count())
        torch.zeros(1, device="cuda")


def on_device(
    model: nn.Module, kind: str, layout: torch.memory_format = torch.channels_last
) -> nn.Module:
    """The model itself, on a device of this type, its weights of four dimensions in this layout.

    One that has weights of five dimensions, for volumes, has them as they are: torch knows no
    layout of this name for them.
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    if any(tensor.dim() == 5 for tensor in tensors):
        return model.to(kind)
    moved: nn.Module = model.to(kind, memory_format=layout)  # type: ignore[call-overload]
    return moved


SHARE_FOR_SAMPLES = 1 / 4
"""The share of the free memory that training samples may take, and those that are measured again.

The other half is for the model.
"""

LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The file with the bytes of memory that a container of Linux may take, or the word max."""


def trainings_beside(device: Device, workers: int) -> int:
    """How many of `workers` trainings share the memory of one device."""
    gpus = torch.cuda.device_count() if device.type == "cuda" else 1
    return math.ceil(workers / max(1, gpus))


def room_for_samples(device: Device, beside: int = 1) -> int:
    """Bytes of memory that the samples of one of `beside` trainings on the device may take."""
    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else _free_memory()
    return int(free * SHARE_FOR_SAMPLES / beside)


def _free_memory() -> int:
    """Bytes of memory that this machine, or the container that it is, can give."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        free = 1024 * int(available.split()[1])
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        free = min(free, int(LIMIT.read_text()))
    return free


BF16_SINCE = 8.0
"""The compute capability from which NVIDIA's GPUs have bfloat16 (Ampere)."""


def _gpu() -> tuple[str, bool]:
    """The GPU's name, and whether it has bfloat16.

    NVIDIA's driver is asked first: the driver of a study only talks of the GPU, and torch would
    initialise it, which takes hundreds of megabytes of its memory. torch is asked where GPUs
    differ, as then its own order says which one trains, and on other makers' GPUs.
    """
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        lines = [line for line in answer.stdout.splitlines() if line]
        # Exactly one kind of GPU, or ValueError.
        ((name, capability),) = {tuple(line.rsplit(", ", 1)) for line in lines}
        return name, float(capability) >= BF16_SINCE
    except (OSError, subprocess.SubprocessError, ValueError):
        return torch.cuda.get_device_name(), torch.cuda.is_bf16_supported(including_emulation=False)


def _cpu(reason: str) -> Device:
    capabilities = torch.cpu.get_capabilities()
    bf16 = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    return Device("cpu", str(name), reason, bf16)
