"""The attention modules alone, measured by `benchmarks/attention.py` where the project has it."""

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.gpu.parts import Absent, Part, Work

MEASURES = ("passes", "small_convolutions")
"""Functions of that module: each takes the device, the images of a batch and perhaps `rounds`, and
gives rows of figures by name.
"""
BATCH, TINY_BATCH, TINY_ROUNDS = 256, 8, 2


def parts(work: Work) -> list[Part]:
    """The stage."""
    return [Part(name, 60, lambda name=name: measured(work, name)) for name in MEASURES]  # type: ignore[misc]


def measured(work: Work, name: str, module: str = "benchmarks.attention") -> Any:
    """What one of the functions tells."""
    try:
        measure: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise Absent(f"{module} has no {name} here: {error}") from None
    return (
        measure(work.device, TINY_BATCH, rounds=TINY_ROUNDS)
        if work.tiny
        else measure(work.device, BATCH)
    )
