"""The interface between what a model is trained for and all that trains, searches and reports.

A task is an object with the members of `Task`; `bam_search.tasks.classification` is the first. Its
samples are its own: nobody else looks into them, they are `Any` outside of the task.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor

from bam_search.model.load import Inputs
from bam_search.tasks.metric import Metric
from bam_search.tasks.outputs import Model, Outputs
from bam_search.tasks.reading import Reading
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes


class Samples(Protocol):
    """Some samples with their targets, on the host. They are sent to processes by pickle."""

    def __len__(self) -> int: ...

    def first(self, n: int) -> Self:
        """The first `n` samples, or as many as there are."""
        ...

    def take(self, index: np.ndarray) -> Self:
        """The samples at `index`, (n,) integers."""
        ...

    def arrays(self) -> Iterable[np.ndarray]:
        """All that they consist of; two sets of equal arrays are the same data."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its official split into samples of the task.

    `name` is what every record says; `origin` is where it came from, and why. `stands_in_for`
    names the data set that this one replaces where that is not at hand, and of which results then
    say nothing. `classes` are the names of the classes, in the order of their numbers; it is empty
    if samples have none. `notes` are lines about what was found when the data were read.
    `known_digest` is the digest where it is known without reading the contents again.
    """

    name: str
    origin: str
    train: Any
    test: Any
    stands_in_for: str = ""
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    known_digest: str = ""

    @functools.cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the contents; all of them are read, once."""
        return self.known_digest or digests(self.train, self.test)[-1]


def digests(*parts: Samples) -> tuple[str, ...]:
    """Twelve hexadecimal digits of the first samples, of these and the next ones, and so on."""
    sha, found = hashlib.sha256(), []
    for part in parts:
        for array in part.arrays():
            sha.update(np.ascontiguousarray(array).data)
        found.append(sha.hexdigest()[:12])
    return tuple(found)


@dataclass(frozen=True)
class Source:
    """Where the data will come from, found without reading it, so that a dry run can say so.

    `train` and `test` are how many samples the data set has. `inputs` are those that its samples
    need, None for the task's own; a task whose data may have others has `for_inputs(inputs)`.
    `notes` are lines about the data, such as sizes and classes that are rare. `at_hand` says that
    `load` reads this machine only, so that a dry run may call it.
    """

    text: str
    train: int
    test: int
    load: Callable[[], Dataset]
    inputs: Inputs | None = None
    notes: tuple[str, ...] = ()
    at_hand: bool = False


@dataclass(frozen=True, eq=False)
class Split:
    """The samples that candidates train on and are scored on.

    In the search, `fit` trains and `validation` scores. For finalists, `train` trains and `test`
    scores. `train` is `fit`, and those of the validation samples for which there were no others.
    `how` says in a word or two how the samples were chosen.
    """

    fit: Any
    validation: Any
    train: Any
    test: Any
    how: str = "at random"

    @classmethod
    def of(cls, data: Dataset, order: np.ndarray, sizes: SplitSizes, how: str) -> "Split":
        """The split of these sizes, of a data set whose training samples are taken in `order`."""
        train = data.train.take(order[: sizes.train])
        fit = train if sizes.fit == sizes.train else train.first(sizes.fit)
        validation = data.train.take(order[sizes.total - sizes.validation :])
        return cls(fit, validation, train, data.test, how)


class Part(Protocol):
    """A part of a batch, on the device: what `TrainingData.loss` takes. Its length is samples."""

    def __len__(self) -> int: ...


class Batches(Protocol):
    """The full batches of one epoch, in tensors that stay where they are on the device."""

    def __len__(self) -> int:
        """The steps of an epoch."""
        ...

    def load(self, seed: int, epoch: int) -> None:
        """Fill the batches with those of an epoch, which depend on (seed, epoch) only."""
        ...

    def ready(self, step: int) -> None:
        """Have batch number `step` on the device; the host calls it before each step.

        Batches that are all there have nothing to do.
        """
        ...

    def parts(self, step: Tensor, n: int) -> Iterable[Part]:
        """Batch number `step` in `n` parts.

        `step` is (1,) int64 on the device, so that choosing a batch does not wait for the host, and
        the step can be one CUDA graph.
        """
        ...


