"""What attention modules add to their backbone: each traced by fvcore once, and remembered.

An increment depends on the module, its options and the shape of the map, and on nothing else of the
network. It is kept for the process, and in a file of the user's cache folder for the next one.
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from bam_search.files import write
from bam_search.model.attention import canonical, create, on_change, origin
from bam_search.score.cost import Cost, count
from bam_search.space.placement import Choice

SOURCES = (
    *("model/attention/*.py", "model/maps.py", "model/pool.py", "model/twin.py"),
    "model/arguments.py",
    *("score/cost.py", "score/countable.py", "score/handles.py"),
)
"""The files of this package that decide what an increment is."""
BROKEN = (OSError, ValueError, KeyError, TypeError)
"""What a cache raises that cannot be read, or holds something else."""


@functools.cache
def increment(choice: Choice, channels: int, *sides: int) -> Cost:
    """What `choice` adds at a site with a map of this shape: `sides` are L, H and W, or D, H and W.

    It is exactly what fvcore counts. Raises UserError if the choice cannot be there, and what a
    user's module raises.
    """
    canonical_choice = canonical(choice, channels, min(sides), len(sides))
    where = origin(choice.module)
    key = f"{where} {canonical_choice.text} {'x'.join(map(str, (channels, *sides)))}"
    known = None if where is None else _saved().get(key)
    if known is not None:
        return known
    module = create(choice, channels, nn.Identity(), len(sides))
    traced = count(module, (channels, *sides))
    if where is not None:
        _save(key, traced)
    return traced


on_change(increment.cache_clear)


def cache_file() -> Path:
    """Where increments are kept from one process to the next."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "bam_search" / "increments.json"


def _saved() -> dict[str, Cost]:
    """The increments in the file, by key; none if it is broken, or of another version."""
    with suppress(*BROKEN, RuntimeError):  # RuntimeError: there is no home
        table = json.loads(cache_file().read_text(encoding="utf-8"))
        if table["version"] == _version() and table["digest"] == _digest(table["increments"]):
            return {key: Cost(**fields) for key, fields in table["increments"].items()}
    return {}


def _save(key: str, cost: Cost) -> None:
    """Add an increment to the file, if that can be written."""
    with suppress(OSError, RuntimeError):
        increments = {name: asdict(known) for name, known in (_saved() | {key: cost}).items()}
        table = {"version": _version(), "digest": _digest(increments), "increments": increments}
        cache_file().parent.mkdir(parents=True, exist_ok=True)
        write(cache_file(), json.dumps(table))


def _digest(increments: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(increments, sort_keys=True).encode()).hexdigest()


@functools.cache
def _version() -> str:
    """What the numbers in the file depend on: packages, and the files of this one that count."""
    package = Path(__file__).parents[1]
    paths = sorted(path for pattern in SOURCES for path in package.glob(pattern))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    packages = ", ".join(f"{name} {_version_of(name)}" for name in ("fvcore", "torch", "timm"))
    return f"{packages}, {code}"


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
