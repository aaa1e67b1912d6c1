"""The device that trains, and what it can do."""

import os
import platform
from dataclasses import dataclass

import torch

from bam_search.errors import UserError

MEMORY = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={2**30}:glibc.malloc.trim_threshold={2**33}",
}
"""The environment of a process that trains on a CPU: memory comes in large pages, and is kept for the next step instead of given back."""


@dataclass(frozen=True)
class Device:
    """Where candidates train. `variant` is the part of the study file that holds there; `bf16` says whether its hardware has it."""

    type: str
    name: str
    reason: str
    bf16: bool

    @property
    def variant(self) -> str:
        """'gpu' or 'cpu'."""
        return "gpu" if self.type == "cuda" else "cpu"


def choose(wanted: str) -> Device:
    """The device for 'auto', 'cuda' or 'cpu'. Raises UserError if the wanted one is not there."""
    if wanted == "cpu":
        return _cpu("--device cpu asks for it")
    if torch.cuda.is_available():
        reason = "--device cuda asks for it" if wanted == "cuda" else "PyTorch finds a CUDA GPU"
        return Device("cuda", torch.cuda.get_device_name(), reason, torch.cuda.is_bf16_supported(including_emulation=False))
    if wanted == "cuda":
        raise UserError(f"--device cuda: PyTorch {torch.__version__} finds no CUDA GPU", "leave --device out to use the CPU variant")
    return _cpu("PyTorch finds no CUDA GPU")


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each(workers: int) -> int:
    """CPU threads of one of `workers` processes: the cores are shared out evenly."""
    return max(1, cores() // workers)


def claim(device: Device, number: int) -> None:
    """Take a GPU, in a process that is number `number` of several; on a CPU nothing is to be done. Raises what CUDA raises if it cannot."""
    if device.type == "cuda":
        torch.cuda.set_device(number % torch.cuda.device_count())
        torch.zeros(1, device="cuda")


def _cpu(reason: str) -> Device:
    can = torch.cpu.get_capabilities()
    bf16 = any(can.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return Device("cpu", str(can.get("cpu_name") or platform.processor() or platform.machine()), reason, bf16)
