"""What `benchmarks/attention.py` measures of the attention modules alone, where the project has it."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.gpu.parts import Absent, Part, Work

MEASURES = ("passes", "small_convolutions")
"""Functions of that module: each takes the device and the images of a batch."""
BATCH, TINY_BATCH = 256, 8


def parts(work: Work) -> list[Part]:
    """The stage."""
    return [Part(name, 45, lambda name=name: measured(work, name)) for name in MEASURES]  # type: ignore[misc]


def measured(work: Work, name: str, module: str = "benchmarks.attention") -> Any:
    """What one of the functions tells."""
    try:
        measure: Callable[[str, int], Any] = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise Absent(f"{module} has no {name} here: {error}") from None
    found = measure(work.device, TINY_BATCH if work.tiny else BATCH)
    return list(found) if isinstance(found, Iterator) else found
