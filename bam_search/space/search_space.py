"""A search space: a backbone, its sites, and the attention modules to choose among.

Each module comes with the option values to choose among.
"""

import functools
import importlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bam_search.config import build, folder, known, read_toml, strict
from bam_search.errors import UserError, nearest
from bam_search.space.placement import Choice, Option, Placement
from bam_search.space.user_file import defined_in, run_file

Options = Mapping[str, tuple[Option, ...]]
SPACES = "search_spaces"
"""The folder of the spaces that ship."""
REDUCTIONS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""The values of r to choose among, each where it leaves LEAST_HIDDEN channels or more."""
LEAST_HIDDEN = 2
DILATIONS = (1, 2, 4, 6)
"""The values of d to choose among."""


@dataclass(frozen=True)
class SearchSpace:
    """A search space: what the function `space()` of a user's file returns.

    `backbone(classes)` builds the nn.Module; `input_shape` is (C, H, W) of one image. If both it
    and `classes` are left at their defaults, CIFAR-100's, they follow a study's data. `sites` are
    the targets the search may choose among (see `bam_search.space.sites`), `modules` the attention
    modules with the values of each option; without any, see `offered`.
    """

    name: str
    backbone: Callable[[int], Any]
    input_shape: tuple[int, ...] = (3, 32, 32)
    classes: int = 100
    sites: tuple[str, ...] = ("stage-ends", "every-block")
    modules: Mapping[str, Options] = field(default_factory=dict)

    @property
    def states_inputs(self) -> bool:
        """Whether it says what it is for, so that it is for nothing else."""
        defaults = SearchSpace.input_shape, SearchSpace.classes
        return (self.input_shape, self.classes) != defaults

    def offered(self, channels: int) -> Mapping[str, Options]:
        """The modules to choose among at a site of so many channels, legal there or not.

        A space that names none offers BAM. With the largest r it costs little at a wide site too:
        less than the paper's placement, which leaves the widest stage out.
        """
        return self.modules or {"bam": {"r": _reductions(channels), "d": DILATIONS}}


def _reductions(channels: int) -> tuple[int, ...]:
    """The values of r to choose among; a site of very few channels has the smallest."""
    return tuple(r for r in REDUCTIONS if channels // r >= LEAST_HIDDEN) or REDUCTIONS[:1]


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

    def shortened(self, placement: Placement) -> Placement:
        """`placement` without the options that have their default, as a person writes it."""
        return Placement.of({site: self._shortened(choice) for site, choice in placement.choices})

    def _shortened(self, choice: Choice) -> Choice:
        defaults = self.defaults.get(choice.module, {})
        told = {key: value for key, value in choice.options if defaults.get(key) != value}
        return Choice.of(choice.module, told)

    def unused(self, modules: Mapping[str, Options]) -> list[str]:
        """The values of `modules` that are legal at no site, each as `module(option=value)`."""
        used = {
            (module, option, value)
            for offered in self.sites.values()
            for module, options in offered.items()
            for option, values in options.items()
            for value in values
        }
        return [
            Choice.of(module, {option: value}).text
            for module, options in modules.items()
            for option, values in options.items()
            for value in values
            if (module, option, value) not in used
        ]

    def choices(self, site: str) -> list[Choice]:
        """Every legal choice at `site`, each option written out."""
        choices: list[Choice] = []
        for module, options in self.sites[site].items():
            combinations = itertools.product(*options.values())
            named = (dict(zip(options, values, strict=True)) for values in combinations)
            choices.extend(Choice.of(module, values) for values in named)
        return [choice for choice in choices if (site, choice) not in self.illegal]


@strict
@dataclass(frozen=True)
class TableRow:
    """A space in `search_spaces/spaces.toml`.

    `backbone` is FILE.FUNCTION in `bam_search/model/backbones/`; the function takes `arguments`,
    then the number of classes. `larger` is the space of the same network with a stem for large
    images, which a study takes in its place where their shorter side has `larger_from` pixels or
    more. The other fields are those of SearchSpace; empty ones have its defaults.
    """

    about: str
    backbone: str
    arguments: tuple[Option, ...] = ()
    input_shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 100
    larger: str = ""
    larger_from: int = 0
    sites: tuple[str, ...] = ()
    modules: dict[str, dict[str, tuple[Option, ...]]] = field(default_factory=dict)

    def space(self, name: str) -> SearchSpace:
        """The search space of this row."""
        file, _, function = self.backbone.partition(".")
        make = getattr(importlib.import_module(f"bam_search.model.backbones.{file}"), function)
        space = SearchSpace(
            name,
            functools.partial(make, *self.arguments),
            self.input_shape,
            self.classes,
            modules=self.modules,
        )
        return replace(space, sites=self.sites or space.sites)


@functools.cache
def space_table() -> Mapping[str, TableRow]:
    """The rows of `search_spaces/spaces.toml` by the names of their spaces."""
    path = folder(SPACES) / "spaces.toml"
    rows = read_toml(path)
    return {name: build(TableRow, row, f"{path}, space {name},") for name, row in rows.items()}


def space_names() -> list[str]:
    """The names of the spaces that ship, sorted: those of the table, and those of files."""
    return sorted([*space_table(), *known(SPACES, ".py")])


def check_space(name: str) -> None:
    """Raise UserError, with the nearest name, unless `name` ships or is a path to a file."""
    path = Path(name)
    is_there = path.is_file() if path.suffix == ".py" else name in space_names()
    if not is_there:
        what = f"no file {name!r}" if path.suffix == ".py" else f"no {name!r} in {SPACES}/"
        raise UserError(
            f"there is {what}",
            f"{nearest(path.stem, space_names())} (or give a path to a .py file)",
        )


def load_space(name: str) -> SearchSpace:
    """The search space that ships with this name, or that of a path to a Python file.

    Raises UserError if there is none.

    A file is Python and is executed: name only files you trust.
    """
    check_space(name)
    if name in space_table():
        return space_table()[name].space(name)
    path = Path(name) if name.endswith(".py") else folder(SPACES) / f"{name}.py"
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
    module = run_file(path, kind)
    hint = f"it needs a function {function}() -> {returned}"
    if not hasattr(module, function):
        own = next(iter(defined_in(module)), "NAME")
        other = f", or name what makes it: {path}:{own}" if kind == "file" else ""
        raise UserError(f"{path} has no function {function!r}", f"{hint}{other}")
    try:
        return getattr(module, function)()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        raise UserError(
            f"{what} {path} failed: {type(error).__name__}: {error}",
            hint,
        ) from error