@dataclass(frozen=True)
class Measured:
    """The value of the task's metric, and the mean loss, on held-out samples.

    `standard_error` is that of the value, in its unit: how far another such set of samples would
    change it. It does not include the spread between training seeds. Raises ValueError if a number
    but the loss is not finite: then the training has failed.

    A task may measure more. `further` are values by their titles, such as "top-5 error, %": they
    are shown beside the metric, and decide nothing. `by_class` is the metric on the samples of each
    class, None for a class without samples, and `class_samples` how many these are; both are in the
    order of the data set's `classes`.
    """

    value: float
    loss: float
    standard_error: float
    further: Mapping[str, float] = field(default_factory=dict)
    by_class: tuple[float | None, ...] = ()
    class_samples: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and math.isfinite(self.standard_error)):
            raise ValueError(f"measured {self.value} with a standard error {self.standard_error}")
        of_classes = {f"class {i}": value for i, value in enumerate(self.by_class)}
        for title, value in {**self.further, **of_classes}.items():
            if value is not None and not math.isfinite(value):
                raise ValueError(f"measured {value} as {title!r}")


class Tally(Protocol):
    """Sums over held-out samples, on the device."""

    def reset(self) -> None:
        """Begin again, in the same memory."""
        ...

    def add(self, model: Model, step: Tensor) -> None:
        """Measure batch number `step`, (1,) int64 on the device; decides nothing in Python."""
        ...

    def measured(self) -> Measured:
        """The result of all batches. Waits for the device."""
        ...


class HeldOut(Protocol):
    """Held-out samples on the device, in batches of one shape."""

    def __len__(self) -> int:
        """The number of batches."""
        ...

    def ready(self, step: int) -> None:
        """Have batch number `step` on the device; the host calls it before each, from 0 on."""
        ...

    def tally(self) -> Tally:
        """Sums of which nothing has been measured yet."""
        ...


class TrainingData(Protocol):
    """Training samples on a device, and how samples enter a model that is trained on them.

    If it has a `preprocessing`, a table for JSON, `train` writes it beside a model's weights.
    """

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def batches(self, batch: int) -> Batches:
        """Empty batches of `batch` samples each; `load` fills them."""
        ...

    def loss(self, model: Model, part: Any) -> Tensor:
        """The mean loss of a part of a batch, a scalar."""
        ...

    def held_out(self, samples: Any) -> HeldOut:
        """Other samples on the device, to be measured; they enter a model as these do."""
        ...

    def inputs(self, samples: Any) -> Tensor:
        """(B, C, H, W): what a model gets for these samples as they are."""
        ...


@dataclass(frozen=True, eq=False)
class Gallery:
    """Samples as pictures: `pixels` is (n, H, W, 3) uint8.

    Each has a caption; or, without captions, a class, whose name is the caption: `labels` are the
    numbers of the classes.
    """

    pixels: np.ndarray
    captions: Sequence[str] = ()
    labels: Sequence[int] = ()


@runtime_checkable
class Task(Protocol):
    """What models are trained for.

        >>> from bam_search import Task
        >>> from bam_search.tasks.load_task import load_task
        >>> task = load_task("classification")
        >>> isinstance(task, Task)
        True
        >>> task.metric.name, task.inputs.shape
        ('top-1 error', (3, 32, 32))

    Attributes:
        name: as a sentence has it.
        sample: what one sample is called, such as "image"; its plural has an s.
        metric: what is measured on held-out samples.
        inputs: what a backbone gets and how many outputs it has.
        outputs: what a backbone must return, such as `OneTensor((100,))`.
        recipe_keys: which of `bam_search.tasks.recipe.TASK_KEYS` it uses; the others may not be
            set.
    """

    @property
    def name(self) -> str: ...

    @property
    def sample(self) -> str: ...

    @property
    def metric(self) -> Metric: ...

    @property
    def inputs(self) -> Inputs: ...

    @property
    def outputs(self) -> Outputs: ...

    @property
    def recipe_keys(self) -> tuple[str, ...]: ...

    def locate(self, wanted: str, reading: Reading) -> Source:
        """The source of the data for `--data`: a path, "auto", or a name of the task's own.

        `reading` says at which size, for tasks that can choose it. Raises UserError for one that
        does not exist.
        """
        ...

    def split(self, data: Dataset, sizes: SplitSizes, seed: int) -> Split:
        """The split of these sizes, which depends on the data and the seed only; see `Split.of`.

        Raises UserError if a part has too few samples.
        """
        ...

    def noise(self, n: int) -> Any:
        """`n` random samples, to measure how fast a device trains."""
        ...

    def on_device(self, samples: Any, recipe: Recipe, device: str, room: int) -> TrainingData:
        """Training samples on `device`, "cpu" or "cuda".

        They should take at most `room` bytes of its memory, and held-out samples as many.
        """
        ...

    def gallery(self, samples: Any) -> Gallery:
        """Test samples as pictures."""
        ...

    def from_pictures(self, pixels: np.ndarray) -> Any:
        """Samples of a user's pictures, (n, H, W, 3) uint8 in the size of the inputs.

        Raises UserError if the task's samples are no pictures.
        """
        ...
