"""A search space: a backbone, the sites it offers, and the attention modules with the option values to choose among."""

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bam_search.config import find
from bam_search.errors import UserError
from bam_search.space.placement import Option

Options = Mapping[str, tuple[Option, ...]]


@dataclass(frozen=True)
class Site:
    """A named submodule with a 4-D output: where an attention module may go.

    `channels`, `height` and `width` are of its output for one input of the search space's shape. `stage` counts from 0 (None
    outside all stages). `role` is "stage" (the end of a stage, on the trunk), "block" (the residual branch of a block,
    before the addition) or "" for any other module.
    """

    name: str
    channels: int
    height: int
    width: int
    stage: int | None = None
    role: str = ""


@dataclass(frozen=True)
class SearchSpace:
    """What a file in `search_spaces/` returns from `space()`.

    `backbone(classes)` builds the nn.Module; `input_shape` is (C, H, W) of one image. `sites` are the targets the search may
    choose among (see `bam_search.model.sites.select`), `modules` the attention modules with the values of each option. `stages` and
    `blocks` name the sites of these roles for a backbone whose structure does not show them.
    """

    name: str
    backbone: Callable[[int], Any]
    input_shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 100
    stages: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    sites: tuple[str, ...] = ("stage-ends", "every-block")
    modules: Mapping[str, Options] = field(default_factory=lambda: {"bam": {"r": (4, 8, 16, 32), "d": (1, 2, 4, 6)}})


@dataclass(frozen=True)
class Menu:
    """What a sampler sees of a search space: for each site, in the model's order, its modules and their legal option values.

    `defaults` holds, for each module, the value that an option has where a placement does not write it.
    """

    sites: Mapping[str, Mapping[str, Options]]
    defaults: Mapping[str, Mapping[str, Option]]

    @property
    def size(self) -> int:
        """The number of different placements on the menu, the empty one included."""
        return math.prod(1 + sum(_combinations(options) for options in modules.values()) for modules in self.sites.values())


def _combinations(options: Options) -> int:
    return math.prod(len(values) for values in options.values())


def load_space(name: str) -> SearchSpace:
    """The search space of a file in `search_spaces/`, or of a path to a Python file. Raises UserError if there is none in it.

    The file is Python and is executed: name only files you trust.
    """
    path = find("search_spaces", name, ".py")
    try:
        loaded = _run(path).space()
    except UserError:
        raise
    except Exception as error:  # whatever a user's file raises, the user wants to read it as theirs
        raise UserError(
            f"search space {path} failed: {type(error).__name__}: {error}", "it needs a function space() -> SearchSpace"
        ) from error
    if not isinstance(loaded, SearchSpace):
        raise UserError(f"space() of {path} returned {type(loaded).__name__}", "it must return a SearchSpace")
    return loaded


def _run(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"search_space_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
