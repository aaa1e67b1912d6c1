"""Fit a study to its data: what a study that ships leaves open, and what its network loses.

The studies of classification that ship are made for CIFAR-100. A smaller data set trains as a
whole, for as many more epochs as show a model about as many samples, in batches that leave enough
steps; large images get the network that has a stem for them. What the user has set stays. Changes
settings, reads no data.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from bam_search.model.load import Inputs
from bam_search.search.study import Study
from bam_search.space.search_space import TableRow, space_table
from bam_search.space.sites import Site
from bam_search.tasks.load_task import CLASSIFICATION
from bam_search.tasks.recipe import Recipe
from bam_search.words import counted

MADE_FOR = 50_000
"""The training samples that "all" stands for in a study that ships: CIFAR-100's."""
MOST_EPOCHS = 90
"""As many as the paper trains on ImageNet. Epochs are raised to no more."""
LEAST_STEPS = 10
"""The steps that an epoch should have: batches are halved until it has."""
LEAST_BATCH = 16
"""The smallest batch that is made: normalisations take their statistics from it."""
LEAST_SIDE = 4
"""On maps of fewer positions than this squared there is little to attend to."""
MUCH_LARGER = 4
"""Images of so many times the pixels that a network is made for are worth a line."""
BAM = "bam"
"""The module that the questions of the studies that ship are about."""
NAMED = 4
"""How many sites a line names."""

IsSet = Callable[[str], bool]
"""Whether the user has set a key of the study, such as "recipe.epochs"."""


@dataclass(frozen=True)
class Fitted:
    """A study as it fits its data, and a clause for each of its settings that had to change."""

    study: Study
    changes: tuple[str, ...] = ()

    def with_recipe(self, recipe: Recipe, change: str) -> "Fitted":
        """The same with another recipe, and the clause that says why."""
        return Fitted(replace(self.study, recipe=recipe), (*self.changes, change))


def fit(study: Study, total: int, inputs: Inputs, is_set: IsSet) -> Fitted:
    """`study` for data of `total` training samples that need `inputs`.

    A study that fits stays as it is, and so does one of another task than classification.
    """
    if study.task != CLASSIFICATION:
        return Fitted(study)
    fitted = _fit_space(Fitted(_with_question(study, is_set)), inputs, is_set)
    meant = MADE_FOR if study.data.images == "all" else study.data.images
    if total >= meant or is_set("data.images"):
        return fitted
    return _fit_batch(_fit_amount(fitted, total, meant, is_set), total, is_set)


def _with_question(study: Study, is_set: IsSet) -> Study:
    """`study`, whose question names the attention modules that the user searches."""
    modules = list(study.search.modules)
    if not study.searches or is_set("question") or modules in ([], [BAM]):
        return study
    names = " or ".join(modules)
    return replace(study, question=f"Where should {names} go, with which options at each site?")


def _fit_space(fitted: Fitted, inputs: Inputs, is_set: IsSet) -> Fitted:
    """The network's twin with a stem for larger images, from the size on that it is for."""
    study = fitted.study
    row = space_table().get(study.space)
    if row is None or is_set("space") or not _is_for_twin(row, inputs):
        return fitted
    change = f"space {row.larger} instead of {study.space}, for images of {_size(inputs)}"
    return Fitted(replace(study, space=row.larger), (*fitted.changes, change))


def _is_for_twin(row: TableRow, inputs: Inputs) -> bool:
    return bool(row.larger) and min(inputs.shape[1:]) >= row.larger_from


def _fit_amount(fitted: Fitted, total: int, meant: int, is_set: IsSet) -> Fitted:
    """All of `total` samples where the study means more, and as many more epochs on them."""
    study = fitted.study
    if study.data.images != "all":
        change = f"data.images = all {total:,} instead of {meant:,}"
        data = replace(study.data, images="all")
        fitted = Fitted(replace(study, data=data), (*fitted.changes, change))
    epochs = min(MOST_EPOCHS, round(study.recipe.epochs * meant / total))
    if epochs <= study.recipe.epochs or is_set("recipe.epochs"):
        return fitted
    why = "the most that is chosen" if epochs == MOST_EPOCHS else "to see as many samples"
    change = f"recipe.epochs = {epochs} instead of {study.recipe.epochs}, {why}"
    longer = fitted.with_recipe(replace(study.recipe, epochs=epochs), change)
    return longer if is_set("rungs.epochs") else _fit_rungs(longer, study)


