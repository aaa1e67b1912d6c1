"""A search space: a backbone, its sites, and the attention modules to choose among.

Each module comes with the option values to choose among.
"""

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bam_search.config import find
from bam_search.errors import UserError
from bam_search.space.placement import Choice, Option

Options = Mapping[str, tuple[Option, ...]]


@dataclass(frozen=True)
class SearchSpace:
    """What a file in `search_spaces/` returns from `space()`.

    `backbone(classes)` builds the nn.Module; `input_shape` is (C, H, W) of one image. `sites` are
    the targets the search may choose among (see `bam_search.space.sites`), `modules` the attention
    modules with the values of each option.
    """

    name: str
    backbone: Callable[[int], Any]
    input_shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 100
    sites: tuple[str, ...] = ("stage-ends", "every-block")
    modules: Mapping[str, Options] = field(
        default_factory=lambda: {"bam": {"r": (4, 8, 16, 32), "d": (1, 2, 4, 6)}}
    )


@dataclass(frozen=True)
class ChoiceSpace:
    """What a sampler chooses from: for each site, its modules and their legal option values.

    `sites` are in the model's order. `defaults` holds, for each module, the value that an option
    has where a placement does not write it. `illegal` are choices at sites whose values are legal,
    but not together. `left_out` are sites that the space names and at which nothing is legal.
    """

    sites: Mapping[str, Mapping[str, Options]]
    defaults: Mapping[str, Mapping[str, Option]]
    illegal: frozenset[tuple[str, Choice]] = frozenset()
    left_out: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The number of different placements in the choice space, the empty one included."""
        return math.prod(1 + len(self.choices(site)) for site in self.sites)

    def written_out(self, choice: Choice) -> Choice:
        """`choice` with every option of its module: two that mean the same are then equal.

        Other modules stay as they are.
        """
        defaults = self.defaults.get(choice.module, {})
        return Choice.of(choice.module, {**defaults, **dict(choice.options)})

    def choices(self, site: str) -> list[Choice]:
        """Every legal choice at `site`, each option written out."""
        choices: list[Choice] = []
        for module, options in self.sites[site].items():
            combinations = itertools.product(*options.values())
            named = (dict(zip(options, values, strict=True)) for values in combinations)
            choices.extend(Choice.of(module, values) for values in named)
        return [choice for choice in choices if (site, choice) not in self.illegal]


def load_space(name: str) -> SearchSpace:
    """The search space of a file in `search_spaces/`, or of a path to a Python file.

    Raises UserError if there is none in it.

    The file is Python and is executed: name only files you trust.
    """
    path = find("search_spaces", name, ".py")
    loaded = made_by(path, "space", "search space", "SearchSpace")
    if not isinstance(loaded, SearchSpace):
        raise UserError(
            f"space() of {path} returned {type(loaded).__name__}", "it must return a SearchSpace"
        )
    return loaded


def made_by(path: Path, function: str, what: str, returned: str, kind: str = "file") -> Any:
    """What a function of a Python file, which is executed, returns.

    Raises UserError if it cannot be called: the file is to make `what`, and the function, without
    arguments, to return a `returned`. `kind` is as for `run_file`.
    """
    try:
        return getattr(run_file(path, kind), function)()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        raise UserError(
            f"{what} {path} failed: {type(error).__name__}: {error}",
            f"it needs a function {function}() -> {returned}",
        ) from error


def run_file(path: Path, kind: str = "file") -> Any:
    """The module of a Python file, which is executed as if it were run from its folder.

    The module is named by `kind`, so that one file can be run as two. Raises UserError if the file
    does not exist or cannot be imported.
    """
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(f"bam_search_{kind}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its classes can then be pickled
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))  # its neighbours can then be imported
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module
