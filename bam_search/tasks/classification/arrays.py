"""Arrays of images and labels as people keep them, made into `Images` or refused with a reason."""

from dataclasses import dataclass

import numpy as np

from bam_search.errors import UserError
from bam_search.model.load import Inputs
from bam_search.tasks.classification.images import Images

GREY, COLOUR = 1, 3
LAYOUTS = "(N, H, W), (N, H, W, C) or (N, C, H, W), with 1 or 3 channels"


@dataclass(frozen=True)
class Layout:
    """How an array (N, ...) holds its images: their shape, and whether channels come first."""

    height: int
    width: int
    channels: int
    channels_first: bool

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...]) -> "Layout":
        """The layout of an array of this name and shape. Raises UserError for any other."""
        if len(shape) == 3:
            return cls(shape[1], shape[2], GREY, channels_first=False)
        if len(shape) == 4 and shape[3] in (GREY, COLOUR):
            return cls(shape[1], shape[2], shape[3], channels_first=False)
        if len(shape) == 4 and shape[1] in (GREY, COLOUR):
            return cls(shape[2], shape[3], shape[1], channels_first=True)
        raise UserError(f"{name} has shape {shape}", f"images are {LAYOUTS}")

    @property
    def words(self) -> str:
        """As a first line says it."""
        kind = "grey" if self.channels == GREY else "colour"
        order = ", channels first" if self.channels_first else ""
        return f"{self.height}x{self.width} {kind}{order}"


def pixels_of(name: str, x: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8: the images of an array; grey ones have three equal channels.

    Integers are from 0 to 255, floats from 0 to 1 or from 0 to 255. Raises UserError for others.
    """
    layout = Layout.of(name, x.shape)
    x = _bytes(name, x)
    if x.ndim == 3:
        x = x[..., None]
    if layout.channels_first:
        x = x.transpose(0, 2, 3, 1)
    if layout.channels == GREY:
        x = np.repeat(x, COLOUR, axis=3)
    return x if x.flags.c_contiguous else np.ascontiguousarray(x)  # a map of a file stays one


def _bytes(name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype == np.uint8:
        return x
    if not (np.issubdtype(x.dtype, np.integer) or np.issubdtype(x.dtype, np.floating)):
        raise UserError(f"{name} is of {x.dtype}", "images are integers or floats")
    if not len(x):
        return x.astype(np.uint8)
    lowest, highest = float(x.min()), float(x.max())
    if not (lowest >= 0 and highest <= 255):  # not a number is neither
        raise UserError(
            f"{name} has values from {lowest:g} to {highest:g}",
            "integers are from 0 to 255, floats from 0 to 1 or from 0 to 255: "
            "undo a normalisation, which the training does itself",
        )
    if np.issubdtype(x.dtype, np.floating):
        x = np.rint(x * 255 if highest <= 1 else x)
    return x.astype(np.uint8)


def labels_of(name: str, y: np.ndarray, images: int) -> np.ndarray:
    """(N,): a class for each image, from (N,), (N, 1), or one-hot (N, classes).

    Raises UserError for labels of another form.
    """
    if y.ndim == 2 and y.shape[1] > 1 and len(y) == images and _one_hot(y):
        return y.argmax(1)
    known = y.shape in ((images,), (images, 1))
    if not known or not (np.issubdtype(y.dtype, np.integer) or y.dtype.kind == "U"):
        raise UserError(
            f"{name} is {y.dtype} of shape {y.shape} for {images} images",
            "labels are integers or names, one an image, or one-hot",
        )
    return y.reshape(-1)


def _one_hot(y: np.ndarray) -> bool:
    return bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a training set: its different labels, in their order."""

    labels: np.ndarray

    @classmethod
    def of(cls, name: str, y: np.ndarray) -> "Classes":
        """Those of the labels `y`. Raises UserError for fewer than two."""
        labels = np.unique(y)
        if len(labels) < 2:
            raise UserError(f"{name} has {len(labels)} class", "a classifier needs at least two")
        return cls(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def numbers(self, name: str, y: np.ndarray) -> np.ndarray:
        """(N,) int64: the number of each label's class.

        Raises UserError if `y` has a label that is none of the classes, or lacks most classes: so
        look coarse labels of one part beside fine ones of the other.
        """
        found = np.unique(y)
        foreign = np.setdiff1d(found, self.labels)
        if len(foreign):
            raise UserError(
                f"{name} has label {foreign[0]}, which the training set has not",
                f"its {len(self)} classes are {self._words}",
            )
        if 2 * len(found) < len(self):
            raise UserError(
                f"{name} has only {len(found)} of the training set's {len(self)} classes",
                "are its labels coarse ones, and those of the training set fine ones?",
            )
        return np.searchsorted(self.labels, y).astype(np.int64)

    @property
    def names(self) -> tuple[str, ...]:
        """What the labels are, as text."""
        return tuple(map(str, self.labels.tolist()))

    @property
    def _words(self) -> str:
        return f"{self.labels[0]} to {self.labels[-1]}"


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Training and test images, and the names of their classes."""

    train: Images
    test: Images
    classes: tuple[str, ...]

    @property
    def inputs(self) -> Inputs:
        """What a model of them needs."""
        height, width = self.train.shape[:2]
        return Inputs((COLOUR, height, width), len(self.classes))


def check_filled(name: str, images: int) -> None:
    """Raise UserError if an array has no images."""
    if not images:
        raise UserError(f"{name} is empty", "each part needs an image of each class")


def images_of(
    x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> LabelledImages:
    """The training and test images of arrays.

    Raises UserError for arrays that are no labelled images, or do not belong together.
    """
    parts = {"train": (x_train, y_train), "test": (x_test, y_test)}
    for part, (x, _) in parts.items():
        check_filled(f"x_{part}", len(x))
    pixels = {part: pixels_of(f"x_{part}", x) for part, (x, _) in parts.items()}
    labels = {part: labels_of(f"y_{part}", y, len(x)) for part, (x, y) in parts.items()}
    sizes = {part: x.shape[1:3] for part, x in pixels.items()}
    if sizes["train"] != sizes["test"]:
        raise UserError(
            f"training images are {_size(sizes['train'])}, test images {_size(sizes['test'])}",
            "all images have one size",
        )
    classes = Classes.of("y_train", labels["train"])
    train, test = (
        Images(pixels[part], classes.numbers(f"y_{part}", labels[part])) for part in parts
    )
    return LabelledImages(train, test, classes.names)


def _size(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))