def _fit_rungs(fitted: Fitted, before: Study) -> Fitted:
    """The rungs at the same shares of a training as before its epochs changed."""
    if not before.rungs.epochs:
        return fitted
    share = fitted.study.recipe.epochs / before.recipe.epochs
    rungs = before.rungs.scaled(share, fitted.study.recipe.epochs)
    change = f"rungs.epochs = {list(rungs.epochs)}, at the same shares"
    return Fitted(replace(fitted.study, rungs=rungs), (*fitted.changes, change))


def _fit_batch(fitted: Fitted, total: int, is_set: IsSet) -> Fitted:
    """Batches small enough for LEAST_STEPS in an epoch of the search.

    The learning rate goes with the root of the batch, as between the studies' two variants.
    """
    study, recipe = fitted.study, fitted.study.recipe
    batch, samples = recipe.batch, study.data.sizes(total).fit
    while samples // batch < LEAST_STEPS and batch // 2 >= LEAST_BATCH:
        batch //= 2
    if batch == recipe.batch or is_set("recipe.batch"):
        return fitted
    change = f"recipe.batch = {batch} instead of {recipe.batch}"
    smaller = replace(recipe, batch=batch)
    if not is_set("recipe.lr"):
        lr = float(f"{recipe.lr * (batch / recipe.batch) ** 0.5:.2g}")
        smaller = replace(smaller, lr=lr)
        change = f"{change} and recipe.lr = {lr:g} instead of {recipe.lr:g}"
    steps = counted(samples // batch, "step")
    return fitted.with_recipe(smaller, f"{change}, for {steps} an epoch")


def size_advice(study: Study, inputs: Inputs, sites: Iterable[Site]) -> tuple[str, ...]:
    """What the user should know of a network on images of this size.

    `sites` are those of the study.
    """
    if len(inputs.shape) != 3:
        return ()
    lines = (_many_times_larger(study.space, inputs), _small_maps(study.space, inputs, sites))
    return tuple(line for line in lines if line)


def _many_times_larger(space: str, inputs: Inputs) -> str:
    """A line where the images are much larger than those that a space is made for."""
    row = space_table().get(space)
    if row is None:
        return ""
    _, height, width = row.input_shape
    times = inputs.shape[1] * inputs.shape[2] / (height * width)
    if times < MUCH_LARGER:
        return ""
    twin = f"; {row.larger} has a stem for large ones" if row.larger else ""
    return (
        f"space {space} is made for images of {height}x{width}: at {_size(inputs)} its maps, "
        f"MACs and time are {times:.0f} times as large{twin}"
    )


def _small_maps(space: str, inputs: Inputs, sites: Iterable[Site]) -> str:
    """A line where maps are smaller than LEAST_SIDE: of which size they are where."""
    small: dict[int, list[str]] = {}
    sides = {site.name: site.side for site in sites}
    for name, side in sides.items():
        if side < LEAST_SIDE:
            small.setdefault(side, []).append(name)
    if not small:
        return ""
    where = "; ".join(f"{side}x{side} at {_names(names)}" for side, names in small.items())
    lost = sum(map(len, small.values()))
    return (
        f"at {_size(inputs)} {space} leaves maps smaller than {LEAST_SIDE}x{LEAST_SIDE} "
        f"at {lost} of its {len(sides)} sites ({where}), too small for attention over positions; "
        f"all are larger with {_remedy(space, inputs, min(small))}"
    )


def _remedy(space: str, inputs: Inputs, least: int) -> str:
    """What makes the smallest maps, of side `least`, large enough."""
    needed = LEAST_SIDE * -(-min(inputs.shape[1:]) // least)
    bases = [name for name, row in space_table().items() if row.larger == space]
    other = f"in {bases[0]}" if bases else "in a network whose stem has stride 1, such as resnet18"
    return f"--set data.size={needed}, or {other}"


def _names(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _size(inputs: Inputs) -> str:
    return "x".join(map(str, inputs.shape[1:]))
